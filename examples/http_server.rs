//! A page, a JSON route, server-sent events and a WebSocket on one port.
//!
//!     cargo run --release --example http_server [ADDR:PORT]
//!
//! Then open http://127.0.0.1:7681/ in a browser, or:
//!
//!     curl http://127.0.0.1:7681/api/connections
//!     curl -N http://127.0.0.1:7681/events
//!     curl -d 'any body' http://127.0.0.1:7681/upload

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wsloop::http::HeaderList;
use wsloop::http::event_stream::{CONTENT_TYPE, Event};
use wsloop::{
    BodyLength, Close, CloseCause, Context, ContextConfig, Cx, Established, Http, HttpFailure,
    HttpHandler, HttpRequest, Message, Mount, Protocol, Response, TimerTag, VhostConfig, Wsi,
    WsiId,
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

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1);
    let address: SocketAddr = address.as_deref().unwrap_or("127.0.0.1:7681").parse()?;
    let open = Open::default();
    let counted = Arc::clone(&open);
    let vhost = VhostConfig::new("localhost")
        .listen(address)
        .protocol("echo", Echo(open))
        .mount(Mount::protocol("/ws", "echo"))
        .mount(Mount::response("/", Response::html(200, PAGE)).exact())
        .mount(Mount::handler("/events", Clock))
        .mount(Mount::handler("/upload", Upload).body_bytes(1 << 30))
        .mount(Mount::call("/api/connections", move |_| {
            let open = counted.load(Ordering::Relaxed);
            Response::json(200, format!("{{\"open\":{open}}}\n"))
        }));
    let mut context = Context::new(ContextConfig::new())?;
    let vhost = context.create_vhost(vhost)?;
    println!("listening on {:?}", context.listen_addrs(vhost));
    context.run()?;
    Ok(())
}

const PAGE: &str = include_str!("http_server.html");
