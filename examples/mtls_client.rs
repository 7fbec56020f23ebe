//! Many client connections in one loop, each with a certificate and authorities of its own.
//!
//!     cargo run --example mtls_client [--once] TARGET...      each TARGET is
//!         --connect URL --ca PEM [--crl PEM] [--cert PEM --key PEM [--out-of-date]]
//!
//! Each target is a vhost of its own, which sends one message per connection. `--ca` is whose
//! servers are good, `--crl` which of them are revoked. Connections that are lost come back; a new
//! certificate in the files is taken into use, on a new connection. With `--once` each connection
//! waits for the echo and closes; the status is 1 if one failed. `--out-of-date` shows a
//! certificate that is not valid now, to see what the server says.
//!
//! Without arguments it shows itself: three clients with a certificate each go to a server in the
//! same process that demands them, and then one of the certificates is replaced.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

#[path = "support/args.rs"]
mod args;
#[path = "support/target.rs"]
mod target;
#[path = "support/three_clients.rs"]
mod three_clients;

use std::error::Error;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use self::{args::Args, target::Target};
use wsloop::tls::{ClientTls, RevocationLists, Roots, TlsConfigError};
use wsloop::{
    ClientConnectInfo, Close, CloseCause, ConnectError, Context, ContextConfig, ContextObserver,
    Cx, Established, Message, Protocol, ProtocolHandle, RetryPolicy, Side, VhostConfig, VhostId,
    Wsi, WsiId,
};

/// The one connection of a target, with what has come of it.
struct Client {
    label: String,
    once: bool,
    answers: usize,
    /// How the last connection ended, if none follows.
    ended: Option<Result<(), String>>,
}

impl Protocol for Client {
    type Session = ();

    fn on_established(&mut self, wsi: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        let server = wsi
            .peer_identity()
            .map(|server| server.dns_names().join(", "));
        println!(
            "{}: established with {}",
            self.label,
            server.unwrap_or_default()
        );
        wsi.send_text("hello")?;
        Ok(())
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        if let Message::Text(text) = message {
            println!("{}: {text}", self.label);
            self.answers += 1;
        }
        if self.once {
            wsi.close(Close::normal());
        }
        Ok(())
    }

    fn on_closed(&mut self, _: &mut Cx<'_>, _: WsiId, _: (), cause: &CloseCause) {
        println!("{}: {cause}", self.label);
        if self.once {
            let answered = cause.is_clean() && self.answers > 0;
            self.ended = Some(answered.then_some(()).ok_or_else(|| cause.to_string()));
        }
    }

    fn on_connect_error(&mut self, _: &mut Cx<'_>, _: WsiId, error: &ConnectError) {
        println!("{}: no connection: {error}", self.label);
        self.ended = Some(Err(error.to_string()));
    }
}

/// Passes on whose files hold a new certificate.
struct Watcher(Sender<VhostId>);

impl ContextObserver for Watcher {
    fn on_identity_changed(
        &mut self,
        _: &mut Cx<'_>,
        vhost: VhostId,
        _: Side,
        outcome: Result<(), &TlsConfigError>,
    ) {
        match outcome {
            Ok(()) => drop(self.0.send(vhost)), // Fails when the program ends.
            Err(error) => eprintln!("the old certificate stays: {error}"),
        }
    }
}

fn main() -> ExitCode {
    args::exit("mtls_client", run(Args::new()))
}

/// Connects to all; ends with `--once` only.
fn run(mut args: Args) -> Result<(), Box<dyn Error>> {
    if args.is_empty() {
        return three_clients::show();
    }
    let once = args.switch("--once");
    let mut clients = Clients::new()?;
    for target in Target::all_from(args)? {
        clients.connect(target, once)?;
    }
    loop {
        let ended = clients.each(|client| client.ended.clone());
        if once && ended.iter().all(Option::is_some) {
            return Ok(ended.into_iter().flatten().collect::<Result<(), _>>()?);
        }
        clients.turn()?;
    }
}

/// One context with a vhost for each target.
struct Clients {
    context: Context,
    list: Vec<(VhostId, ProtocolHandle<Client>, ClientConnectInfo)>,
    changed: Receiver<VhostId>,
}

impl Clients {
    fn new() -> Result<Self, Box<dyn Error>> {
        let (sender, changed) = channel();
        Ok(Self {
            context: Context::new(ContextConfig::new().observer(Watcher(sender)))?,
            list: Vec::new(),
            changed,
        })
    }

    fn connect(&mut self, target: Target, once: bool) -> Result<(), Box<dyn Error>> {
        let mut tls = ClientTls::new(Roots::from_pem_file(target.ca)?);
        if let Some(crl) = target.crl {
            tls = tls.revocation_lists(RevocationLists::from_pem_file(crl)?);
        }
        if let Some((cert, key)) = target.identity {
            tls = tls.identity(target.options.from_pem_files(cert, key)?);
        }
        let mut info = ClientConnectInfo::from_url(&target.url)?;
        if !once {
            let delays = [1, 2, 5, 10].map(Duration::from_secs);
            info = info.reconnect(RetryPolicy::builder().delays(delays).forever().build()?);
        }
        let client = Client {
            label: target.label,
            once,
            answers: 0,
            ended: None,
        };
        let mut config = VhostConfig::new("client").client_tls(tls);
        let client = config.add_protocol("client", client);
        let vhost = self.context.create_vhost(config)?;
        self.context.watch_identity(vhost, Duration::from_secs(1))?;
        self.context.client_connect(vhost, info.clone())?;
        self.list.push((vhost, client, info));
        Ok(())
    }

    /// Waits for something to happen, and takes new certificates into use.
    fn turn(&mut self) -> Result<(), Box<dyn Error>> {
        self.context.service(None)?;
        for changed in self.changed.try_iter() {
            for (vhost, client, info) in self.list.iter().filter(|one| one.0 == changed) {
                let client = self.context.protocol(*client).ok_or("no protocol")?;
                println!("{}: a new certificate is in use", client.label);
                // One that was refused for the old certificate has not come back by itself.
                if client.ended.take().is_some() {
                    self.context.client_connect(*vhost, info.clone())?;
                }
                self.context.drain_old_identity(*vhost);
            }
        }
        Ok(())
    }

    fn each<T>(&mut self, f: fn(&mut Client) -> T) -> Vec<T> {
        let list = self.list.iter();
        let all = list.filter_map(|one| self.context.protocol(one.1).map(f));
        all.collect()
    }
}
