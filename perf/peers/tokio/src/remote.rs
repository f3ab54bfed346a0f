// SPDX-License-Identifier: MIT
//! Scenarios that spawn from a plain thread, into an idle or a busy runtime.

use crate::measure::{repeat, Block, Series};
use crate::options::Options;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const SPAWNS: usize = 10_000;
const SPAWNS_BUSY2: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(5);
const BURN: Duration = Duration::from_micros(10);

type Outcome = Result<Vec<Series>, String>;

fn spawn_and_wait(rt: &Runtime, count: usize) -> Block {
    let mut handles = Vec::with_capacity(count);
    let start = Instant::now();
    for _ in 0..count {
        handles.push(rt.spawn(async {}));
    }
    rt.block_on(async {
        for handle in handles.drain(..) {
            handle.await.expect("joined");
        }
    });
    Block::since(start, count)
}

pub fn spawn_many_idle(options: &Options) -> Outcome {
    options.need_worker_threads()?;
    let rt = options.runtime();
    let block = || spawn_and_wait(&rt, SPAWNS);
    Ok(vec![repeat(options, "spawn_many_remote_idle", block)])
}

fn burn() {
    let start = Instant::now();
    while start.elapsed() < BURN {
        std::hint::spin_loop();
    }
}

async fn burn_and_yield(go: Arc<AtomicBool>) {
    // Relaxed: a flag to stop by, nothing is read behind it.
    while go.load(Ordering::Relaxed) {
        burn();
        tokio::task::yield_now().await;
    }
}

fn burn_and_spawn(go: Arc<AtomicBool>) {
    tokio::spawn(async move {
        burn();
        // Relaxed: as above.
        if go.load(Ordering::Relaxed) {
            burn_and_spawn(go);
        }
    });
}

/// Runs `work` and reports whether it was done by itself: past PATIENCE the busy tasks are told
/// to end, because a scheduler may starve what comes from outside for as long as they run.
fn guarded<T>(go: &Arc<AtomicBool>, work: impl FnOnce() -> T) -> Option<T> {
    let (done, wait) = mpsc::channel::<()>();
    let stop = go.clone();
    let watch = std::thread::spawn(move || {
        let is_late = wait.recv_timeout(PATIENCE).is_err();
        if is_late {
            // Relaxed: as above.
            stop.store(false, Ordering::Relaxed);
        }
        is_late
    });
    let result = work();
    let _ = done.send(()); // nobody listens once the watch has ended
    let is_late = watch.join().expect("the watch ended");
    if is_late {
        None
    } else {
        Some(result)
    }
}

fn measure_busy(rt: &Runtime, go: Arc<AtomicBool>, options: &Options, kind: &Busy) -> Outcome {
    // One unmeasured block under guard: a scheduler that starves the spawner does so at once.
    let first = guarded(&go, || spawn_and_wait(rt, kind.spawns));
    let outcome = match first {
        Some(_) => Ok(vec![repeat(options, kind.name, || spawn_and_wait(rt, kind.spawns))]),
        None => Err(format!(
            "starved: {} tasks spawned from outside were not done within {} s",
            kind.spawns,
            PATIENCE.as_secs()
        )),
    };
    // Relaxed: as above.
    go.store(false, Ordering::Relaxed);
    outcome
}

struct Busy {
    name: &'static str,
    spawns: usize,
}

pub fn spawn_many_busy_yield(options: &Options) -> Outcome {
    options.need_worker_threads()?;
    let rt = options.runtime();
    let go = Arc::new(AtomicBool::new(true));
    for _ in 0..2 * options.workers {
        rt.spawn(burn_and_yield(go.clone()));
    }
    let kind = Busy { name: "spawn_many_remote_busy1", spawns: SPAWNS };
    measure_busy(&rt, go, options, &kind)
}

pub fn spawn_many_busy_spawn(options: &Options) -> Outcome {
    options.need_worker_threads()?;
    let rt = options.runtime();
    let go = Arc::new(AtomicBool::new(true));
    for _ in 0..2 * options.workers {
        let go = go.clone();
        rt.spawn(async move { burn_and_spawn(go) });
    }
    let kind = Busy { name: "spawn_many_remote_busy2", spawns: SPAWNS_BUSY2 };
    measure_busy(&rt, go, options, &kind)
}
