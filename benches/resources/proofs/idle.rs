//! As many idle connections as the descriptors allow.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::held;
use crate::Outcome;
use crate::peer::open;
use crate::server::Server;

/// What a process has open besides.
const OTHERS: usize = 10;

/// Fills the server's descriptors, from as many processes as that takes.
pub(crate) fn idle(count: Option<usize>, settings: &[&str]) -> Outcome {
    // Whoever holds them answers no pings.
    let mut server = Server::start(&[settings, &["silence=ever"]].concat())?;
    // The first one has tables made that all the others use.
    let _first = open(server.address, 0)?;
    let idle = server.figures()?;
    let limit = usize::try_from(rlimit::Resource::NOFILE.get()?.0)?;
    let count = count.unwrap_or(limit - idle.descriptors);
    let begin = Instant::now();
    let each = limit - OTHERS;
    let mut holders = Vec::new();
    let mut left = count;
    while left > 0 {
        let many = left.min(each);
        holders.push(Holder::start(server.address, many, holders.len())?);
        left -= many;
    }
    for holder in &mut holders {
        holder.ready()?;
    }
    let all = server.until(|now| now.connections == idle.connections + count)?;
    println!(
        "{count} idle connections of {limit} descriptors, {} of which are open, after {:.1} s",
        all.descriptors,
        begin.elapsed().as_secs_f64()
    );
    held("an idle connection", count, &idle, &all);
    let full = server.figures()?;
    let begin = Instant::now();
    std::thread::sleep(std::time::Duration::from_secs(10));
    super::spent("idle", &full, &server.figures()?, begin);
    drop(holders);
    let after = server.until(|now| now.connections == idle.connections)?;
    println!(
        "afterwards {} KiB resident, before {}",
        after.resident / 1024,
        idle.resident / 1024
    );
    Ok(())
}

/// A process that holds connections.
struct Holder(Child);

impl Holder {
    fn start(address: SocketAddr, count: usize, nth: usize) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        // The places before it are those of the holders before it.
        let place = ((nth + 1) * 100_000).to_string();
        command.args(["hold", &address.to_string(), &count.to_string(), &place]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self(command.spawn()?))
    }

    fn ready(&mut self) -> Outcome {
        let said = self.0.stdout.take().ok_or("no output")?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        if line.trim() == "ready" {
            Ok(())
        } else {
            Err("who holds the connections has ended".into())
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process of a [`Holder`].
pub(crate) fn hold(address: SocketAddr, count: usize, place: usize) -> Outcome {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let mut streams = Vec::with_capacity(count);
    for nth in 0..count {
        streams.push(open(address, place + nth)?);
    }
    println!("ready");
    std::io::stdout().flush()?;
    // Until whoever started it goes or ends it.
    for _ in std::io::stdin().lines() {}
    Ok(())
}
