//! Several vhosts with certificates of their own on one port, chosen by the name that the client
//! sends in its ClientHello (SNI).
//!
//!     cargo run --example sni_vhosts
//!
//! A client in the same process goes to each by name, to a name that nobody has, and to no name
//! at all; it prints which certificate and which vhost answered.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

#[path = "support/pki.rs"]
mod pki;

use std::error::Error;
use std::net::SocketAddr;

use pki::Pki;
use wsloop::tls::{ClientTls, Identity, Roots, ServerTls};
use wsloop::{
    ClientConnectInfo, Close, ConnectError, Context, ContextConfig, Cx, Established, ListenConfig,
    Message, PlaintextPolicy, Protocol, VhostConfig, VhostId, Wsi, WsiId,
};

/// Tells everybody which vhost it belongs to.
struct Site {
    vhost: &'static str,
}

impl Protocol for Site {
    type Session = ();

    fn on_established(&mut self, wsi: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        wsi.send_text(self.vhost)?;
        Ok(())
    }
}

/// Keeps whose certificate it was shown and what the vhost said.
#[derive(Default)]
struct Visitor {
    answer: Option<String>,
}

impl Protocol for Visitor {
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
        if let (Message::Text(vhost), Some(server)) = (message, wsi.peer_identity()) {
            let names = server.dns_names().join(", ");
            self.answer = Some(format!("certificate for {names}; vhost {vhost}"));
        }
        Err(Close::normal())
    }

    fn on_connect_error(&mut self, _: &mut Cx<'_>, _: WsiId, error: &ConnectError) {
        self.answer = Some(format!("refused: {}", error.failure()));
    }
}

const SITES: [&str; 4] = ["default.test", "a.test", "b.test", "*.c.test"];

fn main() -> Result<(), Box<dyn Error>> {
    let pki = Pki::new("sni_vhosts")?;
    let mut context = Context::new(ContextConfig::new())?;
    let address = open_sites(&mut context, &pki)?;

    let roots = Roots::from_pem_file(pki.ca())?;
    let mut config = VhostConfig::new("client").client_tls(ClientTls::new(roots));
    let visitor = config.add_protocol("visitor", Visitor::default());
    let client = context.create_vhost(config)?;
    let mut visit = |label: &str, info: ClientConnectInfo| -> Result<(), Box<dyn Error>> {
        context.client_connect(client, info)?;
        loop {
            context.service(None)?;
            let visitor = context.protocol(visitor).ok_or("no protocol")?;
            if let Some(answer) = visitor.answer.take() {
                println!("{label}: {answer}");
                return Ok(());
            }
        }
    };

    let to = |host: &str| -> Result<ClientConnectInfo, Box<dyn Error>> {
        let url = format!("wss://{host}:{}/", address.port());
        Ok(ClientConnectInfo::from_url(&url)?.address("127.0.0.1")?)
    };
    for host in ["a.test", "b.test", "any.c.test", "unknown.test"] {
        visit(host, to(host)?)?;
    }
    // What the default vhost shows is not for these names, so a client that wants it says so.
    let unknown = to("unknown.test")?.verify_name("default.test");
    visit("unknown.test, if default.test is good enough", unknown)?;
    let nameless = to("127.0.0.1")?.verify_name("default.test");
    visit("no name, if default.test is good enough", nameless)
}

/// Makes the vhosts; the first one listens on a free port, the others join it. The first is also
/// the default of the listener.
fn open_sites(context: &mut Context, pki: &Pki) -> Result<SocketAddr, Box<dyn Error>> {
    let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
    for (number, vhost) in SITES.into_iter().enumerate() {
        let (cert, key) = pki.server(&format!("site-{number}"), &[vhost])?;
        let config = VhostConfig::new(vhost)
            .listen(ListenConfig::new(address).tls(PlaintextPolicy::Reject))
            .server_tls(ServerTls::new(Identity::from_pem_files(cert, key)?))
            .protocol("site", Site { vhost });
        let id: VhostId = context.create_vhost(config)?;
        address = *context.listen_addrs(id).first().ok_or("no address")?;
    }
    Ok(address)
}
