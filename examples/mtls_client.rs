//! Many client connections in one loop, each with a certificate and authorities of its own.
//!
//!     cargo run --example mtls_client [--once] TARGET...      each TARGET is
//!         --connect wss://HOST[:PORT]/PATH --ca PEM [--cert PEM --key PEM [--out-of-date yes]]
//!
//! Each target is a vhost of its own, which sends one message per connection. Connections that
//! are lost come back; when the files of a certificate are replaced, the new one is taken into
//! use, on a new connection. With `--once` each connection waits for the echo and closes, and the
//! status is 1 if one of them failed. `--out-of-date yes` shows a certificate that is not valid
//! now, to see what the server says.
//!
//! Without arguments it shows itself: three clients with a certificate each go to a server in the
//! same process that demands them, and then one of the certificates is replaced.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

#[path = "support/greeter.rs"]
mod greeter;
#[path = "support/pki.rs"]
mod pki;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use pki::Pki;
use wsloop::tls::{ClientTls, IdentityOptions, PeerIdentity, Roots, TlsConfigError};
use wsloop::{
    ClientConnectInfo, Close, CloseCause, ConnectError, Context, ContextConfig, ContextObserver,
    Cx, Established, Message, Protocol, ProtocolHandle, RetryPolicy, Side, VhostConfig, VhostId,
    Wsi, WsiId,
};

/// The one connection of a target, with what has come of it.
struct Client {
    label: String,
    once: bool,
    /// Over all connections.
    answers: Vec<String>,
    /// How the last connection ended, if none follows.
    ended: Option<Result<(), String>>,
}

impl Protocol for Client {
    type Session = ();

