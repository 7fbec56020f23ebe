//! A WebSocket client that sends every message back until the connection ends.
//!
//!     cargo run --example echo_client URL [--ca PEM [--cert PEM --key PEM]] [--deflate shared|takeover]
//!
//! A `wss` URL needs `--ca`: whose servers are trusted; the other two are what the client shows.
//! Ends with status 0 after a clean close, else with 1 and one line that says what failed where.

#[path = "support/args.rs"]
mod args;
#[cfg(feature = "deflate")]
#[path = "support/deflate.rs"]
mod deflate;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use args::Args;
use wsloop::{
    ClientConnectInfo, Close, CloseCause, ConnectError, Context, ContextConfig, Cx, Established,
    Limits, Message, Protocol, VhostConfig, Wsi, WsiId,
};

/// Holds how the connection ended, once it has.
#[derive(Default)]
struct Echo {
    outcome: Option<Result<(), String>>,
}

impl Protocol for Echo {
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
        wsi.send(message)?;
        Ok(())
    }

    fn on_closed(&mut self, _: &mut Cx<'_>, _: WsiId, _: (), cause: &CloseCause) {
        let clean = cause.is_clean().then_some(());
        self.outcome = Some(clean.ok_or_else(|| format!("websocket: {cause}")));
    }

    fn on_connect_error(&mut self, _: &mut Cx<'_>, _: WsiId, error: &ConnectError) {
        self.outcome = Some(Err(error.to_string()));
    }
}

const USAGE: &str = "usage: echo_client URL [--ca PEM [--cert PEM --key PEM]]";
const MESSAGE_MAX: usize = 64 * 1024 * 1024;

fn main() -> ExitCode {
    args::exit("echo_client", run(Args::new()))
}

fn run(mut args: Args) -> Result<(), Box<dyn Error>> {
    let files = args.values(["--ca", "--cert", "--key"])?;
    #[cfg(feature = "deflate")]
    let [deflate] = args.values::<String, 1>(["--deflate"])?;
    let info = ClientConnectInfo::from_url(&args.word()?.ok_or(USAGE)?)?;
    let limits = Limits::default()
        .with_message_bytes(MESSAGE_MAX)
        .with_output_bytes(2 * MESSAGE_MAX)
        .with_fragments(100_000);
    let mut context = Context::new(ContextConfig::new())?;
    let vhost = VhostConfig::new("client").limits(limits);
    #[cfg(feature = "deflate")]
    let vhost = match deflate::config(deflate.as_deref())? {
        Some(deflate) => vhost.deflate(deflate),
        None => vhost,
    };
    #[cfg(feature = "tls")]
    let vhost = with_tls(vhost, files, info.is_tls())?;
    #[cfg(not(feature = "tls"))]
    let _: [Option<PathBuf>; 3] = files;
    let mut vhost = vhost;
    let echo = vhost.add_protocol("echo", Echo::default());
    let vhost = context.create_vhost(vhost)?;
    context.client_connect(vhost, info)?;
    loop {
        context.service(None)?;
        if let Some(outcome) = context.protocol(echo).and_then(|e| e.outcome.take()) {
            return Ok(outcome?);
        }
    }
}

#[cfg(feature = "tls")]
fn with_tls(
    vhost: VhostConfig,
    [ca, cert, key]: [Option<PathBuf>; 3],
    is_tls: bool,
) -> Result<VhostConfig, Box<dyn Error>> {
    use wsloop::tls::{ClientTls, Identity, Roots};

    let Some(ca) = ca else {
        return match is_tls || cert.is_some() || key.is_some() {
            true => Err("--ca PEM is missing: whose servers are trusted".into()),
            false => Ok(vhost),
        };
    };
    let tls = ClientTls::new(Roots::from_pem_file(ca)?);
    Ok(vhost.client_tls(match (cert, key) {
        (None, None) => tls,
        (Some(cert), Some(key)) => tls.identity(Identity::from_pem_files(cert, key)?),
        _ => return Err("--cert and --key go together".into()),
    }))
}
