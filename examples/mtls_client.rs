//! Many client connections in one loop, each with a certificate and authorities of its own.
//!
//!     cargo run --example mtls_client [--once] TARGET...      each TARGET is
//!         --connect wss://HOST[:PORT]/PATH --ca PEM [--cert PEM --key PEM]
//!
//! Each target is a vhost of its own. Connections that are lost come back; when the files of a
//! certificate are replaced, the new one is taken into use and its connection made anew. With
//! `--once` each connection sends one message, waits for the echo and closes; the status is 1 if
//! one of them failed.
//!
//! Without arguments it shows itself: three clients with a certificate each at a server in the
//! same process that demands them, and one of the certificates is replaced.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

#[path = "support/pki.rs"]
mod pki;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use pki::Pki;
use wsloop::tls::{
    ClientAuth, ClientTls, ClientTrust, Identity, Roots, ServerTls, TlsConfigError,
};
use wsloop::{
    ClientConnectInfo, Close, CloseCause, ConnectError, Context, ContextConfig, ContextObserver,
    Cx, Established, ListenConfig, Message, PlaintextPolicy, Protocol, ProtocolHandle, RetryPolicy,
    Side, VhostConfig, VhostId, Wsi, WsiId,
};

/// A client of one target. Sends one message per connection, and prints what happens.
struct Client {
    url: String,
    /// What its certificate says of itself.
    shows: &'static str,
    once: bool,
    /// What came back, over all connections.
    echoes: Vec<String>,
    outcome: Option<Result<(), String>>,
}

impl Protocol for Client {
    type Session = ();

    fn on_established(&mut self, wsi: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        let (url, shows) = (&self.url, self.shows);
        match (wsi.tls(), wsi.peer_identity()) {
            (Some(tls), Some(server)) => println!(
                "{url}: established, {}; the server is {}, verified by us; we show {shows}",
                tls.version,
                server.dns_names().join(" or "),
            ),
            _ => println!("{url}: established without TLS"),
        }
        wsi.send_text("hello")?;
        Ok(())
    }

    fn on_message(
        &mut self,
        _: &mut Wsi<'_>,
        _: &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        if let Message::Text(text) = message {
            println!("{}: {text:?}", self.url);
            self.echoes.push(text.to_owned());
        }
        match self.once {
            true => Err(Close::normal()),
            false => Ok(()),
        }
    }

    fn on_closed(&mut self, _: &mut Cx<'_>, _: WsiId, _: (), cause: &CloseCause) {
        println!("{}: {cause}", self.url);
        let echoed = cause.is_clean() && !self.echoes.is_empty();
        self.outcome = Some(match echoed {
            true => Ok(()),
            false => Err(cause.to_string()),
        });
    }

    fn on_connect_error(&mut self, _: &mut Cx<'_>, _: WsiId, error: &ConnectError) {
        self.outcome = Some(Err(error.to_string()));
    }
}

/// Passes on what comes of watching the files.
struct Watcher(Sender<(VhostId, Result<(), String>)>);

impl ContextObserver for Watcher {
    fn on_identity_changed(
        &mut self,
        _: &mut Cx<'_>,
        vhost: VhostId,
        _: Side,
        outcome: Result<(), &TlsConfigError>,
    ) {
        let outcome = outcome.map_err(ToString::to_string);
        // Nobody listens any more when the program is about to end.
        let _ = self.0.send((vhost, outcome));
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.as_slice() {
        [] => show(),
        _ => Targets::from_args(args).and_then(run),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mtls_client: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(targets: Targets) -> Result<(), Box<dyn Error>> {
    let mut clients = Clients::new()?;
    for target in &targets.list {
        clients.connect(target, targets.once)?;
    }
    loop {
        clients.turn()?;
        let outcomes = clients.each().filter_map(|client| client.outcome.as_ref());
        let outcomes: Vec<_> = outcomes.cloned().collect();
        if outcomes.len() == targets.list.len() {
            let failed: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
            return match failed.is_empty() {
                true => Ok(()),
                false => Err(failed.join("; ").into()),
            };
        }
    }
}
