//! A server that demands client certificates and answers each message with who has sent it.

use std::error::Error;
use std::net::SocketAddr;
use std::thread;

use wsloop::tls::{ClientAuth, ClientTrust, Identity, Roots, ServerTls};
use wsloop::{
    Close, Context, ContextConfig, Established, ListenConfig, Message, PlaintextPolicy, Protocol,
    VhostConfig, Wsi,
};

use super::pki::Pki;

struct Greeter;

impl Protocol for Greeter {
    type Session = ();

    fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        Ok(())
    }

    fn on_message(&mut self, wsi: &mut Wsi<'_>, _: &mut (), _: Message<'_>) -> Result<(), Close> {
        let answer = match wsi.peer_identity() {
            Some(client) if client.is_verified() => format!(
                "the server has verified us as {:?} by certificate {}",
                client.common_name().unwrap_or("nameless"),
                hex(client.serial().unwrap_or_default()),
            ),
            _ => "the server does not know who we are".to_owned(),
        };
        wsi.send_text(&answer)?;
        Ok(())
    }
}

/// Serves in a thread of its own, as `localhost`, for as long as the process lives.
pub(crate) fn start(pki: &Pki) -> Result<SocketAddr, Box<dyn Error>> {
    let (cert, key) = pki.server("server", &["localhost"])?;
    let trust = ClientTrust::new(Roots::from_pem_file(pki.ca())?);
    let tls = ServerTls::new(Identity::from_pem_files(cert, key)?)
        .client_auth(ClientAuth::Required(trust));
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let vhost = VhostConfig::new("localhost")
        .listen(ListenConfig::new(address).tls(PlaintextPolicy::Reject))
        .server_tls(tls)
        .protocol("greeter", Greeter);
    let mut context = Context::new(ContextConfig::new())?;
    let vhost = context.create_vhost(vhost)?;
    let address = *context.listen_addrs(vhost).first().ok_or("no address")?;
    thread::spawn(move || context.run());
    Ok(address)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
