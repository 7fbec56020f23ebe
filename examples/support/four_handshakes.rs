//! Handshakes with servers in the same process: good ones, and some that one of the sides refuses.

#[path = "pki.rs"]
mod pki;

use std::error::Error;
use std::net::SocketAddr;

use wsloop::tls::{ClientAuth, ClientTrust, Identity, Roots, ServerTls};
use wsloop::{ClientConnectInfo, ListenConfig, PlaintextPolicy, VhostConfig};

use crate::{Client, Talk};
use pki::Pki;

pub(crate) fn show() -> Result<(), Box<dyn Error>> {
    let pki = Pki::new("tls_trace")?;
    let roots = Roots::from_pem_file(pki.ca())?;
    let mut client = Client::new(roots.clone())?;
    let (cert, key) = pki.server("server", &["open.test", "strict.test"])?;
    let tls = ServerTls::new(Identity::from_pem_files(cert, key)?);
    let strict = ClientAuth::Required(ClientTrust::new(roots));
    let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
    for (name, client_auth) in [("open.test", ClientAuth::None), ("strict.test", strict)] {
        let config = VhostConfig::new(name)
            .listen(ListenConfig::new(address).tls(PlaintextPolicy::Reject))
            .server_tls(tls.clone().client_auth(client_auth))
            .trace_tls()
            .protocol("talk", Talk::default());
        let vhost = client.context.create_vhost(config)?;
        address = *client
            .context
            .listen_addrs(vhost)
            .first()
            .ok_or("no address")?;
    }
    for (title, host) in [
        ("A good handshake", "open.test"),
        ("The same again, resumed", "open.test"),
        ("A client without the certificate it needs", "strict.test"),
        ("A server with a certificate for other names", "other.test"),
    ] {
        let url = format!("wss://{host}:{}/", address.port());
        println!("{title}: {url}");
        match client.connect(ClientConnectInfo::from_url(&url)?.address("127.0.0.1")?) {
            Ok(()) => println!("  The client has its connection.\n"),
            Err(error) => println!("  The client was told: {error}\n"),
        }
    }
    Ok(())
}
