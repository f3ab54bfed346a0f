// SPDX-License-Identifier: MIT
//! Scenarios that spawn, join and yield from inside the runtime.

use crate::measure::{inside, repeat, Block, Gate, Series};
use crate::options::Options;
use std::time::Instant;

const SPAWNS: usize = 10_000;
const CHAIN_DEPTH: usize = 1_000;
const CHAINS: usize = 10;
const YIELDERS: usize = 200;
const YIELDS: usize = 1_000;
const BLOCKING_TRIPS: usize = 1_000;

type Outcome = Result<Vec<Series>, String>;

pub fn spawn_many_local(options: &Options) -> Outcome {
    let rt = options.runtime();
    let gate = Gate::forever();
    let block = || {
        inside(&rt, async move {
            gate.arm(SPAWNS);
            let start = Instant::now();
            for _ in 0..SPAWNS {
                tokio::spawn(async move { gate.leave() });
            }
            gate.wait().await;
            Block::since(start, SPAWNS)
        })
    };
    Ok(vec![repeat(options, "spawn_many_local", block)])
}

pub fn spawn_join_each(options: &Options) -> Outcome {
    let rt = options.runtime();
    let block = || {
        inside(&rt, async {
            let start = Instant::now();
            for _ in 0..SPAWNS {
                tokio::spawn(async {}).await.expect("joined");
            }
            Block::since(start, SPAWNS)
        })
    };
    Ok(vec![repeat(options, "spawn_join_each", block)])
}

/// For a tool that counts instructions: the loop of `spawn_join_each`, once.
pub fn join_each(options: &Options, count: usize) -> Result<(), String> {
    let rt = options.runtime();
    inside(&rt, async move {
        for _ in 0..count {
            tokio::spawn(async {}).await.expect("joined");
        }
    });
    println!("{count} tasks spawned, run and joined");
    Ok(())
}

pub fn spawn_join_10k(options: &Options) -> Outcome {
    let rt = options.runtime();
    let block = || {
        inside(&rt, async {
            let mut handles = Vec::with_capacity(SPAWNS);
            let start = Instant::now();
            for _ in 0..SPAWNS {
                handles.push(tokio::spawn(async {}));
            }
            for handle in handles.drain(..) {
                handle.await.expect("joined");
            }
            Block::since(start, SPAWNS)
        })
    };
    Ok(vec![repeat(options, "spawn_join_10k", block)])
}

fn chain_link(gate: &'static Gate, links: usize) {
    tokio::spawn(async move {
        if links > 1 {
            chain_link(gate, links - 1);
        } else {
            gate.leave();
        }
    });
}

pub fn chained_spawn(options: &Options) -> Outcome {
    let rt = options.runtime();
    let gate = Gate::forever();
    let block = || {
        inside(&rt, async move {
            let start = Instant::now();
            for _ in 0..CHAINS {
                gate.arm(1);
                chain_link(gate, CHAIN_DEPTH);
                gate.wait().await;
            }
            Block::since(start, CHAINS * CHAIN_DEPTH)
        })
    };
    Ok(vec![repeat(options, "chained_spawn", block)])
}

pub fn yield_many(options: &Options) -> Outcome {
    let rt = options.runtime();
    let gate = Gate::forever();
    let block = || {
        inside(&rt, async move {
            gate.arm(YIELDERS);
            let start = Instant::now();
            for _ in 0..YIELDERS {
                tokio::spawn(async move {
                    for _ in 0..YIELDS {
                        tokio::task::yield_now().await;
                    }
                    gate.leave();
                });
            }
            gate.wait().await;
            Block::since(start, YIELDERS * YIELDS)
        })
    };
    Ok(vec![repeat(options, "yield_many", block)])
}

pub fn spawn_blocking(options: &Options) -> Outcome {
    let rt = options.runtime();
    let block = || {
        inside(&rt, async {
            let start = Instant::now();
            for _ in 0..BLOCKING_TRIPS {
                tokio::task::spawn_blocking(|| ()).await.expect("joined");
            }
            Block::since(start, BLOCKING_TRIPS)
        })
    };
    Ok(vec![repeat(options, "spawn_blocking", block)])
}
