//! Those who behave: each says a word now and then and waits for the answer. How long that takes is
//! what the others' attack is judged by.

use std::error::Error;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::peer::{frame, open};

/// How long answers took.
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    fn part(&self, thousandths: usize) -> Duration {
        let at = (self.0.len() * thousandths / 1000).min(self.0.len().saturating_sub(1));
        self.0.get(at).copied().unwrap_or_default()
    }

    pub(crate) fn p99(&self) -> Duration {
        self.part(990)
    }

    /// How many times as long the 99th percentile is.
    pub(crate) fn times(&self, other: &Self) -> f64 {
        self.p99().as_secs_f64() / other.p99().as_secs_f64()
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |thousandths| self.part(thousandths).as_micros();
        let [half, nine, most, all] = [500, 900, 990, 1000].map(micros);
        write!(
            f,
            "p50 {half} us, p90 {nine} us, p99 {most} us, longest {all} us of {}",
            self.0.len()
        )
    }
}

/// Connections that speak in turn.
pub(crate) struct Crowd {
    poll: Poll,
    members: Vec<Member>,
}

/// Where nobody else comes from.
const PLACES: usize = 10_000_000;

struct Member {
    stream: TcpStream,
    /// When it spoke, while the answer is not there.
    spoke: Option<Instant>,
    heard: usize,
}

impl Crowd {
    pub(crate) fn open(address: SocketAddr, count: usize) -> Result<Self, Box<dyn Error>> {
        let poll = Poll::new()?;
        let mut members = Vec::with_capacity(count);
        for nth in 0..count {
            let stream = open(address, PLACES + nth)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry()
                .register(&mut stream, Token(nth), Interest::READABLE)?;
            members.push(Member {
                stream,
                spoke: None,
                heard: 0,
            });
        }
        Ok(Self { poll, members })
    }

    /// Each member speaks once in `interval`, until `over` says so; whoever waits for an answer yet
    /// keeps silent.
    fn talk(&mut self, interval: Duration, over: impl Fn() -> bool) -> io::Result<Latencies> {
        let pause = interval / u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        let (begin, mut said, mut next) = (Instant::now(), 0_u32, 0);
        let mut took = Vec::new();
        let mut events = Events::with_capacity(1024);
        let word = frame(0x81, b"12345678");
        while !over() {
            while begin + pause * said <= Instant::now() {
                said += 1;
                let count = self.members.len();
                if let Some(member) = self.members.get_mut(next % count) {
                    if member.spoke.is_none() {
                        member.spoke = Some(Instant::now());
                        let _ = member.stream.write(&word)?;
                    }
                }
                next += 1;
            }
            let left = (begin + pause * said).saturating_duration_since(Instant::now());
            self.poll.poll(&mut events, Some(left))?;
            for event in &events {
                if let Some(member) = self.members.get_mut(event.token().0) {
                    took.extend(member.hear()?);
                }
            }
        }
        // Those that were never answered count as long as they have waited.
        took.extend(
            self.members
                .iter()
                .filter_map(|member| Some(member.spoke?.elapsed())),
        );
        took.sort_unstable();
        Ok(Latencies(took))
    }

    /// For so long.
    pub(crate) fn talk_for(&mut self, time: Duration, interval: Duration) -> io::Result<Latencies> {
        let end = Instant::now() + time;
        self.talk(interval, || Instant::now() >= end)
    }

    /// In a thread of its own, until it is asked what it has measured.
    pub(crate) fn watch(mut self, interval: Duration) -> Watch {
        let over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let latencies = self.talk(interval, || end.load(Ordering::Relaxed));
            latencies.map(|latencies| (latencies, self))
        });
        Watch { over, thread }
    }
}

impl Member {
    /// How long the answer took, if it is there.
    fn hear(&mut self) -> io::Result<Option<Duration>> {
        let mut buffer = [0; 64];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.heard += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        // A server's frame of eight bytes.
        if self.heard < 10 {
            return Ok(None);
        }
        self.heard = 0;
        Ok(self.spoke.take().map(|spoke| spoke.elapsed()))
    }
}

/// A crowd that talks while something else happens.
pub(crate) struct Watch {
    over: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<(Latencies, Crowd)>>,
}

impl Watch {
    pub(crate) fn end(self) -> Result<(Latencies, Crowd), Box<dyn Error>> {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.thread.join().map_err(|_| "the crowd has panicked")?;
        Ok(ended?)
    }
}
