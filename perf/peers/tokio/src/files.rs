// SPDX-License-Identifier: MIT
//! Random 4 KiB reads of a file that is in the page cache.

use crate::measure::{inside, repeat, Block, Series};
use crate::options::Options;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};

type Outcome = Result<Vec<Series>, String>;

const BLOCK_BYTES: usize = 4096;
const BLOCKS: u64 = 16_384;
const READERS: usize = 64;
const READS_EACH: usize = 64;
const READS_ALONE: usize = 512;

/// A file whose block i begins with i; it goes away with the value.
struct Numbered {
    path: PathBuf,
}

impl Numbered {
    fn create(options: &Options) -> Result<Numbered, String> {
        let name = format!("tokio-peer-{}.dat", std::process::id());
        let path = PathBuf::from(&options.dir).join(name);
        let write = || -> std::io::Result<()> {
            let mut out = std::io::BufWriter::new(std::fs::File::create(&path)?);
            let mut block = vec![0x5a_u8; BLOCK_BYTES];
            for number in 0..BLOCKS {
                block[..8].copy_from_slice(&number.to_le_bytes());
                out.write_all(&block)?;
            }
            out.flush()
        };
        write().map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Numbered { path })
    }
}

impl Drop for Numbered {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // a temporary file that is gone already is fine
    }
}

/// xorshift64: cheap, and the same blocks in every run.
struct Random(u64);

impl Random {
    fn block(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % BLOCKS
    }
}

fn check(number: u64, block: &[u8]) {
    assert_eq!(block[..8], number.to_le_bytes(), "block {number} holds another's bytes");
}

async fn read_some(mut file: tokio::fs::File, seed: u64, reads: usize) -> tokio::fs::File {
    let mut random = Random(seed);
    let mut block = vec![0u8; BLOCK_BYTES];
    for _ in 0..reads {
        let number = random.block();
        let offset = number * BLOCK_BYTES as u64;
        file.seek(SeekFrom::Start(offset)).await.expect("seek");
        file.read_exact(&mut block).await.expect("read");
        check(number, &block);
    }
    file
}

async fn read_some_at(file: Arc<std::fs::File>, seed: u64, reads: usize) {
    let mut random = Random(seed);
    let mut block = vec![0u8; BLOCK_BYTES];
    for _ in 0..reads {
        let number = random.block();
        let file = file.clone();
        let job = move || {
            let offset = number * BLOCK_BYTES as u64;
            file.read_exact_at(&mut block, offset).expect("read");
            block
        };
        block = tokio::task::spawn_blocking(job).await.expect("joined");
        check(number, &block);
    }
}

fn read_through_fs(options: &Options, name: &'static str, readers: usize, reads: usize) -> Outcome {
    let numbered = Numbered::create(options)?;
    let rt = options.runtime();
    let open = |_| rt.block_on(tokio::fs::File::open(&numbered.path));
    let files: std::io::Result<Vec<_>> = (0..readers).map(open).collect();
    let mut files = files.map_err(|error| format!("open: {error}"))?;
    let mut seed = 1u64;
    let series = repeat(options, name, || {
        let opened = std::mem::take(&mut files);
        seed += readers as u64;
        let (block, opened) = inside(&rt, async move {
            let start = Instant::now();
            let read = |(i, file)| tokio::spawn(read_some(file, seed + i as u64, reads));
            let handles: Vec<_> = opened.into_iter().enumerate().map(read).collect();
            let mut opened = Vec::with_capacity(readers);
            for handle in handles {
                opened.push(handle.await.expect("joined"));
            }
            (Block::since(start, readers * reads), opened)
        });
        files = opened;
        block
    });
    Ok(vec![series])
}

pub fn read_cached(options: &Options) -> Outcome {
    read_through_fs(options, "file_read_cached", READERS, READS_EACH)
}

pub fn read_cached_one(options: &Options) -> Outcome {
    read_through_fs(options, "file_read_cached_qd1", 1, READS_ALONE)
}

pub fn read_cached_at(options: &Options) -> Outcome {
    let numbered = Numbered::create(options)?;
    let rt = options.runtime();
    let file = std::fs::File::open(&numbered.path).map_err(|error| format!("open: {error}"))?;
    let file = Arc::new(file);
    let mut seed = 1u64;
    let series = repeat(options, "file_read_cached_at", || {
        let file = file.clone();
        seed += READERS as u64;
        inside(&rt, async move {
            let start = Instant::now();
            let read = |i| tokio::spawn(read_some_at(file.clone(), seed + i as u64, READS_EACH));
            let handles: Vec<_> = (0..READERS).map(read).collect();
            for handle in handles {
                handle.await.expect("joined");
            }
            Block::since(start, READERS * READS_EACH)
        })
    });
    Ok(vec![series])
}
