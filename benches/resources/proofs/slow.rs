//! Who sends or takes next to nothing.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::{Scene, WELL_EVERY, fared, held, spent};
use crate::Outcome;
use crate::crowd::{Latencies, Watch};
use crate::peer::{connect_all, frame, open};
use crate::server::{Figures, MORE, Server};

/// A byte of a head every nine seconds, from so many at once.
pub(crate) fn heads(count: usize, settings: &[&str]) -> Outcome {
    let Scene {
        mut server,
        crowd,
        quiet,
        idle,
    } = Scene::set(settings)?;
    let watch = crowd.watch(WELL_EVERY);
    let begin = Instant::now();
    let mut slow = connect_all(server.address, count)?;
    for stream in &mut slow {
        stream.write_all(b"G")?;
    }
    let all = server.until(|now| now.connections >= idle.connections + count)?;
    println!(
        "{count} connections after {:.2} s",
        begin.elapsed().as_secs_f64()
    );
    held("half a head", count, &idle, &all);
    std::thread::sleep(Duration::from_secs(9).saturating_sub(begin.elapsed()));
    for stream in &mut slow {
        stream.write_all(b"E")?;
    }
    let first = server.until(|now| now.ended > idle.ended)?;
    println!(
        "the first {} ended at {:.2} s",
        first.ended - idle.ended,
        begin.elapsed().as_secs_f64()
    );
    let last = server.until(|now| now.ended >= idle.ended + count)?;
    println!("the last ended at {:.2} s", begin.elapsed().as_secs_f64());
    spent("all of it", &idle, &last, begin);
    let mut told = 0;
    for stream in &mut slow {
        let mut answer = [0; 13];
        told += usize::from(stream.read_exact(&mut answer).is_ok() && answer == *b"HTTP/1.1 408 ");
    }
    println!("{told} were answered 408");
    drop(slow);
    afterwards(&mut server, watch, &idle, &quiet)
}

/// Who asks for more and more and reads nothing.
pub(crate) fn readers(count: usize, settings: &[&str]) -> Outcome {
    let Scene {
        mut server,
        crowd,
        quiet,
        idle,
    } = Scene::set(settings)?;
    let watch = crowd.watch(WELL_EVERY);
    let begin = Instant::now();
    let more = frame(0x81, MORE);
    let mut deaf = Vec::with_capacity(count);
    for nth in 0..count {
        let mut stream = open(server.address, nth)?;
        stream.set_nonblocking(true)?;
        stream.write_all(&more)?;
        deaf.push(stream);
    }
    let opened = begin.elapsed();
    let mut most = server.figures()?;
    while server.figures()?.ended < idle.ended + count {
        std::thread::sleep(Duration::from_millis(500));
        for stream in &mut deaf {
            // It may have been ended.
            let _ = stream.write(&more);
        }
        let now = server.figures()?;
        if now.memory > most.memory {
            most = now;
        }
    }
    let (last, ended) = (server.figures()?, begin.elapsed());
    println!(
        "{count} who never read, the last ended {:.2} s after it had come",
        (ended - opened).as_secs_f64()
    );
    held("a full queue", count, &idle, &most);
    spent("all of it", &idle, &last, begin);
    drop(deaf);
    afterwards(&mut server, watch, &idle, &quiet)
}

/// What is left when the attackers have gone, and how the others fared.
fn afterwards(server: &mut Server, watch: Watch, idle: &Figures, quiet: &Latencies) -> Outcome {
    let (during, _crowd) = watch.end()?;
    let after = server.until(|now| now.connections == idle.connections)?;
    println!(
        "afterwards {} bytes by the library's account, before {}",
        after.memory, idle.memory
    );
    fared(quiet, &during);
    Ok(())
}
