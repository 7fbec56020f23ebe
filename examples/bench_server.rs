//! An echo server that says nothing, for load generators.
//!
//!     cargo run --profile fast --example bench_server PORT [--tls CERT KEY] [--deflate]
//!                                                          [--broadcast | --each]
//!
//! It listens on 127.0.0.1 and takes messages of up to 128 MiB. With `--tls` (and PEM files for the
//! chain and the key) it speaks wss, otherwise ws. `--deflate` accepts permessage-deflate. Messages
//! go back to who sent them, or to everybody: by `broadcast`, or sent to each by itself.

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

use wsloop::{
    Close, Context, ContextConfig, Established, Limits, ListenConfig, Message, Protocol,
    VhostConfig, Wsi,
};

/// Messages go back to who sent them.
struct Echo;

impl Protocol for Echo {
    type Session = ();

    fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        Ok(())
    }

    // Short, so that the loop over the messages that have come may contain it.
    #[inline(always)]
    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        if wsi.send(message)?.buffered > HIGH_WATER {
            wait_for_reader(wsi);
        }
        Ok(())
    }

    fn on_writable(&mut self, wsi: &mut Wsi<'_>, _: &mut ()) -> Result<(), Close> {
        wsi.resume_reading();
        Ok(())
    }
}

/// A peer that sends but does not read is not read from either, until it has caught up.
#[cold]
fn wait_for_reader(wsi: &mut Wsi<'_>) {
    wsi.pause_reading();
    wsi.request_writable();
}

/// Messages go to everybody.
#[derive(Clone, Copy)]
enum All {
    Broadcast,
    Each,
}

impl Protocol for All {
    type Session = ();

    fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        Ok(())
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        match self {
            Self::Broadcast => drop(wsi.cx().broadcast(message, |_| true)),
            Self::Each => wsi.cx().for_each_peer(|mut peer| {
                let _ = peer.send(message);
            }),
        }
        Ok(())
    }
}

const MESSAGE_MAX: usize = 128 * 1024 * 1024;
const HIGH_WATER: usize = 1024 * 1024;
const RECEIVE_BUFFER: usize = 512 * 1024;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Box<dyn Error>> {
    let Options {
        port,
        files,
        deflate,
        all,
    } = options(std::env::args().skip(1))?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    // The queue takes what one message more than the high water comes to.
    let limits = Limits::default()
        .with_message_bytes(MESSAGE_MAX)
        .with_output_bytes(2 * MESSAGE_MAX)
        .with_fragments(100_000);
    let vhost = VhostConfig::new("localhost").limits(limits);
    let mut vhost = match all {
        Some(all) => vhost.protocol("echo", all),
        None => vhost.protocol("echo", Echo),
    };
    if deflate {
        vhost = compress(vhost)?;
    }
    let files = files
        .as_ref()
        .map(|(cert, key)| (cert.as_str(), key.as_str()));
    let vhost = listen(vhost, ListenConfig::new(address).backlog(4096), files)?;
    let mut context = Context::new(ContextConfig::new().receive_buffer(RECEIVE_BUFFER))?;
    context.create_vhost(vhost)?;
    Ok(context.run()?)
}

struct Options {
    port: u16,
    files: Option<(String, String)>,
    deflate: bool,
    all: Option<All>,
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, Box<dyn Error>> {
    const USAGE: &str = "say PORT [--tls CERT KEY] [--deflate] [--broadcast | --each]";
    let mut options = Options {
        port: words.next().ok_or(USAGE)?.parse()?,
        files: None,
        deflate: false,
        all: None,
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--tls" => options.files = Some(words.next().zip(words.next()).ok_or(USAGE)?),
            "--deflate" => options.deflate = true,
            "--broadcast" => options.all = Some(All::Broadcast),
            "--each" => options.all = Some(All::Each),
            _ => return Err(USAGE.into()),
        }
    }
    Ok(options)
}

#[cfg(feature = "deflate")]
fn compress(vhost: VhostConfig) -> Result<VhostConfig, Box<dyn Error>> {
    Ok(vhost.deflate(wsloop::ws::deflate::DeflateConfig::new()))
}

#[cfg(not(feature = "deflate"))]
fn compress(_: VhostConfig) -> Result<VhostConfig, Box<dyn Error>> {
    Err("built without compression".into())
}

#[cfg(feature = "tls")]
fn listen(
    vhost: VhostConfig,
    listen: ListenConfig,
    files: Option<(&str, &str)>,
) -> Result<VhostConfig, Box<dyn Error>> {
    use wsloop::PlaintextPolicy;
    use wsloop::tls::{Identity, ServerTls};

    let Some((cert, key)) = files else {
        return Ok(vhost.listen(listen));
    };
    let identity = Identity::from_pem_files(cert, key)?;
    Ok(vhost
        .listen(listen.tls(PlaintextPolicy::Reject))
        .server_tls(ServerTls::new(identity)))
}

#[cfg(not(feature = "tls"))]
fn listen(
    vhost: VhostConfig,
    listen: ListenConfig,
    files: Option<(&str, &str)>,
) -> Result<VhostConfig, Box<dyn Error>> {
    match files {
        None => Ok(vhost.listen(listen)),
        Some(_) => Err("built without TLS".into()),
    }
}
