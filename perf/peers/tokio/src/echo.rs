// SPDX-License-Identifier: MIT
//! The echo server: a task per connection, reads what there is and writes it back.

use crate::options::EchoOptions;
use crate::place;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

const BUFFER_BYTES: usize = 4096;

async fn echo(mut stream: TcpStream) {
    let mut buffer = [0u8; BUFFER_BYTES];
    loop {
        let got = match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return, // the client has gone, in peace or not
            Ok(got) => got,
        };
        if stream.write_all(&buffer[..got]).await.is_err() {
            return;
        }
    }
}

pub fn serve(options: &EchoOptions) -> Result<(), String> {
    if let Some(cpu) = options.cpu {
        place::bind_thread(&[cpu]);
    }
    let mut builder = Builder::new_multi_thread();
    let rt = builder.worker_threads(options.workers).enable_all().build();
    let rt = rt.map_err(|error| format!("runtime: {error}"))?;
    let port = options.port;
    let server = async move {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        println!("listening on {}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(echo(stream));
        }
    };
    // The accept loop is a task as well, so that a worker runs it and not this thread.
    let outcome: std::io::Result<()> =
        rt.block_on(async { rt.spawn(server).await.expect("the accept loop ended") });
    outcome.map_err(|error| format!("port {port}: {error}"))
}
