//! A page, a JSON route, uploads, server-sent events, files and a WebSocket on one port.
//!
//!     cargo run --release --example http_server [ADDR:PORT] [--dir PATH]
//!         [--cert PEM --key PEM [--client-auth none|optional|required|browsers --client-ca PEM]]
//!
//! `--dir` is served below `/files/`. With a certificate the port speaks https and wss as well, or
//! instead if clients have to show one.
//!
//! Then open http://127.0.0.1:7681/ in a browser, or:
//!
//!     curl http://127.0.0.1:7681/api/connections
//!     curl -N http://127.0.0.1:7681/events
//!     curl -d 'any body' http://127.0.0.1:7681/upload

#[path = "support/args.rs"]
mod args;
#[path = "support/client_auth.rs"]
mod client_auth;
#[path = "support/pki.rs"]
mod pki;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use args::Args;
use client_auth::client_auth;
use pki::ServerFiles;
use wsloop::http::HeaderList;
use wsloop::http::event_stream::{CONTENT_TYPE, Event};
use wsloop::tls::{ClientAuth, Identity, ServerTls};
use wsloop::{
    BodyLength, Close, CloseCause, Context, ContextConfig, Cx, Established, Http, HttpFailure,
    HttpHandler, HttpRequest, ListenConfig, Message, Mount, PlaintextPolicy, Protocol, Response,
    StaticFiles, TimerTag, VhostConfig, Wsi, WsiId,
};

/// How many WebSockets are open: what the handlers and the protocol share.
type Open = Arc<AtomicUsize>;

struct Echo(Open);

impl Protocol for Echo {
    type Session = ();

    fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        wsi.send(message)?;
        Ok(())
    }

    fn on_closed(&mut self, _: &mut Cx<'_>, _: WsiId, (): (), _: &CloseCause) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Server-sent events: a response that goes on, one event a second.
struct Clock;

impl HttpHandler for Clock {
    /// How many events this client has got.
    type Exchange = u64;

    fn on_request(&mut self, http: &mut Http<'_>, _: &HttpRequest<'_>) -> Result<u64, HttpFailure> {
        let mut headers = HeaderList::new();
        headers.push("Content-Type", CONTENT_TYPE)?;
        headers.push("Cache-Control", "no-store")?;
        http.start(200, &headers, BodyLength::Unknown)?;
        http.set_timer(Duration::ZERO, TimerTag(0));
        Ok(0)
    }

    fn on_timer(
        &mut self,
        http: &mut Http<'_>,
        count: &mut u64,
        tag: TimerTag,
    ) -> Result<(), HttpFailure> {
        *count += 1;
        // A client that reads too slowly is dropped here: `write` answers `Full`.
        http.write(Event::data(format!("tick {count}")).encode().as_bytes())?;
        http.set_timer(Duration::from_secs(1), tag);
        Ok(())
    }
}

/// Counts the bytes of a request's body as they come.
struct Upload;

impl HttpHandler for Upload {
    type Exchange = u64;

    fn on_request(&mut self, _: &mut Http<'_>, _: &HttpRequest<'_>) -> Result<u64, HttpFailure> {
        Ok(0)
    }

    fn on_body(
        &mut self,
        _: &mut Http<'_>,
        seen: &mut u64,
        data: &[u8],
    ) -> Result<(), HttpFailure> {
        *seen += data.len() as u64;
        Ok(())
    }

    fn on_body_end(&mut self, http: &mut Http<'_>, seen: &mut u64) -> Result<(), HttpFailure> {
        http.respond(Response::json(200, format!("{{\"bytes\":{seen}}}\n")))?;
        Ok(())
    }
}

fn main() -> ExitCode {
    args::exit("http_server", serve(Args::new()))
}

fn serve(mut args: Args) -> Result<(), Box<dyn Error>> {
    let [dir] = args.values::<PathBuf, 1>(["--dir"])?;
    let files = args.values(["--cert", "--key", "--client-ca", "--crl"])?;
    let [asked] = args.values::<String, 1>(["--client-auth"])?;
    let listen = ListenConfig::new(args.address("127.0.0.1:7681")?);
    let open = Open::default();
    let counted = Arc::clone(&open);
    let mut vhost = VhostConfig::new("localhost")
        .protocol("echo", Echo(open))
        .mount(Mount::protocol("/ws", "echo"))
        .mount(Mount::response("/", Response::html(200, PAGE)).exact())
        .mount(Mount::handler("/events", Clock))
        .mount(Mount::handler("/upload", Upload).body_bytes(1 << 30))
        .mount(Mount::call("/api/connections", move |_| {
            let open = counted.load(Ordering::Relaxed);
            Response::json(200, format!("{{\"open\":{open}}}\n"))
        }));
    if let Some(dir) = dir {
        vhost = vhost.mount(Mount::handler("/files", StaticFiles::new(dir)?));
    }
    let vhost = if files.iter().any(Option::is_some) || asked.is_some() {
        let files = ServerFiles::or_made("http_server", files)?;
        let identity = Identity::from_pem_files(&files.cert, &files.key)?;
        let client_auth = client_auth(asked.as_deref(), &files)?;
        let plaintext = match client_auth {
            ClientAuth::Required(_) => PlaintextPolicy::Reject,
            _ => PlaintextPolicy::Serve,
        };
        vhost
            .server_tls(ServerTls::new(identity).client_auth(client_auth))
            .listen(listen.tls(plaintext))
    } else {
        vhost.listen(listen)
    };
    let mut context = Context::new(ContextConfig::new())?;
    let vhost = context.create_vhost(vhost)?;
    let addresses = context.listen_addrs(vhost);
    args::say(format_args!("listening on {addresses:?}"));
    Ok(context.run()?)
}

const PAGE: &str = include_str!("http_server.html");
