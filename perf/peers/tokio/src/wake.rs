// SPDX-License-Identifier: MIT
//! Scenarios about waking: between tasks, between workers, from a plain thread.

use crate::measure::{inside, median, repeat, Block, Gate, Series};
use crate::options::Options;
use crate::place;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, Notify};

const PAIRS: usize = 1_000;
const TRIPS: usize = 10_000;
const TRIPS_ACROSS: usize = 2_000;
const QUIET: Duration = Duration::from_micros(200);

type Outcome = Result<Vec<Series>, String>;

async fn one_pair(gate: &'static Gate) {
    let (ask, asked) = oneshot::channel::<()>();
    let (answer, answered) = oneshot::channel::<()>();
    tokio::spawn(async move {
        asked.await.expect("asked");
        answer.send(()).expect("somebody waits for the answer");
    });
    ask.send(()).expect("the partner waits");
    answered.await.expect("answered");
    gate.leave();
}

pub fn ping_pong(options: &Options) -> Outcome {
    let rt = options.runtime();
    let gate = Gate::forever();
    let block = || {
        inside(&rt, async move {
            gate.arm(PAIRS);
            let start = Instant::now();
            for _ in 0..PAIRS {
                tokio::spawn(one_pair(gate));
            }
            gate.wait().await;
            Block::since(start, PAIRS)
        })
    };
    Ok(vec![repeat(options, "ping_pong", block)])
}

/// The two ends of a ping-pong, each to be awaited by one task.
struct Table {
    ping: Notify,
    pong: Notify,
}

impl Table {
    fn forever() -> &'static Table {
        Box::leak(Box::new(Table { ping: Notify::new(), pong: Notify::new() }))
    }

    async fn serve(&self, trips: usize) -> Block {
        let start = Instant::now();
        for _ in 0..trips {
            self.ping.notify_one();
            self.pong.notified().await;
        }
        Block::since(start, trips)
    }

    async fn reply(&self, trips: usize) {
        for _ in 0..trips {
            self.ping.notified().await;
            self.pong.notify_one();
        }
    }
}

pub fn notify_pingpong(options: &Options) -> Outcome {
    let rt = options.runtime();
    let table = Table::forever();
    let block = || {
        inside(&rt, async move {
            let replier = tokio::spawn(table.reply(TRIPS));
            let server = tokio::spawn(table.serve(TRIPS));
            replier.await.expect("joined");
            server.await.expect("joined")
        })
    };
    Ok(vec![repeat(options, "notify_pingpong", block)])
}

fn one_worker_on(cpu: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all();
    builder.on_thread_start(move || place::bind_thread(&[cpu]));
    builder.build().expect("runtime")
}

pub fn xthread_pingpong(options: &Options) -> Outcome {
    options.need_worker_threads()?;
    let cpus = place::allowed_cpus();
    if options.workers != 2 || cpus.len() < 2 {
        return Err("defined for 2 workers on 2 CPUs".to_string());
    }
    let near = one_worker_on(cpus[0]);
    let far = one_worker_on(cpus[1]);
    let table = Table::forever();
    let block = || {
        let replier = far.spawn(table.reply(TRIPS_ACROSS));
        let server = near.spawn(table.serve(TRIPS_ACROSS));
        near.block_on(async {
            replier.await.expect("joined");
            server.await.expect("joined")
        })
    };
    Ok(vec![repeat(options, "xthread_pingpong", block)])
}

/// What the woken task tells the thread that woke it.
struct Bell {
    rings: Notify,
    heard: AtomicU64,
    heard_ns: AtomicU64,
}

async fn listen(bell: &'static Bell, origin: Instant) {
    for count in 1u64.. {
        bell.rings.notified().await;
        let now_ns = origin.elapsed().as_nanos() as u64;
        // Relaxed: the release store below publishes it.
        bell.heard_ns.store(now_ns, Ordering::Relaxed);
        // Release: pairs with the acquire load in ring(), which then reads heard_ns.
        bell.heard.store(count, Ordering::Release);
    }
}

/// Wakes the listener for the `count`th time; returns (latency, duration of the call) in ns.
fn ring(bell: &'static Bell, origin: Instant, count: u64) -> (f64, f64) {
    let quiet = Instant::now();
    while quiet.elapsed() < QUIET {
        std::hint::spin_loop();
    }
    let before = Instant::now();
    bell.rings.notify_one();
    let call = before.elapsed();
    // Acquire: pairs with the release store in listen().
    while bell.heard.load(Ordering::Acquire) < count {
        std::hint::spin_loop();
    }
    let sent_ns = before.duration_since(origin).as_nanos() as f64;
    // Relaxed: ordered by the acquire load above.
    let heard_ns = bell.heard_ns.load(Ordering::Relaxed) as f64;
    (heard_ns - sent_ns, call.as_nanos() as f64)
}

pub fn remote_wake(options: &Options) -> Outcome {
    options.need_worker_threads()?;
    let cpus = place::allowed_cpus();
    if cpus.len() < 2 {
        return Err("needs a CPU for the thread beside the workers'".to_string());
    }
    let (others, last) = (&cpus[..cpus.len() - 1], cpus[cpus.len() - 1]);
    place::bind_thread(others);
    let rt = options.runtime();
    place::bind_thread(&[last]);
    let bell: &'static Bell = Box::leak(Box::new(Bell {
        rings: Notify::new(),
        heard: AtomicU64::new(0),
        heard_ns: AtomicU64::new(0),
    }));
    let origin = Instant::now();
    rt.spawn(listen(bell, origin));
    let wakes = if options.quick { 200 } else { 1_000 };
    let mut count = 0;
    let mut latency = Vec::new();
    let mut call = Vec::new();
    for round in 0..=options.rounds {
        let mut both = (Vec::with_capacity(wakes), Vec::with_capacity(wakes));
        for _ in 0..wakes {
            count += 1;
            let (one_latency, one_call) = ring(bell, origin, count);
            both.0.push(one_latency);
            both.1.push(one_call);
        }
        if round > 0 {
            latency.push(median(&both.0));
            call.push(median(&both.1));
        }
    }
    place::bind_thread(&cpus);
    rt.shutdown_background();
    Ok(vec![
        Series { name: "remote_wake", unit: "ns/op", samples: latency },
        Series { name: "remote_wake_call", unit: "ns/op", samples: call },
    ])
}
