//! A 200-byte response from `wsloop`: `ours PORT [CERT KEY]`.

use std::error::Error;
use std::net::SocketAddr;

use wsloop::tls::{Identity, ServerTls};
use wsloop::{Context, ContextConfig, ListenConfig, Mount, PlaintextPolicy, Response, VhostConfig};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let port = args.first().ok_or("ours PORT [CERT KEY]")?.parse()?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let vhost = VhostConfig::new("localhost")
        .mount(Mount::call("/", |_| Response::text(200, "x".repeat(200))));
    let vhost = match args.get(1..3) {
        Some([cert, key]) => vhost
            .server_tls(ServerTls::new(Identity::from_pem_files(cert, key)?))
            .listen(ListenConfig::new(address).tls(PlaintextPolicy::Reject)),
        _ => vhost.listen(address),
    };
    let mut context = Context::new(ContextConfig::new())?;
    context.create_vhost(vhost)?;
    Ok(context.run()?)
}
