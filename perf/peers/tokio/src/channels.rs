// SPDX-License-Identifier: MIT
//! Scenarios of messages between tasks.

use crate::measure::{inside, repeat, Block, Series};
use crate::options::Options;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

const MESSAGES: u64 = 100_000;
const CAPACITY: usize = 1_000;
const ONESHOTS: u64 = 10_000;
const REPLIES: u64 = 10_000;
const REPLY_CAPACITY: usize = 16;

type Outcome = Result<Vec<Series>, String>;

fn mpsc(options: &Options, name: &'static str, producers: u64) -> Outcome {
    let rt = options.runtime();
    let each = MESSAGES / producers;
    let block = || {
        inside(&rt, async move {
            let (sender, mut receiver) = mpsc::channel::<u64>(CAPACITY);
            let start = Instant::now();
            let mut handles = Vec::new();
            for _ in 0..producers {
                let sender = sender.clone();
                handles.push(tokio::spawn(async move {
                    for i in 1..=each {
                        sender.send(i).await.expect("sent");
                    }
                }));
            }
            let mut sum = 0;
            for _ in 0..each * producers {
                sum += receiver.recv().await.expect("received");
            }
            let block = Block::since(start, (each * producers) as usize);
            for handle in handles {
                handle.await.expect("joined");
            }
            assert_eq!(sum, producers * (each * (each + 1) / 2));
            block
        })
    };
    Ok(vec![repeat(options, name, block)])
}

pub fn mpsc_1p(options: &Options) -> Outcome {
    mpsc(options, "mpsc_1p", 1)
}

pub fn mpsc_4p(options: &Options) -> Outcome {
    mpsc(options, "mpsc_4p", 4)
}

pub fn oneshot(options: &Options) -> Outcome {
    let rt = options.runtime();
    let block = || {
        inside(&rt, async {
            let mut sum = 0;
            let start = Instant::now();
            for i in 0..ONESHOTS {
                let (sender, receiver) = oneshot::channel::<u64>();
                sender.send(i).expect("sent");
                sum += receiver.await.expect("received");
            }
            let block = Block::since(start, ONESHOTS as usize);
            assert_eq!(sum, ONESHOTS * (ONESHOTS - 1) / 2);
            block
        })
    };
    Ok(vec![repeat(options, "oneshot", block)])
}

pub fn request_reply(options: &Options) -> Outcome {
    let rt = options.runtime();
    let block = || {
        inside(&rt, async {
            let (request, mut requests) = mpsc::channel::<u64>(REPLY_CAPACITY);
            let (reply, mut replies) = mpsc::channel::<u64>(REPLY_CAPACITY);
            let handle = tokio::spawn(async move {
                for _ in 0..REPLIES {
                    let message = requests.recv().await.expect("received");
                    reply.send(message + 1).await.expect("sent");
                }
            });
            let mut message = 0;
            let start = Instant::now();
            for _ in 0..REPLIES {
                request.send(message).await.expect("sent");
                message = replies.recv().await.expect("received");
            }
            let block = Block::since(start, REPLIES as usize);
            handle.await.expect("joined");
            assert_eq!(message, REPLIES);
            block
        })
    };
    Ok(vec![repeat(options, "request_reply", block)])
}
