//! One peer sends as much as it can beside others.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Scene, WELL_EVERY, fared, spent};
use crate::Outcome;
use crate::peer::{frame, open};

/// So many pings a second for ten seconds, by somebody who reads the pongs.
pub(crate) fn pings(rate: usize, settings: &[&str]) -> Outcome {
    let Scene {
        mut server,
        crowd,
        quiet,
        idle,
    } = Scene::set(settings)?;
    let mut stream = open(server.address, 0)?;
    let reader = drain(&stream)?;
    let watch = crowd.watch(WELL_EVERY);
    // A hundredth of a second's.
    let batch = frame(0x89, b"????????").repeat(rate / 100);
    let (begin, mut batches) = (Instant::now(), 0_u32);
    while begin.elapsed() < Duration::from_secs(10) {
        stream.write_all(&batch)?;
        batches += 1;
        let next = begin + Duration::from_millis(10) * batches;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let now = server.figures()?;
    let (during, _crowd) = watch.end()?;
    let sent = rate / 100 * batches as usize;
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{sent} pings in {seconds:.2} s: {:.0} a second",
        sent as f64 / seconds
    );
    spent("all of it", &idle, &now, begin);
    println!("live: {} bytes before, {} now", idle.live, now.live);
    stream.shutdown(std::net::Shutdown::Write)?;
    let pongs = reader.join().map_err(|_| "the reader has panicked")? / 10;
    println!("{pongs} pongs");
    fared(&quiet, &during);
    Ok(())
}

/// Reads to the end and drops it; how many bytes came.
fn drain(stream: &TcpStream) -> Result<JoinHandle<usize>, Box<dyn Error>> {
    let mut stream = stream.try_clone()?;
    stream.set_read_timeout(None)?;
    Ok(std::thread::spawn(move || {
        let mut buffer = vec![0; 256 * 1024];
        let mut came = 0;
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            came += n;
        }
        came
    }))
}

/// What the flood is made of.
const KINDS: [&str; 4] = ["large", "small", "pings", "requests"];

/// Beside so many that speak once a second: the same in peace, with a flood, and in peace again.
pub(crate) fn beside(count: usize, settings: &[&str]) -> Outcome {
    let every = Duration::from_secs(1);
    for kind in KINDS {
        let Scene {
            mut server,
            mut crowd,
            quiet,
            ..
        } = Scene::with(settings, count, every)?;
        let mut flooder = Flooder::start(server.address, kind)?;
        // It connects first.
        let before = server.until(|now| now.connections > count)?;
        let begin = Instant::now();
        let during = crowd.talk_for(Duration::from_secs(8), every)?;
        let now = server.figures()?;
        println!("{kind}, beside {count}:");
        let messages = (now.messages - before.messages) as f64 / begin.elapsed().as_secs_f64();
        println!("{messages:.0} messages a second, those of the others included");
        spent("all of it", &before, &now, begin);
        flooder.end()?;
        let after = crowd.talk_for(Duration::from_secs(3), every)?;
        fared(&quiet, &during);
        println!("and in peace again: {after}");
    }
    Ok(())
}

/// In a process and a session of its own, and a polite one: what is measured is the server, and not how
/// a machine with few processors is shared with it.
struct Flooder(Child);

impl Flooder {
    fn start(address: SocketAddr, kind: &str) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new("setsid");
        command.args(["nice", "-n", "19"]);
        command.arg(std::env::current_exe()?);
        command.args(["flooder", &address.to_string(), kind]);
        Ok(Self(command.spawn()?))
    }

    fn end(&mut self) -> Outcome {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

/// The flooder's process.
pub(crate) fn flooder(address: SocketAddr, kind: &str) -> Outcome {
    let unit = match kind {
        "large" => frame(0x82, &[1; 60_000]),
        "small" => frame(0x82, b"x"),
        "pings" => frame(0x89, b"????????"),
        "requests" => b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        other => return Err(format!("{other} is no flood").into()),
    };
    let mut stream = match kind {
        "requests" => crate::peer::connect(address, 0)?,
        _ => open(address, 0)?,
    };
    let _reader = drain(&stream)?;
    let wave = unit.repeat((256 * 1024 / unit.len()).max(1));
    loop {
        stream.write_all(&wave)?;
    }
}
