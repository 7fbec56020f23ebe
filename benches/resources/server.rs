//! The server under attack, in a process of its own, and how the attacker asks it for figures.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use wsloop::{
    Close, CloseCause, Context, ContextConfig, ContextObserver, Cx, Established, Limits,
    ListenConfig, ListenerTrouble, Message, Protocol, ProtocolHandle, RetryPolicy, SendError,
    ServerRefusal, VhostConfig, VhostId, Wsi, WsiId,
};

use crate::{ALLOCATOR, Outcome, system};

/// Has the server fill its queue.
pub(crate) const MORE: &[u8] = b"more";

/// Sends back what comes.
#[derive(Default)]
struct Echo {
    established: usize,
    messages: usize,
    closed: usize,
}

impl Protocol for Echo {
    type Session = ();

    fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        self.established += 1;
        Ok(())
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        self.messages += 1;
        if message.as_bytes() == MORE {
            loop {
                match wsi.send_binary(&[7; 1000]) {
                    Ok(_) => {}
                    Err(SendError::Full { .. }) => return Ok(()),
                    Err(other) => return Err(other.into()),
                }
            }
        }
        // Who floods and does not read is not read from either, until it has caught up.
        if wsi.send(message)?.buffered > 256 * 1024 {
            wsi.pause_reading();
            wsi.request_writable();
        }
        Ok(())
    }

    fn on_writable(&mut self, wsi: &mut Wsi<'_>, _: &mut ()) -> Result<(), Close> {
        wsi.resume_reading();
        Ok(())
    }

    fn on_closed(&mut self, _: &mut Cx<'_>, _: WsiId, (): (), _: &CloseCause) {
        self.closed += 1;
    }
}

#[derive(Clone, Debug, Default)]
struct Watcher {
    refused: Arc<AtomicUsize>,
    troubles: Arc<AtomicUsize>,
}

impl ContextObserver for Watcher {
    fn on_refused(&mut self, _: &mut Cx<'_>, _: &ServerRefusal) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn on_listener_trouble(&mut self, _: &mut Cx<'_>, _: &ListenerTrouble) {
        self.troubles.fetch_add(1, Ordering::Relaxed);
    }
}

/// The server's process: a line with the addresses, then one for each line that it is sent, until
/// there are no more.
pub(crate) fn serve(settings: &[&str]) -> Outcome {
    let value = |name: &str| {
        let found = settings.iter().find_map(|word| word.strip_prefix(name));
        found.and_then(|rest| rest.strip_prefix('='))
    };
    rlimit::increase_nofile_limit(u64::MAX)?;
    if let Some(most) = value("descriptors") {
        let (_, hard) = rlimit::Resource::NOFILE.get()?;
        rlimit::Resource::NOFILE.set(most.parse()?, hard)?;
    }
    let watcher = Watcher::default();
    let mut config = ContextConfig::new().observer(watcher.clone());
    if let Some(bytes) = value("budget") {
        config = config.turn_budget(bytes.parse()?);
    }
    if let Some(most) = value("connections") {
        config = config.max_connections(most.parse()?);
    }
    let mut limits = Limits::default();
    if let Some(bytes) = value("output") {
        limits = limits.with_output_bytes(bytes.parse()?);
    }
    let mut context = Context::new(config)?;
    let mut silence = RetryPolicy::default();
    if value("silence") == Some("ever") {
        let builder = RetryPolicy::builder().ping_after(None);
        silence = builder.hang_up_after(None).build()?;
    }
    let (vhost, echo) = listen(&mut context, limits, silence)?;
    let addresses = context.listen_addrs(vhost);
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    println!("{}", addresses.join(" "));
    answer(context, echo, &watcher)
}

fn listen(
    context: &mut Context,
    limits: Limits,
    silence: RetryPolicy,
) -> Result<(VhostId, ProtocolHandle<Echo>), Box<dyn Error>> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let vhost = VhostConfig::new("localhost").limits(limits);
    let vhost = vhost.retry_and_idle_policy(silence);
    let vhost = vhost.page("/page", "text/plain", "hello");
    let vhost = vhost.listen(ListenConfig::new(any).backlog(4096));
    let mut vhost = with_tls(vhost, any)?;
    let echo = vhost.add_protocol("echo", Echo::default());
    Ok((context.create_vhost(vhost)?, echo))
}

