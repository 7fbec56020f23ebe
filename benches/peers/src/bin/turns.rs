//! A generator in lockstep: in each turn it sends on a number of connections, then waits for all
//! answers. wsload keeps every connection busy; this one shows what a server with many pays when
//! few of them are ready, and what a broadcast costs. Loopback only.
//!
//!     turns PORT PID [--conns N] [--ready R] [--rate MESSAGES_PER_SECOND] [--seconds S]
//!           [--size BYTES] [--payload binary|ascii|mixed|utf8-4] [--broadcast] [--raw] [--stop]
//!
//! Which connections are ready goes round a shuffled list. With `--broadcast` the messages of a
//! turn come from one connection and are expected on all. `--raw` is for an echo server without
//! WebSocket. The last line of output is JSON: `cpu_us` is the server's time per delivered message,
//! `per_sleep` how many messages it had for each time that it went to sleep. For a server to find the whole turn ready,
//! pin both programs to one processor and run both under `chrt -b 0`, so that nothing preempts the sender; or pin them to
//! two and stop the server while messages are sent (`--stop`, which counts as one more sleep in each turn).
#![allow(clippy::disallowed_methods, reason = "a program that measures time")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

fn main() {
    let options = Options::from_arguments();
    let mut load = Load::connect(options);
    let warm = load.run_for(load.options.warmup);
    let (before, start) = (Usage::of(load.options.pid), Instant::now());
    let delivered = load.run_for(load.options.seconds);
    let (after, spent) = (Usage::of(load.options.pid), start.elapsed());
    let messages = delivered as f64;
    let cpu_us = (after.cpu_ns - before.cpu_ns) as f64 / 1000.0 / messages;
    println!(
        "{{\"conns\":{},\"ready\":{},\"total_msgs\":{},\"cpu_us\":{cpu_us:.4},\"per_sleep\":{:.2},\"msgs_per_s\":{:.0}}}",
        load.options.conns,
        load.options.ready,
        delivered + warm,
        messages / (after.sleeps - before.sleeps).max(1) as f64,
        messages / spent.as_secs_f64(),
    );
}

struct Options {
    port: u16,
    pid: u32,
    conns: usize,
    ready: usize,
    rate: f64,
    seconds: f64,
    warmup: f64,
    size: usize,
    payload: String,
    broadcast: bool,
    raw: bool,
    stop: bool,
}

impl Options {
    fn from_arguments() -> Self {
        let mut words = std::env::args().skip(1);
        let mut word = || words.next().expect("another argument");
        let mut options = Self {
            port: word().parse().expect("PORT"),
            pid: word().parse().expect("PID"),
            conns: 100,
            ready: 100,
            rate: 0.0,
            seconds: 2.0,
            warmup: 0.5,
            size: 20,
            payload: "binary".into(),
            broadcast: false,
            raw: false,
            stop: false,
        };
        while let Some(name) = words.next() {
            let mut value = || words.next().expect("a value");
            match name.as_str() {
                "--conns" => options.conns = value().parse().expect("a number"),
                "--ready" => options.ready = value().parse().expect("a number"),
                "--rate" => options.rate = value().parse().expect("a number"),
                "--seconds" => options.seconds = value().parse().expect("a number"),
                "--warmup" => options.warmup = value().parse().expect("a number"),
                "--size" => options.size = value().parse().expect("a number"),
                "--payload" => options.payload = value(),
                "--broadcast" => options.broadcast = true,
                "--raw" => options.raw = true,
                "--stop" => options.stop = true,
                other => panic!("{other}: see the top of this program"),
            }
        }
        options.ready = options.ready.min(options.conns);
        options
    }

