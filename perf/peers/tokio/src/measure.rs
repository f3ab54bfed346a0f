// SPDX-License-Identifier: MIT
//! Blocks, samples, and how their summary is written: perf/SCENARIOS.md, "The common protocol".

use crate::options::{Options, TOKIO_VERSION};
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// What one block took, and how many operations it did.
pub struct Block {
    pub time: Duration,
    pub ops: u64,
}

impl Block {
    pub fn since(start: Instant, ops: usize) -> Block {
        Block { time: start.elapsed(), ops: ops as u64 }
    }

    fn ns_per_op(&self) -> f64 {
        self.time.as_nanos() as f64 / self.ops as f64
    }
}

/// One line of output to be.
pub struct Series {
    pub name: &'static str,
    pub unit: &'static str,
    pub samples: Vec<f64>,
}

/// A sample repeats blocks until their timed regions fill its span.
pub fn repeat(options: &Options, name: &'static str, mut block: impl FnMut() -> Block) -> Series {
    let span = Duration::from_millis(if options.quick { 10 } else { 50 });
    let _warm_up = block();
    let sample = |_| {
        let mut sum = Block { time: Duration::ZERO, ops: 0 };
        while sum.ops == 0 || sum.time < span {
            let one = block();
            sum.time += one.time;
            sum.ops += one.ops;
        }
        sum.ns_per_op()
    };
    Series { name, unit: "ns/op", samples: (0..options.rounds).map(sample).collect() }
}

/// A sample is one block, for blocks that are long already.
pub fn single(options: &Options, name: &'static str, mut block: impl FnMut() -> Block) -> Series {
    let _warm_up = block();
    let samples = (0..options.rounds).map(|_| block().ns_per_op()).collect();
    Series { name, unit: "ns/op", samples }
}

/// Runs `root` as a task on the runtime, on one of its workers where it has any.
pub fn inside<T: Send + 'static>(
    rt: &Runtime,
    root: impl Future<Output = T> + Send + 'static,
) -> T {
    rt.block_on(async move { tokio::spawn(root).await.expect("the root task ended") })
}

/// "Waiting for many": a counter that lives for ever, and a wake when it reaches zero.
pub struct Gate {
    left: AtomicUsize,
    open: Notify,
}

impl Gate {
    pub fn forever() -> &'static Gate {
        Box::leak(Box::new(Gate { left: AtomicUsize::new(0), open: Notify::new() }))
    }

    pub fn arm(&self, count: usize) {
        // Relaxed: the tasks that decrement are spawned after this, which publishes it.
        self.left.store(count, Ordering::Relaxed);
    }

    pub fn leave(&self) {
        // AcqRel: what each task did happens before the waiter goes on.
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.open.notify_one();
        }
    }

    pub async fn wait(&self) {
        self.open.notified().await;
    }
}

struct Summary {
    median: f64,
    mad: f64,
    min: f64,
    max: f64,
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[half]
    } else {
        (sorted[half - 1] + sorted[half]) / 2.0
    }
}

fn summarise(samples: &[f64]) -> Summary {
    let middle = median(samples);
    let deviations: Vec<f64> = samples.iter().map(|x| (x - middle).abs()).collect();
    Summary {
        median: middle,
        mad: median(&deviations),
        min: samples.iter().copied().fold(f64::INFINITY, f64::min),
        max: samples.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }
}

/// Where lines go: JSON to stdout, or JSON to a file and a table to stdout.
pub struct Sink {
    runtime: String,
    workers: usize,
    file: Option<File>,
    has_header: bool,
}

impl Sink {
    pub fn open(options: &Options) -> Result<Sink, String> {
        let open = |path: &String| {
            let file = OpenOptions::new().append(true).create(true).open(path);
            file.map_err(|error| format!("{path}: {error}"))
        };
        let file = options.json.as_ref().map(open).transpose()?;
        let runtime = options.runtime_name();
        Ok(Sink { runtime, workers: options.workers, file, has_header: false })
    }

    pub fn put(&mut self, series: &Series) -> Result<(), String> {
        let s = summarise(&series.samples);
        let line = format!(
            "{{\"scenario\":\"{}\",\"runtime\":\"{}\",\"version\":\"{TOKIO_VERSION}\",\
             \"workers\":{},\"driver\":\"epoll\",\"unit\":\"{}\",\"median\":{:.3},\"mad\":{:.3},\
             \"min\":{:.3},\"max\":{:.3},\"n\":{}}}\n",
            series.name,
            self.runtime,
            self.workers,
            series.unit,
            s.median,
            s.mad,
            s.min,
            s.max,
            series.samples.len()
        );
        let file = match self.file.as_mut() {
            Some(file) => file,
            None => {
                print!("{line}");
                return Ok(());
            }
        };
        file.write_all(line.as_bytes()).map_err(|error| format!("--json: {error}"))?;
        if !self.has_header {
            self.has_header = true;
            println!("{} {TOKIO_VERSION}, {} worker(s)", self.runtime, self.workers);
            println!(
                "{:<26} {:>12} {:>10} {:>12} {:>12} {:>4}  unit",
                "scenario", "median", "MAD", "min", "max", "n"
            );
        }
        println!(
            "{:<26} {:>12.1} {:>10.1} {:>12.1} {:>12.1} {:>4}  {}",
            series.name,
            s.median,
            s.mad,
            s.min,
            s.max,
            series.samples.len(),
            series.unit
        );
        Ok(())
    }

    pub fn finish(self) -> Result<(), String> {
        std::io::stdout().flush().map_err(|error| format!("stdout: {error}"))
    }
}
