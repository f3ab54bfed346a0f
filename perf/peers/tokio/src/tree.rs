// SPDX-License-Identifier: MIT
//! Scenarios that unfold a tree of joined tasks.

use crate::measure::{inside, single, Block, Series};
use crate::options::Options;
use std::time::Instant;
use tokio::task::JoinHandle;

type Outcome = Result<Vec<Series>, String>;

const BRANCHES: u64 = 10;

fn spawn_fib(n: u64) -> JoinHandle<u64> {
    tokio::spawn(async move {
        if n < 2 {
            return n;
        }
        let left = spawn_fib(n - 1);
        let right = spawn_fib(n - 2);
        left.await.expect("joined") + right.await.expect("joined")
    })
}

/// Returns (fib(n), calls made to compute it).
fn fib_by_loop(n: u64) -> (u64, u64) {
    let (mut value, mut next) = (0u64, 1u64);
    for _ in 0..n {
        let sum = value + next;
        value = next;
        next = sum;
    }
    (value, 2 * next - 1)
}

pub fn fib(options: &Options) -> Outcome {
    let n = if options.quick { 20 } else { 27 };
    let (want, calls) = fib_by_loop(n);
    let rt = options.runtime();
    let block = || {
        let (got, block) = inside(&rt, async move {
            let start = Instant::now();
            let got = spawn_fib(n).await.expect("joined");
            (got, Block::since(start, calls as usize))
        });
        assert_eq!(got, want, "fib({n})");
        block
    };
    Ok(vec![single(options, "fib27", block)])
}

/// The subtree of the leaves first .. first + leaves.
fn spawn_skynet(first: u64, leaves: u64) -> JoinHandle<u64> {
    tokio::spawn(async move {
        if leaves == 1 {
            return first;
        }
        let step = leaves / BRANCHES;
        let mut children = Vec::with_capacity(BRANCHES as usize);
        for branch in 0..BRANCHES {
            children.push(spawn_skynet(first + branch * step, step));
        }
        let mut sum = 0;
        for child in children {
            sum += child.await.expect("joined");
        }
        sum
    })
}

pub fn skynet(options: &Options) -> Outcome {
    let leaves: u64 = if options.quick { 10_000 } else { 1_000_000 };
    let tasks = (leaves * BRANCHES - 1) / (BRANCHES - 1);
    let rt = options.runtime();
    let block = || {
        let (got, block) = inside(&rt, async move {
            let start = Instant::now();
            let got = spawn_skynet(0, leaves).await.expect("joined");
            (got, Block::since(start, tasks as usize))
        });
        assert_eq!(got, leaves * (leaves - 1) / 2, "sum of the leaves");
        block
    };
    Ok(vec![single(options, "skynet", block)])
}