    fn payload(&self) -> Vec<u8> {
        let text: &str = match self.payload.as_str() {
            "binary" => return (0..self.size).map(|n| (n * 151 + 7) as u8).collect(),
            "ascii" => "The quick brown fox. ",
            "mixed" => "aZ éß ж中語€😀",
            "utf8-4" => "😀🎈🦀🌍",
            other => panic!("{other}: binary, ascii, mixed or utf8-4"),
        };
        let mut payload = String::new();
        for c in text.chars().cycle() {
            if payload.len() + c.len_utf8() > self.size {
                break;
            }
            payload.push(c);
        }
        while payload.len() < self.size {
            payload.push('.');
        }
        payload.into_bytes()
    }
}

/// What the server has used so far.
struct Usage {
    cpu_ns: u64,
    sleeps: u64,
}

impl Usage {
    fn of(pid: u32) -> Self {
        let mut usage = Self {
            cpu_ns: 0,
            sleeps: 0,
        };
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a running server");
        for task in tasks.flatten() {
            let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let first = read("schedstat");
            let first = first.split(' ').next().and_then(|ns| ns.parse().ok());
            usage.cpu_ns += first.unwrap_or(0);
            for line in read("status").lines() {
                if let Some(count) = line.strip_prefix("voluntary_ctxt_switches:") {
                    usage.sleeps += count.trim().parse().unwrap_or(0);
                }
            }
        }
        usage
    }
}

struct Load {
    options: Options,
    poll: Poll,
    events: Events,
    streams: Vec<TcpStream>,
    /// How far into the expected answer each connection is.
    at: Vec<usize>,
    order: Vec<usize>,
    next: usize,
    frame: Vec<u8>,
    answer: Vec<u8>,
    buffer: Vec<u8>,
}

impl Load {
    fn connect(options: Options) -> Self {
        let payload = options.payload();
        let opcode = if options.payload == "binary" {
            0x82
        } else {
            0x81
        };
        let frame = self::frame(opcode, &payload, Some([0x12, 0x9a, 0x5b, 0xe7]));
        let answer = match options.raw {
            true => frame.clone(),
            false => self::frame(opcode, &payload, None),
        };
        let mut load = Self {
            poll: Poll::new().expect("a poll loop"),
            events: Events::with_capacity(1024),
            streams: Vec::new(),
            at: vec![0; options.conns],
            order: shuffled(options.conns),
            next: 0,
            frame,
            answer,
            buffer: vec![0; 256 * 1024],
            options,
        };
        while load.streams.len() < load.options.conns {
            load.connect_some();
        }
        load
    }

    /// A number of connections at once, so that the server is not woken for each.
    fn connect_some(&mut self) {
        let known = self.streams.len();
        let wanted = self.options.conns.min(known + 64);
        let mut opened: Vec<_> = (known..wanted).map(|n| open(n, &self.options)).collect();
        for stream in &mut opened {
            read_response(stream, self.options.raw);
        }
        for stream in opened {
            stream.set_nonblocking(true).expect("a socket");
            let mut stream = TcpStream::from_std(stream);
            let (registry, token) = (self.poll.registry(), Token(self.streams.len()));
            let registered = registry.register(&mut stream, token, Interest::READABLE);
            registered.expect("room");
            self.streams.push(stream);
        }
    }

    /// Turns until the time is over. Gives how many messages came.
    fn run_for(&mut self, seconds: f64) -> usize {
        let start = Instant::now();
        let (mut delivered, mut turns) = (0, 0);
        while start.elapsed().as_secs_f64() < seconds {
            let sent = self.send_all();
            let expected = match self.options.broadcast {
                true => sent * self.options.conns,
                false => sent,
            };
            self.receive(expected);
            delivered += expected;
            turns += 1;
            if self.options.rate > 0.0 {
                let due = (turns * self.options.ready) as f64 / self.options.rate;
                let left = Duration::from_secs_f64(due).saturating_sub(start.elapsed());
                std::thread::sleep(left);
            }
        }
        delivered
    }

    fn send_all(&mut self) -> usize {
        if !self.options.stop {
            return self.send();
        }
        let server = Pid::from_raw(self.options.pid as i32).expect("a server");
        kill_process(server, Signal::STOP).expect("a server of ours");
        while !is_stopped(self.options.pid) {
            std::hint::spin_loop();
        }
        let sent = self.send();
        kill_process(server, Signal::CONT).expect("a server of ours");
        sent
    }

