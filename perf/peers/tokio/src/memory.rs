// SPDX-License-Identifier: MIT
//! Bytes of resident memory per idle task. Each sample is a process of its own, so that nothing
//! an earlier sample freed can be used again.

use crate::measure::{Gate, Series};
use crate::options::Options;
use std::process::Command;

type Outcome = Result<Vec<Series>, String>;

fn resident_bytes() -> Result<u64, String> {
    let text = std::fs::read_to_string("/proc/self/statm").map_err(|e| format!("statm: {e}"))?;
    let pages = text.split(' ').nth(1).and_then(|word| word.parse::<u64>().ok());
    // SAFETY: sysconf() only reads.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    pages.map(|pages| pages * page_bytes).ok_or_else(|| format!("statm: {text}"))
}

/// The child: prints the bytes per task and exits without winding a million tasks down.
pub fn idle_child(options: &Options) -> Result<(), String> {
    let tasks: usize = if options.quick { 100_000 } else { 1_000_000 };
    let rt = options.runtime();
    let gate = Gate::forever();
    let grown = rt.block_on(async {
        gate.arm(tasks);
        let before = resident_bytes()?;
        for word in 0..tasks {
            tokio::spawn(async move {
                gate.leave();
                std::future::pending::<()>().await;
                word // so that the task has to keep it
            });
        }
        gate.wait().await;
        Ok::<u64, String>(resident_bytes()?.saturating_sub(before))
    })?;
    println!("{:.3}", grown as f64 / tasks as f64);
    std::process::exit(0)
}

fn one_child(options: &Options) -> Result<f64, String> {
    let program = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
    let mut command = Command::new(program);
    command.args(["--idle-child", "--workers", &options.workers.to_string()]);
    if options.current_thread {
        command.args(["--flavor", "current_thread"]);
    }
    if options.quick {
        command.arg("--quick");
    }
    let output = command.output().map_err(|error| format!("child: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let bytes = text.trim().parse::<f64>();
    bytes.map_err(|_| format!("child: {} {text:?}", output.status))
}

pub fn idle_task_bytes(options: &Options) -> Outcome {
    let samples: Result<Vec<f64>, String> =
        (0..options.rounds).map(|_| one_child(options)).collect();
    Ok(vec![Series { name: "idle_task_bytes", unit: "bytes", samples: samples? }])
}
