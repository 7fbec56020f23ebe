//! TLS handshakes that explain themselves, step by step.
//!
//!     cargo run --example tls_trace                       against a server in the same process
//!     cargo run --example tls_trace URL --ca PEM          one connection to that server
//!
//! Without arguments four handshakes are shown, each as both sides see it: a good one, one that is
//! resumed, one of a client that has no certificate and should have one, and one with a server
//! whose certificate is for another name. With an URL, ends with status 1 if there was no
//! connection.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

#[path = "support/pki.rs"]
mod pki;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

use pki::Pki;
use wsloop::tls::{ClientAuth, ClientTls, ClientTrust, Identity, Roots, ServerTls};
use wsloop::{
    ClientConnectInfo, Close, CloseCause, ConnectError, Context, ContextConfig, ContextObserver,
    Cx, Established, ListenConfig, PlaintextPolicy, Protocol, ProtocolHandle, Side, TlsReport,
    VhostConfig, VhostId, Wsi, WsiId,
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
    outcome: Option<Result<(), String>>,
}

impl Protocol for Talk {
    type Session = ();

    fn on_established(&mut self, wsi: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        if wsi.side() == Side::Client {
            wsi.close(Close::normal());
        }
        Ok(())
    }

    fn on_closed(&mut self, _: &mut Cx<'_>, _: WsiId, _: (), _: &CloseCause) {
        self.outcome = Some(Ok(()));
    }

    fn on_connect_error(&mut self, _: &mut Cx<'_>, _: WsiId, error: &ConnectError) {
        self.outcome = Some(Err(error.to_string()));
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args.as_slice() {
        [] => show(),
        [url, "--ca", ca] | ["--ca", ca, url] => trace(url, ca),
        _ => Err("usage: tls_trace [wss://HOST[:PORT]/PATH --ca PEM]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tls_trace: {error}");
            ExitCode::FAILURE
        }
    }
}

fn trace(url: &str, ca: &str) -> Result<(), Box<dyn Error>> {
    let info = ClientConnectInfo::from_url(url)?;
    let mut client = Client::new(Roots::from_pem_file(ca)?)?;
    Ok(client.connect(info)?)
}

fn show() -> Result<(), Box<dyn Error>> {
    let pki = Pki::new("tls_trace")?;
    let roots = Roots::from_pem_file(pki.ca())?;
    let mut client = Client::new(roots.clone())?;
    let (cert, key) = pki.server("server", &["open.test", "strict.test"])?;
    let tls = ServerTls::new(Identity::from_pem_files(cert, key)?);
    let strict = ClientAuth::Required(ClientTrust::new(roots));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let address = client.serve("open.test", any, tls.clone())?;
    client.serve("strict.test", address, tls.client_auth(strict))?;
    for (title, host) in [
        ("A good handshake", "open.test"),
        ("The same again, resumed", "open.test"),
        ("A client without the certificate it needs", "strict.test"),
        ("A server with a certificate for other names", "other.test"),
    ] {
        println!("{title}: wss://{host}/");
        let url = format!("wss://{host}:{}/", address.port());
        let info = ClientConnectInfo::from_url(&url)?.address("127.0.0.1")?;
        match client.connect(info) {
            Ok(()) => println!("  The client has its connection.\n"),
            Err(error) => println!("  The client was told: {error}\n"),
        }
    }
    Ok(())
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

    fn serve(
        &mut self,
        name: &str,
        address: SocketAddr,
        tls: ServerTls,
    ) -> Result<SocketAddr, Box<dyn Error>> {
        let config = VhostConfig::new(name)
            .listen(ListenConfig::new(address).tls(PlaintextPolicy::Reject))
            .server_tls(tls)
            .trace_tls()
            .protocol("talk", Talk::default());
        let id = self.context.create_vhost(config)?;
        Ok(*self.context.listen_addrs(id).first().ok_or("no address")?)
    }

    /// Connects, and waits until both sides have ended.
    fn connect(&mut self, info: ClientConnectInfo) -> Result<(), String> {
        let connecting = self.context.client_connect(self.vhost, info);
        connecting.map_err(|error| error.to_string())?;
        while self.context.connections() > 0 {
            let turn = self.context.service(None);
            turn.map_err(|error| error.to_string())?;
        }
        let talk = self.context.protocol(self.talk).ok_or("no protocol")?;
        talk.outcome.take().ok_or("no outcome")?
    }
}