    fn send(&mut self) -> usize {
        if self.options.broadcast {
            let frames = self.frame.repeat(self.options.ready);
            self.streams[0].write_all(&frames).expect("room");
            return self.options.ready;
        }
        for _ in 0..self.options.ready {
            let n = self.order[self.next];
            self.next = (self.next + 1) % self.order.len();
            let sent = self.streams[n].write(&self.frame).expect("room");
            assert_eq!(sent, self.frame.len(), "the socket takes one message");
        }
        self.options.ready
    }

    fn receive(&mut self, expected: usize) {
        let mut left = expected;
        let deadline = Instant::now() + Duration::from_secs(20);
        while left > 0 {
            let polled = self
                .poll
                .poll(&mut self.events, Some(Duration::from_secs(1)));
            polled.expect("events");
            assert!(Instant::now() < deadline, "{left} answers are missing");
            for event in &self.events {
                let n = event.token().0;
                left -= read(
                    &mut self.streams[n],
                    &mut self.at[n],
                    &self.answer,
                    &mut self.buffer,
                );
            }
        }
    }
}

fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running server");
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.trim_start().starts_with('T')
}

/// Reads what there is, checks it, and gives how many answers it completed.
fn read(stream: &mut TcpStream, at: &mut usize, answer: &[u8], buffer: &mut [u8]) -> usize {
    let mut whole = 0;
    loop {
        let got = match stream.read(buffer) {
            Ok(0) => panic!("the server has closed"),
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return whole,
            Err(error) => panic!("{error}"),
        };
        let mut rest = &buffer[..got];
        while !rest.is_empty() {
            let n = rest.len().min(answer.len() - *at);
            assert!(rest[..n] == answer[*at..*at + n], "not what was sent");
            *at += n;
            rest = &rest[n..];
            if *at == answer.len() {
                *at = 0;
                whole += 1;
            }
        }
        if got < buffer.len() {
            return whole;
        }
    }
}

/// A connection on which the upgrade is asked for, from one of 16 addresses so that there are
/// ports enough.
fn open(n: usize, options: &Options) -> std::net::TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
    let source = Ipv4Addr::new(127, 0, 0, 2 + (n % 16) as u8);
    let source = SocketAddr::from((source, 0));
    socket.bind(&source.into()).expect("a port");
    socket.set_tcp_nodelay(true).expect("a TCP socket");
    // A reset leaves no ports waiting behind.
    let at_once = Some(Duration::ZERO);
    socket.set_linger(at_once).expect("a TCP socket");
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
    socket.connect(&server.into()).expect("a server");
    let mut stream = std::net::TcpStream::from(socket);
    stream.write_all(REQUEST.as_bytes()).expect("room");
    stream
}

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// An echo server without WebSocket sends the request back: then it has accepted, too.
fn read_response(stream: &mut std::net::TcpStream, raw: bool) {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.ends_with(b"\r\n\r\n") {
        let got = stream.read(&mut buffer).expect("a response");
        assert!(got > 0, "the server has closed");
        head.extend_from_slice(&buffer[..got]);
    }
    assert!(
        raw || head.starts_with(b"HTTP/1.1 101"),
        "the upgrade was refused"
    );
}

fn frame(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![opcode];
    match payload.len() {
        short @ 0..=125 => frame.push(bit | short as u8),
        long => {
            frame.push(bit | 126);
            let long = u16::try_from(long).expect("at most 65 535 bytes");
            frame.extend(long.to_be_bytes());
        }
    }
    frame.extend(mask.iter().flatten());
    let mask = mask.unwrap_or_default();
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
    frame
}

/// Neighbours in the list are not neighbours in the server's memory.
fn shuffled(len: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for n in (1..len).rev() {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        order.swap(n, (seed % (n as u64 + 1)) as usize);
    }
    order
}
