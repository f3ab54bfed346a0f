// SPDX-License-Identifier: MIT
//! Scenarios about locks.

use crate::measure::{inside, repeat, Block, Series};
use crate::options::Options;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Mutex, Semaphore};

const PAIRS: usize = 100_000;
const TASKS: usize = 8;
const TURNS: usize = 1_000;

type Outcome = Result<Vec<Series>, String>;

pub fn mutex_uncontended(options: &Options) -> Outcome {
    let rt = options.runtime();
    let block = || {
        inside(&rt, async {
            let mutex = Mutex::new(0);
            let start = Instant::now();
            for _ in 0..PAIRS {
                *mutex.lock().await += 1;
            }
            let block = Block::since(start, PAIRS);
            assert_eq!(mutex.into_inner(), PAIRS);
            block
        })
    };
    Ok(vec![repeat(options, "mutex_uncontended", block)])
}

pub fn semaphore_uncontended(options: &Options) -> Outcome {
    let rt = options.runtime();
    let block = || {
        inside(&rt, async {
            let semaphore = Semaphore::new(1);
            let mut count = 0;
            let start = Instant::now();
            for _ in 0..PAIRS {
                let _permit = semaphore.acquire().await.expect("open");
                count += 1;
            }
            let block = Block::since(start, PAIRS);
            assert_eq!(count, PAIRS);
            block
        })
    };
    Ok(vec![repeat(options, "semaphore_uncontended", block)])
}

async fn take_turns(mutex: Arc<Mutex<usize>>) {
    for _ in 0..TURNS {
        let mut count = mutex.lock().await;
        let seen = *count;
        tokio::task::yield_now().await;
        *count = seen + 1;
    }
}

pub fn mutex_contended(options: &Options) -> Outcome {
    let rt = options.runtime();
    let block = || {
        inside(&rt, async {
            let mutex = Arc::new(Mutex::new(0));
            let start = Instant::now();
            let tasks: Vec<_> =
                (0..TASKS).map(|_| tokio::spawn(take_turns(mutex.clone()))).collect();
            for task in tasks {
                task.await.expect("joined");
            }
            let block = Block::since(start, TASKS * TURNS);
            assert_eq!(*mutex.lock().await, TASKS * TURNS);
            block
        })
    };
    Ok(vec![repeat(options, "mutex_contended", block)])
}
