//! TLS handshakes that explain themselves, step by step.
//!
//!     cargo run --example tls_trace                       against a server in the same process
//!     cargo run --example tls_trace URL --ca PEM          one connection to that server
//!
//! Without arguments four handshakes are shown, each as both sides see it: a good one, one that is
//! resumed, one of a client that has no certificate and should have one, and one with a server
//! whose certificate is for another name. With a URL, the status is 1 if there was no connection.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

#[path = "support/args.rs"]
mod args;
#[path = "support/four_handshakes.rs"]
mod four_handshakes;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use args::Args;
use wsloop::tls::{ClientTls, Roots};
use wsloop::{
    ClientConnectInfo, Close, ConnectError, Context, ContextConfig, ContextObserver, Cx,
    Established, Protocol, ProtocolHandle, Side, TlsReport, VhostConfig, VhostId, Wsi, WsiId,
};

/// Prints every report, of either side.
struct Printer;

impl ContextObserver for Printer {
    fn on_tls_handshake(&mut self, _: &mut Cx<'_>, report: &TlsReport) {
        let outcome = match (&report.failure, &report.info) {
            (Some(failure), _) => failure.to_string(),
            (None, Some(info)) => format!("{}, {}", info.version, info.handshake),
            (None, None) => "unfinished".to_owned(),
        };
        println!("  {:?} with {}: {outcome}", report.side, report.peer);
        print!("{}", report.trace);
    }
}

/// Both sides: the client closes as soon as there is a connection.
#[derive(Default)]
struct Talk {
    error: Option<String>,
}

impl Protocol for Talk {
    type Session = ();

    fn on_established(&mut self, wsi: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        if wsi.side() == Side::Client {
            wsi.close(Close::normal());
        }
        Ok(())
    }

    fn on_connect_error(&mut self, _: &mut Cx<'_>, _: WsiId, error: &ConnectError) {
        self.error = Some(error.to_string());
    }
}

fn main() -> ExitCode {
    args::exit("tls_trace", run(Args::new()))
}

fn run(mut args: Args) -> Result<(), Box<dyn Error>> {
    if args.is_empty() {
        return four_handshakes::show();
    }
    let [ca] = args.values::<PathBuf, 1>(["--ca"])?;
    let (Some(url), Some(ca)) = (args.word()?, ca) else {
        return Err("usage: tls_trace [wss://HOST[:PORT]/PATH --ca PEM]".into());
    };
    let mut client = Client::new(Roots::from_pem_file(ca)?)?;
    client.connect(ClientConnectInfo::from_url(&url)?)
}

/// A context with a vhost that dials, and perhaps others that serve.
struct Client {
    context: Context,
    vhost: VhostId,
    talk: ProtocolHandle<Talk>,
}

impl Client {
    fn new(roots: Roots) -> Result<Self, Box<dyn Error>> {
        let mut context = Context::new(ContextConfig::new().observer(Printer))?;
        let tls = ClientTls::new(roots);
        let mut config = VhostConfig::new("client").client_tls(tls).trace_tls();
        let talk = config.add_protocol("talk", Talk::default());
        let vhost = context.create_vhost(config)?;
        Ok(Self {
            context,
            vhost,
            talk,
        })
    }

    /// Connects, and waits until both sides have ended.
    fn connect(&mut self, info: ClientConnectInfo) -> Result<(), Box<dyn Error>> {
        self.context.client_connect(self.vhost, info)?;
        while self.context.connections() > 0 {
            self.context.service(None)?;
        }
        let talk = self.context.protocol(self.talk).ok_or("no protocol")?;
        talk.error.take().map_or(Ok(()), |error| Err(error.into()))
    }
}