#[cfg(feature = "tls")]
fn with_tls(vhost: VhostConfig, any: SocketAddr) -> Result<VhostConfig, Box<dyn Error>> {
    use wsloop::PlaintextPolicy;
    use wsloop::tls::{Identity, ServerTls};

    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let identity = Identity::from_pem(made.cert.pem(), made.signing_key.serialize_pem())?;
    let listen = ListenConfig::new(any).backlog(4096);
    Ok(vhost
        .listen(listen.tls(PlaintextPolicy::Reject))
        .server_tls(ServerTls::new(identity)))
}

#[cfg(not(feature = "tls"))]
fn with_tls(vhost: VhostConfig, _: SocketAddr) -> Result<VhostConfig, Box<dyn Error>> {
    Ok(vhost)
}

fn answer(mut context: Context, echo: ProtocolHandle<Echo>, watcher: &Watcher) -> Outcome {
    let (asked, over) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let (ask, end) = (Arc::clone(&asked), Arc::clone(&over));
    let wake = context.cancel_service_handle();
    std::thread::spawn(move || {
        for _ in std::io::stdin().lines() {
            ask.store(true, Ordering::SeqCst);
            wake.cancel_service();
        }
        end.store(true, Ordering::SeqCst);
        wake.cancel_service();
    });
    let mut turns: u64 = 0;
    while !over.load(Ordering::SeqCst) {
        context.service(None)?;
        turns += 1;
        if asked.swap(false, Ordering::SeqCst) {
            let live = ALLOCATOR.stats();
            let live = live.bytes_allocated - live.bytes_deallocated;
            let (memory, connections) = (context.memory(), context.connections());
            let echo = context.protocol(echo).ok_or("its vhost has gone")?;
            let refused = watcher.refused.load(Ordering::Relaxed);
            let ended = echo.closed + refused;
            println!(
                "{connections} {} {} {ended} {memory} {live} {turns} {}",
                echo.established,
                echo.messages,
                watcher.troubles.load(Ordering::Relaxed)
            );
        }
    }
    Ok(())
}

/// The attacker's view of the server.
pub(crate) struct Server {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub(crate) address: SocketAddr,
    /// Where it speaks TLS, if it was built with it.
    pub(crate) secure: Option<SocketAddr>,
}

/// What the server says about itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) connections: usize,
    pub(crate) established: usize,
    pub(crate) messages: usize,
    /// Closed or refused.
    pub(crate) ended: usize,
    /// By the library's account.
    pub(crate) memory: usize,
    /// By the allocator's.
    pub(crate) live: usize,
    pub(crate) turns: usize,
    /// How often a listener was in trouble.
    pub(crate) troubles: usize,
    /// By the system's account.
    pub(crate) resident: usize,
    pub(crate) descriptors: usize,
    pub(crate) processor: Duration,
}

impl Server {
    pub(crate) fn start(settings: &[&str]) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("server").args(settings);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let asks = child.stdin.take().ok_or("no input")?;
        let mut answers = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let mut addresses = line.split_whitespace();
        let address = addresses.next().ok_or("the server does not listen")?;
        Ok(Self {
            child,
            asks,
            answers,
            address: address.parse()?,
            secure: addresses.next().map(str::parse).transpose()?,
        })
    }

    pub(crate) fn figures(&mut self) -> Result<Figures, Box<dyn Error>> {
        writeln!(self.asks)?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let numbers: Result<Vec<usize>, _> = line.split_whitespace().map(str::parse).collect();
        let [
            connections,
            established,
            messages,
            ended,
            memory,
            live,
            turns,
            troubles,
        ] = numbers?[..]
        else {
            return Err(format!("the server has ended: {line}").into());
        };
        let pid = self.child.id();
        Ok(Figures {
            connections,
            established,
            messages,
            ended,
            memory,
            live,
            turns,
            troubles,
            resident: system::resident(pid)?,
            descriptors: system::descriptors(pid)?,
            processor: system::processor(pid)?,
        })
    }

    /// Asks until that is so.
    pub(crate) fn until(
        &mut self,
        done: impl Fn(&Figures) -> bool,
    ) -> Result<Figures, Box<dyn Error>> {
        for _ in 0..12_000 {
            let figures = self.figures()?;
            if done(&figures) {
                return Ok(figures);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(format!("it does not come to it: {:?}", self.figures()?).into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A process of ours: it has no work that could be lost.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
