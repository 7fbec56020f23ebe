//! Connections that come and go.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::peer::{connect, frame, reset, upgrade};
use crate::server::Server;

/// So many, one after the other on each of two threads; the server's figures after each tenth.
pub(crate) fn churn(count: usize, settings: &[&str]) -> Outcome {
    let mut server = Server::start(settings)?;
    let address = server.address;
    let (begun, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let begin = Instant::now();
    let threads: Vec<JoinHandle<()>> = (0..2)
        .map(|_| {
            let (begun, failed) = (Arc::clone(&begun), Arc::clone(&failed));
            std::thread::spawn(move || {
                loop {
                    let nth = begun.fetch_add(1, Ordering::Relaxed);
                    if nth >= count {
                        return;
                    }
                    if come_and_go(address, nth).is_err() {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    println!("connections, resident KiB, live KiB, descriptors, open, processor s");
    for tenth in 1..=10 {
        while begun.load(Ordering::Relaxed) < count / 10 * tenth {
            std::thread::sleep(Duration::from_millis(5));
        }
        print(&mut server, count / 10 * tenth)?;
    }
    for thread in threads {
        thread.join().map_err(|_| "a thread has panicked")?;
    }
    let last = server.until(|now| now.connections == 0)?;
    print(&mut server, count)?;
    println!(
        "{:.0} s, {} established, {} ended, {} failed here",
        begin.elapsed().as_secs_f64(),
        last.established,
        last.ended,
        failed.load(Ordering::Relaxed)
    );
    Ok(())
}

fn print(server: &mut Server, done: usize) -> Outcome {
    let now = server.figures()?;
    println!(
        "{done}, {}, {}, {}, {}, {:.2}",
        now.resident / 1024,
        now.live / 1024,
        now.descriptors,
        now.connections,
        now.processor.as_secs_f64(),
    );
    Ok(())
}

/// In one of four ways.
fn come_and_go(address: SocketAddr, nth: usize) -> Result<(), Box<dyn Error>> {
    let mut stream = connect(address, nth)?;
    let mut rest = Vec::new();
    match nth % 4 {
        0 => {
            upgrade(&mut stream)?;
            let word = frame(0x81, b"hello");
            stream.write_all(&[word, frame(0x88, &[3, 232])].concat())?;
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_end(&mut rest)?;
        }
        1 => {
            upgrade(&mut stream)?;
            stream.write_all(&frame(0x01, b"half a message"))?;
            reset(stream)?;
        }
        2 => {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: local")?;
            reset(stream)?;
        }
        _ => {
            stream
                .write_all(b"GET /page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            stream.read_to_end(&mut rest)?;
        }
    }
    Ok(())
}
