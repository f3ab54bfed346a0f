// SPDX-License-Identifier: MIT
//! tokio-peer: the scenarios of perf/SCENARIOS.md on Tokio, and a TCP echo server.
//! Which allocator runs under it is found out, not told: see `options::runtime_name`.

mod channels;
mod echo;
mod files;
mod measure;
mod memory;
mod options;
mod place;
mod remote;
mod sync;
mod tasks;
mod time;
mod tree;
mod wake;

use measure::Series;
use options::{Options, Parsed};

type Run = fn(&Options) -> Result<Vec<Series>, String>;

/// A scenario, and the further lines that its run yields.
struct Scenario {
    name: &'static str,
    also: &'static [&'static str],
    run: Run,
}

const fn plain(name: &'static str, run: Run) -> Scenario {
    Scenario { name, also: &[], run }
}

const SCENARIOS: &[Scenario] = &[
    plain("spawn_many_local", tasks::spawn_many_local),
    plain("spawn_join_each", tasks::spawn_join_each),
    plain("spawn_join_10k", tasks::spawn_join_10k),
    plain("spawn_many_remote_idle", remote::spawn_many_idle),
    plain("spawn_many_remote_busy1", remote::spawn_many_busy_yield),
    plain("spawn_many_remote_busy2", remote::spawn_many_busy_spawn),
    plain("chained_spawn", tasks::chained_spawn),
    plain("yield_many", tasks::yield_many),
    plain("ping_pong", wake::ping_pong),
    plain("notify_pingpong", wake::notify_pingpong),
    plain("xthread_pingpong", wake::xthread_pingpong),
    Scenario { name: "remote_wake", also: &["remote_wake_call"], run: wake::remote_wake },
    plain("fib27", tree::fib),
    plain("skynet", tree::skynet),
    plain("mpsc_1p", channels::mpsc_1p),
    plain("mpsc_4p", channels::mpsc_4p),
    plain("oneshot", channels::oneshot),
    plain("request_reply", channels::request_reply),
    plain("spawn_blocking", tasks::spawn_blocking),
    plain("mutex_uncontended", sync::mutex_uncontended),
    plain("semaphore_uncontended", sync::semaphore_uncontended),
    plain("mutex_contended", sync::mutex_contended),
    plain("idle_task_bytes", memory::idle_task_bytes),
    plain("timer_insert_cancel", time::timer_insert_cancel),
    plain("timer_insert_cancel_100k", time::timer_insert_cancel_100k),
    Scenario {
        name: "timer_fire_100k",
        also: &["timer_fire_100k_late_p99"],
        run: time::timer_fire_100k,
    },
    Scenario { name: "sleep_1ms", also: &["sleep_1ms_p99"], run: time::sleep_1ms },
    Scenario { name: "sleep_100us", also: &["sleep_100us_p99"], run: time::sleep_100us },
    plain("file_read_cached", files::read_cached),
    plain("file_read_cached_qd1", files::read_cached_one),
    plain("file_read_cached_at", files::read_cached_at),
];

fn list(options: &Options) {
    for scenario in SCENARIOS {
        for name in std::iter::once(&scenario.name).chain(scenario.also) {
            if options.matches(name) {
                println!("{name}");
            }
        }
    }
}

fn run_all(options: &Options) -> Result<(), String> {
    let mut sink = measure::Sink::open(options)?;
    for scenario in SCENARIOS {
        let wanted = |name: &str| options.matches(name);
        if !wanted(scenario.name) && !scenario.also.iter().any(|name| wanted(name)) {
            continue;
        }
        eprintln!("{}: {} ...", options.runtime_name(), scenario.name);
        match (scenario.run)(options) {
            Ok(all) => {
                for series in all.iter().filter(|series| wanted(series.name)) {
                    sink.put(series)?;
                }
            }
            Err(reason) => eprintln!("{}: skipped: {reason}", scenario.name),
        }
    }
    sink.finish()
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match options::parse(&args) {
        Ok(Parsed::Bench(options)) if options.list => {
            list(&options);
            Ok(())
        }
        Ok(Parsed::Bench(options)) => run_all(&options),
        Ok(Parsed::Echo(echo)) => echo::serve(&echo),
        Ok(Parsed::Instructions(options, count)) => tasks::join_each(&options, count),
        Ok(Parsed::IdleChild(options)) => memory::idle_child(&options),
        Ok(Parsed::Text(text)) => {
            print!("{text}");
            Ok(())
        }
        Err(message) => Err(message),
    };
    if let Err(message) = outcome {
        eprintln!("tokio-peer: {message}");
        std::process::exit(2);
    }
}
