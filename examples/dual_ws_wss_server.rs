//! An echo server that speaks ws and wss on one port, and answers `GET /` over http and https.
//!
//!     cargo run --example dual_ws_wss_server [ADDRESS:PORT] [OPTION VALUE]...
//!
//! The address is 127.0.0.1:7681 if it is not said. Options:
//!
//!     --cert PEM, --key PEM   the server's certificate chain and its key
//!     --client-auth none | optional | required | browsers
//!                             whether clients are asked for certificates (default: none);
//!                             `browsers` asks all but browsers, which cannot answer on wss://;
//!                             with `required` nothing is served in the clear
//!     --client-ca PEM         whose client certificates are good
//!
//! What is not given is made: a throw-away CA, a certificate for localhost, and one for a client,
//! in files whose directory is printed.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

#[path = "support/pki.rs"]
mod pki;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use pki::Pki;
use wsloop::tls::{ClientAuth, ClientSelector, ClientTrust, Identity, Roots, ServerTls};
use wsloop::{
    Close, Context, ContextConfig, Established, Limits, ListenConfig, Message, PlaintextPolicy,
    Protocol, VhostConfig, Wsi,
};

struct Echo;

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
        // A peer that sends but does not read is not read from either, until it has caught up.
        if wsi.buffered_out() > HIGH_WATER {
            wsi.pause_reading();
            wsi.request_writable();
        }
        Ok(())
    }

    fn on_writable(&mut self, wsi: &mut Wsi<'_>, _: &mut ()) -> Result<(), Close> {
        wsi.resume_reading();
        Ok(())
    }
}

const MESSAGE_MAX: usize = 64 * 1024 * 1024;
const HIGH_WATER: usize = 256 * 1024;
const GREETING: &str = "Hello. This port speaks ws, wss, http and https.\n";

fn main() -> ExitCode {
    match Options::from_args().and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dual_ws_wss_server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: Options) -> Result<(), Box<dyn Error>> {
    let (tls, _directory) = options.server_tls()?;
    let (plaintext, schemes): (_, &[_]) = match options.asking {
        // Nobody can show a certificate in the clear.
        Asking::All => (PlaintextPolicy::Reject, &["wss"]),
        _ => (PlaintextPolicy::Serve, &["wss", "ws"]),
    };
    // The autobahn suite sends a message in 65 536 fragments.
    let limits = Limits::default()
        .with_message_bytes(MESSAGE_MAX)
        .with_output_bytes(2 * MESSAGE_MAX)
        .with_fragments(100_000);
    let mut context = Context::new(ContextConfig::new())?;
    let vhost = VhostConfig::new("localhost")
        .listen(ListenConfig::new(options.address).tls(plaintext))
        .server_tls(tls)
        .limits(limits)
        .page("/", "text/plain; charset=utf-8", GREETING)
        .protocol("echo", Echo);
    let vhost = context.create_vhost(vhost)?;
    for address in context.listen_addrs(vhost) {
        for scheme in schemes {
            println!("echoing on {scheme}://{address}/");
        }
    }
    context.run()?;
    Ok(())
}

/// Who is asked for a certificate.
#[derive(PartialEq)]
enum Asking {
    /// All, and whoever has none is refused.
    All,
    AllWhoLike,
    AllButBrowsers,
    Nobody,
}

/// What the command line says.
struct Options {
    address: SocketAddr,
    identity: Option<(PathBuf, PathBuf)>,
    asking: Asking,
    client_ca: Option<PathBuf>,
}

impl Options {
    fn from_args() -> Result<Self, Box<dyn Error>> {
        let mut address = "127.0.0.1:7681".to_owned();
        let mut asking = Asking::Nobody;
        let (mut cert, mut key, mut client_ca) = (None, None, None);
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            if !arg.starts_with('-') {
                address = arg;
                continue;
            }
            let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
            match arg.as_str() {
                "--cert" => cert = Some(value()?.into()),
                "--key" => key = Some(value()?.into()),
                "--client-auth" => asking = Asking::from_arg(&value()?)?,
                "--client-ca" => client_ca = Some(value()?.into()),
                _ => return Err(format!("{arg} is no option of this example").into()),
            }
        }
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err("--cert and --key go together".into()),
        };
        Ok(Self {
            address: address.parse().map_err(|_| {
                format!("{address:?} is not an address and port, like 127.0.0.1:7681")
            })?,
            identity,
            asking,
            client_ca,
        })
    }

    /// The settings, and the directory of what was made for them.
    fn server_tls(&self) -> Result<(ServerTls, Option<Pki>), Box<dyn Error>> {
        let pki = match (&self.identity, &self.client_ca) {
            (Some(_), Some(_)) => None,
            (Some(_), None) if self.asking == Asking::Nobody => None,
            _ => Some(Pki::new("dual_ws_wss_server")?),
        };
        let mut identity = self.identity.clone();
        let mut client_ca = self.client_ca.clone();
        if let Some(pki) = &pki {
            let made = pki.server("server", &["localhost", "127.0.0.1", "::1"])?;
            identity.get_or_insert(made);
            client_ca.get_or_insert_with(|| pki.ca());
            pki.client("client")?;
            println!(
                "made ca.pem, server.pem, server.key, client.pem and client.key in {}",
                pki.directory().display()
            );
        }
        let (cert, key) = identity.ok_or("no certificate")?;
        let tls = ServerTls::new(Identity::from_pem_files(cert, key)?);
        let trust = || -> Result<ClientTrust, Box<dyn Error>> {
            let path = client_ca.as_ref().ok_or("no --client-ca")?;
            Ok(ClientTrust::new(Roots::from_pem_file(path)?))
        };
        let client_auth = match self.asking {
            Asking::All => ClientAuth::Required(trust()?),
            Asking::AllWhoLike => ClientAuth::Optional(trust()?),
            Asking::AllButBrowsers => {
                ClientAuth::OptionalIf(ClientSelector::not_a_browser(), trust()?)
            }
            Asking::Nobody => ClientAuth::None,
        };
        Ok((tls.client_auth(client_auth), pki))
    }
}

impl Asking {
    fn from_arg(arg: &str) -> Result<Self, String> {
        match arg {
            "none" => Ok(Self::Nobody),
            "optional" => Ok(Self::AllWhoLike),
            "required" => Ok(Self::All),
            "browsers" => Ok(Self::AllButBrowsers),
            _ => Err(format!(
                "--client-auth {arg}: say none, optional, required or browsers"
            )),
        }
    }
}