    fn on_established(&mut self, wsi: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        let server = wsi.peer_identity();
        let verified = server.as_ref().is_some_and(PeerIdentity::is_verified);
        let names = server.map(|server| server.dns_names().join(", "));
        println!(
            "{}: established with {}, {}",
            self.label,
            names.as_deref().unwrap_or("nobody in particular"),
            if verified { "verified" } else { "not verified" },
        );
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
            println!("{}: {text}", self.label);
            self.answers.push(text.to_owned());
        }
        if self.once {
            return Err(Close::normal());
        }
        Ok(())
    }

    fn on_closed(&mut self, _: &mut Cx<'_>, _: WsiId, _: (), cause: &CloseCause) {
        println!("{}: {cause}", self.label);
        if self.once {
            let answered = cause.is_clean() && !self.answers.is_empty();
            self.ended = Some(answered.then_some(()).ok_or_else(|| cause.to_string()));
        }
    }

    fn on_connect_error(&mut self, _: &mut Cx<'_>, _: WsiId, error: &ConnectError) {
        println!("{}: no connection: {error}", self.label);
        self.ended = Some(Err(error.to_string()));
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
    let outcome = match std::env::args().len() {
        1 => show(),
        _ => parse(std::env::args().skip(1)).and_then(|(targets, once)| run(&targets, once)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mtls_client: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whom to connect to, whom to trust there, and what to show.
#[derive(Default)]
struct Target {
    label: String,
    url: String,
    address: Option<SocketAddr>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    options: IdentityOptions,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<(Vec<Target>, bool), Box<dyn Error>> {
    let mut targets = Vec::<Target>::new();
    let mut once = false;
    while let Some(arg) = args.next() {
        if arg == "--once" {
            once = true;
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{arg} wants a value"))?;
        if arg == "--connect" {
            targets.push(Target {
                label: value.clone(),
                url: value,
                ..Target::default()
            });
            continue;
        }
        let target = targets.last_mut().ok_or("begin with --connect URL")?;
        let path = Some(value.into());
        match arg.as_str() {
            "--ca" => target.ca = path,
            "--cert" => target.cert = path,
            "--key" => target.key = path,
            "--out-of-date" => target.options = IdentityOptions::new().accept_out_of_date(),
            _ => return Err(format!("{arg} is no option of this example").into()),
        }
    }
    Ok((targets, once))
}

/// Connects to all; ends with `once` only.
fn run(targets: &[Target], once: bool) -> Result<(), Box<dyn Error>> {
    let mut clients = Clients::new()?;
    for target in targets {
        clients.connect(target, once)?;
    }
    let mut outcomes = Vec::new();
    while !once || outcomes.len() < targets.len() {
        clients.turn()?;
        let ended = |client: &mut Client| client.ended.clone();
        outcomes = clients.each(ended).into_iter().flatten().collect();
    }
    let failures: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
    match failures.as_slice() {
        [] => Ok(()),
        failures => Err(failures.join("; ").into()),
    }
}

/// One context with a vhost for each target.
struct Clients {
    context: Context,
    list: Vec<(VhostId, ProtocolHandle<Client>, ClientConnectInfo)>,
    changed: Receiver<(VhostId, Result<(), String>)>,
}

impl Clients {
    fn new() -> Result<Self, Box<dyn Error>> {
        let (sender, changed) = channel();
        let config = ContextConfig::new().observer(Watcher(sender));
        Ok(Self {
            context: Context::new(config)?,
            list: Vec::new(),
            changed,
        })
    }

    fn connect(&mut self, target: &Target, once: bool) -> Result<(), Box<dyn Error>> {
        let ca = target.ca.as_ref().ok_or("--ca PEM is missing")?;
        let mut tls = ClientTls::new(Roots::from_pem_file(ca)?);
        match (&target.cert, &target.key) {
            (Some(cert), Some(key)) => {
                tls = tls.identity(target.options.clone().from_pem_files(cert, key)?);
            }
            (None, None) => {}
            _ => return Err("--cert and --key go together".into()),
        }
        let mut info = ClientConnectInfo::from_url(&target.url)?;
        if let Some(address) = target.address {
            info = info.addresses(vec![address])?;
        }
        if !once {
            let delays = [1, 2, 5, 10].map(Duration::from_secs);
            info = info.reconnect(RetryPolicy::builder().delays(delays).forever().build()?);
        }
        let mut config = VhostConfig::new("client").client_tls(tls);
        let client = config.add_protocol(
            "client",
            Client {
                label: target.label.clone(),
                once,
                answers: Vec::new(),
                ended: None,
            },
        );
        let vhost = self.context.create_vhost(config)?;
        self.context.watch_identity(vhost, Duration::from_secs(1))?;
        self.context.client_connect(vhost, info.clone())?;
        self.list.push((vhost, client, info));
        Ok(())
    }

    fn turn(&mut self) -> Result<(), Box<dyn Error>> {
        self.context.service(None)?;
        for (changed, outcome) in self.changed.try_iter() {
            let mut list = self.list.iter();
            let Some((vhost, client, info)) = list.find(|(vhost, _, _)| *vhost == changed) else {
                continue;
            };
            let client = self.context.protocol(*client).ok_or("no protocol")?;
            match outcome {
                Err(error) => println!("{}: the old certificate stays: {error}", client.label),
                Ok(()) => {
                    println!("{}: a new certificate is in use", client.label);
                    // One that was refused for the old certificate has not come back by itself.
                    if client.ended.take().is_some() {
                        self.context.client_connect(*vhost, info.clone())?;
                    }
                    self.context.drain_old_identity(*vhost);
                }
            }
        }
        Ok(())
    }

    /// Turns until the clients have had that many answers.
    fn until_answers(&mut self, wanted: [usize; 3]) -> Result<(), Box<dyn Error>> {
        while self.each(|client| client.answers.len()) != wanted {
            self.turn()?;
            for failure in self
                .each(|client| client.ended.clone())
                .into_iter()
                .flatten()
            {
                failure?;
            }
        }
        Ok(())
    }

    fn each<T>(&mut self, mut f: impl FnMut(&mut Client) -> T) -> Vec<T> {
        let mut all = Vec::new();
        for (_, client, _) in &self.list {
            all.extend(self.context.protocol(*client).map(&mut f));
        }
        all
    }
}

fn show() -> Result<(), Box<dyn Error>> {
    let pki = Pki::new("mtls_client")?;
    let address = greeter::start(&pki)?;
    let mut clients = Clients::new()?;
    for name in ["anna", "bert", "carl"] {
        let (cert, key) = pki.client(name)?;
        let target = Target {
            label: name.to_owned(),
            url: format!("wss://localhost:{}/", address.port()),
            address: Some(address),
            ca: Some(pki.ca()),
            cert: Some(cert),
            key: Some(key),
            options: IdentityOptions::new(),
        };
        clients.connect(&target, false)?;
    }
    clients.until_answers([1, 1, 1])?;
    println!("replacing the certificate of bert");
    pki.client("bert")?;
    clients.until_answers([1, 2, 1])?;
    clients.context.shutdown(Duration::from_secs(5));
    Ok(clients.context.run()?)
}
