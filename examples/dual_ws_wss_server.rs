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
//!     --crl PEM               which of them are revoked
//!     --deflate shared | takeover
//!                             permessage-deflate for clients that offer it
//!
//! Without `--cert` all is made: a throw-away CA, a certificate for localhost, and one for a
//! client, in files whose directory is printed. Whoever is not served is a line on stderr, with
//! the reason and the TLS alert that went out.

#[path = "support/args.rs"]
mod args;
#[path = "support/client_auth.rs"]
mod client_auth;
#[cfg(feature = "deflate")]
#[path = "support/deflate.rs"]
mod deflate;
#[path = "support/pki.rs"]
mod pki;

use std::error::Error;
use std::process::ExitCode;

use args::Args;
use client_auth::client_auth;
use pki::ServerFiles;
use wsloop::tls::{ClientAuth, Identity, ServerTls};
use wsloop::{
    Close, Context, ContextConfig, ContextObserver, Cx, Established, Limits, ListenConfig, Message,
    PlaintextPolicy, Protocol, RefusalReason, ServerRefusal, VhostConfig, Wsi,
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

/// Says whom the server did not serve, and why.
struct Refusals;

impl ContextObserver for Refusals {
    fn on_refused(&mut self, _: &mut Cx<'_>, refusal: &ServerRefusal) {
        let alert = match &refusal.reason {
            RefusalReason::Tls(error) => error.failure.alert(),
            _ => None,
        };
        let alert = alert.map_or_else(String::new, |alert| format!("; alert sent: {alert}"));
        let (peer, reason) = (refusal.peer, &refusal.reason);
        args::warn(format_args!("refused {peer}: {reason}{alert}"));
    }
}

const MESSAGE_MAX: usize = 64 * 1024 * 1024;
const HIGH_WATER: usize = 256 * 1024;
const GREETING: &str = "Hello. This port speaks ws, wss, http and https.\n";

fn main() -> ExitCode {
    args::exit("dual_ws_wss_server", serve(Args::new()))
}

fn serve(mut args: Args) -> Result<(), Box<dyn Error>> {
    let files = args.values(["--cert", "--key", "--client-ca", "--crl"])?;
    let [asked] = args.values::<String, 1>(["--client-auth"])?;
    #[cfg(feature = "deflate")]
    let [deflate] = args.values::<String, 1>(["--deflate"])?;
    let address = args.address("127.0.0.1:7681")?;
    let files = ServerFiles::or_made("dual_ws_wss_server", files)?;
    let identity = Identity::from_pem_files(&files.cert, &files.key)?;
    let client_auth = client_auth(asked.as_deref(), &files)?;
    let (plaintext, schemes): (_, &[_]) = match client_auth {
        // Nobody can show a certificate in the clear.
        ClientAuth::Required(_) => (PlaintextPolicy::Reject, &["wss"]),
        _ => (PlaintextPolicy::Serve, &["wss", "ws"]),
    };
    // The autobahn suite sends a message in 65 536 fragments.
    let limits = Limits::default()
        .with_message_bytes(MESSAGE_MAX)
        .with_output_bytes(2 * MESSAGE_MAX)
        .with_fragments(100_000);
    let mut context = Context::new(ContextConfig::new().observer(Refusals))?;
    let vhost = VhostConfig::new("localhost")
        .listen(ListenConfig::new(address).tls(plaintext))
        .server_tls(ServerTls::new(identity).client_auth(client_auth))
        .limits(limits)
        .page("/", "text/plain; charset=utf-8", GREETING)
        .protocol("echo", Echo);
    #[cfg(feature = "deflate")]
    let vhost = match deflate::config(deflate.as_deref())? {
        Some(deflate) => vhost.deflate(deflate),
        None => vhost,
    };
    let vhost = context.create_vhost(vhost)?;
    for address in context.listen_addrs(vhost) {
        for scheme in schemes {
            args::say(format_args!("echoing on {scheme}://{address}/"));
        }
    }
    Ok(context.run()?)
}
