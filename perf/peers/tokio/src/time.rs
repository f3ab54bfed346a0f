// SPDX-License-Identifier: MIT
//! Scenarios about time: timers that are armed and taken back, many that end, sleeps.

use crate::measure::{inside, median, repeat, Block, Gate, Series};
use crate::options::Options;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::{sleep, sleep_until, Instant, Sleep};

const CANCELS: usize = 20_000;

type Outcome = Result<Vec<Series>, String>;

/// The same sequence in every program: a linear congruential generator's upper half.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    *state >> 33
}

/// A timer is armed by its first poll.
struct Armed(Pin<Box<Sleep>>);

impl Future for Armed {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        Poll::Ready(self.0.as_mut().poll(cx).is_ready())
    }
}

/// Armed on the stack, polled once, dropped.
struct Once<'a>(Pin<&'a mut Sleep>);

impl Future for Once<'_> {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        Poll::Ready(self.0.as_mut().poll(cx).is_ready())
    }
}

async fn insert_and_cancel() -> Block {
    let mut random = 1;
    let start = std::time::Instant::now();
    for _ in 0..CANCELS {
        let delay = 1_000_000_000 + next_random(&mut random) % 60_000_000_000;
        let timer = sleep(Duration::from_nanos(delay));
        tokio::pin!(timer);
        assert!(!Once(timer.as_mut()).await, "it has not ended yet");
    }
    Block::since(start, CANCELS)
}

fn cancel(options: &Options, name: &'static str, outstanding: usize) -> Outcome {
    let rt = options.runtime();
    let gate = Gate::forever();
    let mut random = 2;
    gate.arm(outstanding);
    for _ in 0..outstanding {
        let nanos = 600_000_000_000 + next_random(&mut random) % 60_000_000_000;
        rt.spawn(async move {
            let mut timer = Armed(Box::pin(sleep(Duration::from_nanos(nanos))));
            assert!(!(&mut timer).await, "it has not ended yet");
            gate.leave();
            timer.0.await;
        });
    }
    if outstanding > 0 {
        inside(&rt, gate.wait());
    }
    let series = repeat(options, name, || inside(&rt, insert_and_cancel()));
    rt.shutdown_background();
    Ok(vec![series])
}

pub fn timer_insert_cancel(options: &Options) -> Outcome {
    cancel(options, "timer_insert_cancel", 0)
}

pub fn timer_insert_cancel_100k(options: &Options) -> Outcome {
    cancel(options, "timer_insert_cancel_100k", 100_000)
}

fn cpu_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to `now` and cannot fail with this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

const ARMING: Duration = Duration::from_millis(2_000);

/// Returns the CPU time per timer, in ns, and the p99 of their lateness, in us.
fn fire(rt: &Runtime, count: usize) -> Result<(f64, f64), String> {
    let gate = Gate::forever();
    let armed: &'static AtomicUsize = Box::leak(Box::new(AtomicUsize::new(0)));
    let late: Arc<Vec<AtomicU64>> = Arc::new((0..count).map(|_| AtomicU64::new(0)).collect());
    let base = Instant::now() + ARMING;
    let mut random = 3;
    gate.arm(count);
    for i in 0..count {
        let until = base + Duration::from_nanos(next_random(&mut random) % 100_000_000);
        let late = late.clone();
        rt.spawn(async move {
            let mut timer = Armed(Box::pin(sleep_until(until)));
            if !(&mut timer).await {
                // Relaxed: a count, which publishes nothing.
                armed.fetch_add(1, Ordering::Relaxed);
                timer.0.await;
            }
            let now = Instant::now();
            assert!(now >= until, "a timer has ended before its time");
            // Relaxed: the gate publishes it.
            late[i].store((now - until).as_nanos() as u64, Ordering::Relaxed);
            gate.leave();
        });
    }
    let soon = base - Duration::from_millis(2);
    std::thread::sleep(soon.saturating_duration_since(Instant::now()));
    // Relaxed: as above.
    let in_time = armed.load(Ordering::Relaxed) == count;
    let before = cpu_ns();
    inside(rt, gate.wait());
    let cpu = (cpu_ns() - before) as f64 / count as f64;
    // Relaxed: ordered by the gate.
    let mut sorted: Vec<u64> = late.iter().map(|x| x.load(Ordering::Relaxed)).collect();
    sorted.sort_unstable();
    if !in_time {
        return Err("the timers were not armed in time: the machine is busy".to_string());
    }
    Ok((cpu, sorted[count * 99 / 100] as f64 / 1e3))
}

pub fn timer_fire_100k(options: &Options) -> Outcome {
    let rt = options.runtime();
    let count = if options.quick { 10_000 } else { 100_000 };
    let _warm_up = fire(&rt, count);
    let rounds: Result<Vec<(f64, f64)>, String> =
        (0..options.rounds).map(|_| fire(&rt, count)).collect();
    let (cpu, late) = rounds?.into_iter().unzip();
    Ok(vec![
        Series { name: "timer_fire_100k", unit: "ns/op", samples: cpu },
        Series { name: "timer_fire_100k_late_p99", unit: "us", samples: late },
    ])
}

fn sleeps(options: &Options, names: [&'static str; 2], delay: Duration, count: usize) -> Outcome {
    let rt = options.runtime();
    let count = if options.quick { 50 } else { count };
    let block = || {
        inside(&rt, async move {
            let mut took = Vec::with_capacity(count);
            for _ in 0..count {
                let start = std::time::Instant::now();
                sleep(delay).await;
                took.push(start.elapsed().as_nanos() as f64 / 1e3);
            }
            took.sort_by(f64::total_cmp);
            (median(&took), took[(count * 99 + 99) / 100 - 1])
        })
    };
    let _warm_up = block();
    let (p50, p99) = (0..options.rounds).map(|_| block()).unzip();
    Ok(vec![
        Series { name: names[0], unit: "us", samples: p50 },
        Series { name: names[1], unit: "us", samples: p99 },
    ])
}

pub fn sleep_1ms(options: &Options) -> Outcome {
    sleeps(options, ["sleep_1ms", "sleep_1ms_p99"], Duration::from_millis(1), 100)
}

pub fn sleep_100us(options: &Options) -> Outcome {
    sleeps(options, ["sleep_100us", "sleep_100us_p99"], Duration::from_micros(100), 500)
}
