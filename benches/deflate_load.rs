//! Load for servers that echo with permessage-deflate: `benches/deflate/compare.py` runs it.
//!
//!     cargo bench --bench deflate_load -- echo URL PID CONNECTIONS BYTES SECONDS none|shared|takeover
//!     cargo bench --bench deflate_load -- idle URL PID CONNECTIONS none|shared|takeover
//!
//!     cargo bench --bench deflate_load -- texts BYTES
//!
//! `echo` keeps one message in flight on every connection and prints the server's CPU time per
//! message in microseconds (user and system, all threads, from `/proc/PID/stat`) and how many
//! messages there were.
//! `idle` exchanges one message on every connection and prints the server's resident memory before
//! and after in KiB. `texts` prints what is sent. Nothing without such words, so that it may be run with all benches.
#![allow(clippy::print_stdout, reason = "figures are what it is for")]
#![allow(
    clippy::disallowed_methods,
    reason = "a load lasts as long as it is told to"
)]

mod readings;

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use readings::{MESSAGES, messages};
use wsloop::{
    ClientConnectInfo, Close, CloseCause, ConnectError, Context, ContextConfig, Cx, DeflateConfig,
    Established, Message, Protocol, ProtocolHandle, Takeover, VhostConfig, VhostId, Wsi, WsiId,
};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["echo", url, pid, connections, bytes, seconds, deflate, ..] => {
            let mut load = Load::new(url, pid, bytes.parse()?, deflate, true)?;
            load.connect(connections.parse()?)?;
            load.echo(Duration::from_secs_f64(seconds.parse()?))
        }
        ["idle", url, pid, connections, deflate, ..] => {
            let before = resident_kib(pid)?;
            Load::new(url, pid, 256, deflate, false)?.connect(connections.parse()?)?;
            println!("{before} {}", resident_kib(pid)?);
            Ok(())
        }
        ["texts", bytes, ..] => {
            for text in messages(bytes.parse()?) {
                println!("{}", String::from_utf8(text)?);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

struct Load {
    context: Context,
    vhost: VhostId,
    protocol: ProtocolHandle<Sender>,
    url: String,
    server: String,
}

impl Load {
    fn new(
        url: &str,
        server: &str,
        bytes: usize,
        deflate: &str,
        talks: bool,
    ) -> Result<Self, Box<dyn Error>> {
        rlimit::increase_nofile_limit(u64::MAX)?;
        // What other clients do: few have a level of their own, and zlib's is this one.
        let config = DeflateConfig::new().level(6)?.threshold(0);
        let config = match deflate {
            "none" => None,
            "shared" => Some(config),
            "takeover" => Some(config.context_takeover(Takeover::Both)),
            other => return Err(format!("{other} is none of none, shared, takeover").into()),
        };
        let texts = messages(bytes).into_iter().map(String::from_utf8);
        let mut vhost = VhostConfig::new("load");
        if let Some(config) = config {
            vhost = vhost.deflate(config);
        }
        let protocol = vhost.add_protocol(
            "load",
            Sender {
                texts: texts.collect::<Result<_, _>>()?,
                deflate: config.is_some(),
                talks,
                answered: 0,
                answers: 0,
                over: false,
            },
        );
        let mut context = Context::new(ContextConfig::new().max_context_takeovers(usize::MAX))?;
        let vhost = context.create_vhost(vhost)?;
        Ok(Self {
            context,
            vhost,
            protocol,
            url: url.to_owned(),
            server: server.to_owned(),
        })
    }

    fn sender(&mut self) -> &mut Sender {
        let sender = self.context.protocol(self.protocol);
        sender.expect("its vhost lives as long as the context")
    }

    /// Opens connections, not many at a time, and waits for the first answer on each.
    fn connect(&mut self, connections: usize) -> Result<(), Box<dyn Error>> {
        let mut dialled = 0;
        while self.sender().answered < connections {
            while dialled < connections && dialled < self.sender().answered + 100 {
                let info = ClientConnectInfo::from_url(&self.url)?;
                self.context.client_connect(self.vhost, info)?;
                dialled += 1;
            }
            self.context.service(Some(TURN))?;
        }
        Ok(())
    }

    fn echo(&mut self, time: Duration) -> Result<(), Box<dyn Error>> {
        self.run(time / 4)?;
        let (answers, cpu) = (self.sender().answers, cpu_seconds(&self.server)?);
        self.run(time)?;
        let answers = self.sender().answers - answers;
        let cpu = cpu_seconds(&self.server)? - cpu;
        println!("{:.3} {answers}", cpu * 1e6 / answers as f64);
        Ok(())
    }

    fn run(&mut self, time: Duration) -> Result<(), Box<dyn Error>> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.context.service(Some(TURN))?;
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.sender().over = true;
    }
}

/// Sends its texts one after the other, each when the one before has come back.
struct Sender {
    texts: Vec<String>,
    deflate: bool,
    /// Goes on after the first one.
    talks: bool,
    /// Connections that had an answer.
    answered: usize,
    answers: usize,
    /// The connections may end.
    over: bool,
}

impl Protocol for Sender {
    /// The text whose answer is awaited.
    type Session = usize;

    fn on_established(&mut self, wsi: &mut Wsi<'_>, how: &Established<'_>) -> Result<usize, Close> {
        assert_eq!(how.deflate.is_some(), self.deflate, "agreed on compression");
        wsi.send_text(&self.texts[0])?;
        Ok(0)
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        at: &mut usize,
        message: Message<'_>,
    ) -> Result<(), Close> {
        assert!(message.as_bytes() == self.texts[*at % MESSAGES].as_bytes());
        if *at == 0 {
            self.answered += 1;
        }
        *at += 1;
        self.answers += 1;
        if self.talks {
            wsi.send_text(&self.texts[*at % MESSAGES])?;
        }
        Ok(())
    }

    fn on_closed(&mut self, _: &mut Cx<'_>, _: WsiId, _: usize, cause: &CloseCause) {
        assert!(self.over, "{cause}");
    }

    fn on_connect_error(&mut self, _: &mut Cx<'_>, _: WsiId, error: &ConnectError) {
        panic!("{error}");
    }
}

/// User and system time of a process: fields 14 and 15, in ticks of 10 ms.
fn cpu_seconds(process: &str) -> Result<f64, Box<dyn Error>> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks = fields.skip(11).take(2).map(str::parse::<u64>);
    Ok(ticks.sum::<Result<u64, _>>()? as f64 / 100.0)
}

fn resident_kib(process: &str) -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.ok_or("no such process")?.parse()?)
}

const TURN: Duration = Duration::from_millis(100);
