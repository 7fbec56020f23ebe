//! A handler that writes down what it is told, and what a client reads.

use std::sync::{Arc, Mutex};

use wsloop::http::HeaderList;
use wsloop::{
    BodyLength, Cx, ExchangeId, ExchangeOutcome, Http, HttpFailure, HttpHandler, HttpRequest,
    Mount, Response, TimerTag, VhostConfig,
};

use crate::support::{Log, Recorder, World, addr};

pub type Act = Box<dyn FnMut(&mut Http<'_>) -> Result<(), HttpFailure> + Send>;
pub type CxAct = Box<dyn FnMut(&mut Cx<'_>) + Send>;

/// Answers `echo` requests with their body, in pieces, and others as the test says.
#[derive(Default)]
pub struct Handler {
    pub log: Log,
    pub request: Option<Act>,
    pub body: Option<Act>,
    pub body_end: Option<Act>,
    pub writable: Option<Act>,
    pub timer: Option<Act>,
    pub read_closed: Option<Act>,
    pub done: Option<CxAct>,
    pub wake: Option<CxAct>,
    pub free_timer: Option<CxAct>,
}

impl Handler {
    pub fn new(log: &Log) -> Self {
        Self {
            log: log.clone(),
            ..Self::default()
        }
    }
}

fn act(act: &mut Option<Act>, http: &mut Http<'_>) -> Result<(), HttpFailure> {
    act.as_mut().map_or(Ok(()), |act| act(http))
}

/// What an exchange collects.
#[derive(Default)]
pub struct Collected {
    body: Vec<u8>,
    echo: bool,
}

impl HttpHandler for Handler {
    type Exchange = Collected;

    fn on_request(
        &mut self,
        http: &mut Http<'_>,
        request: &HttpRequest<'_>,
    ) -> Result<Collected, HttpFailure> {
        self.log.push(format!(
            "request {} {} below {:?}",
            request.method(),
            request.head().target(),
            request.path_below()
        ));
        act(&mut self.request, http)?;
        Ok(Collected {
            body: Vec::new(),
            echo: request.path().ends_with("/echo"),
        })
    }

    fn on_body(
        &mut self,
        http: &mut Http<'_>,
        exchange: &mut Collected,
        data: &[u8],
    ) -> Result<(), HttpFailure> {
        exchange.body.extend_from_slice(data);
        act(&mut self.body, http)
    }

    fn on_body_end(
        &mut self,
        http: &mut Http<'_>,
        exchange: &mut Collected,
    ) -> Result<(), HttpFailure> {
        let body = String::from_utf8_lossy(&exchange.body).into_owned();
        self.log.push(format!("body {body:?}"));
        act(&mut self.body_end, http)?;
        if exchange.echo {
            http.start(200, &HeaderList::new(), BodyLength::Unknown)?;
            for piece in exchange.body.chunks(4) {
                http.write(piece)?;
            }
            http.finish()?;
        }
        Ok(())
    }

    fn on_writable(&mut self, http: &mut Http<'_>, _: &mut Collected) -> Result<(), HttpFailure> {
        self.log.push("writable");
        act(&mut self.writable, http)
    }

    fn on_timer(
        &mut self,
        http: &mut Http<'_>,
        _: &mut Collected,
        tag: TimerTag,
    ) -> Result<(), HttpFailure> {
        self.log.push(format!("timer {}", tag.0));
        act(&mut self.timer, http)
    }

    fn on_read_closed(
        &mut self,
        http: &mut Http<'_>,
        _: &mut Collected,
    ) -> Result<(), HttpFailure> {
        self.log.push("read closed");
        match &mut self.read_closed {
            Some(act) => act(http),
            None => Err(HttpFailure::abort()),
        }
    }

    fn on_done(&mut self, cx: &mut Cx<'_>, _: ExchangeId, _: Collected, outcome: &ExchangeOutcome) {
        self.log.push(format!("done {outcome:?}"));
        if let Some(act) = &mut self.done {
            act(cx);
        }
    }

    fn on_free_timer(&mut self, cx: &mut Cx<'_>, tag: TimerTag) {
        self.log.push(format!("free timer {}", tag.0));
        if let Some(act) = &mut self.free_timer {
            act(cx);
        }
    }

    fn on_wake(&mut self, cx: &mut Cx<'_>) {
        self.log.push("handler wakes");
        if let Some(act) = &mut self.wake {
            act(cx);
        }
    }
}

/// A vhost with a protocol, the handler at `/h` and a closure at `/hi`.
pub fn world(make: impl FnOnce(&Log) -> Handler) -> World {
    World::with(|log| vhost(log, make(log)))
}

pub fn vhost(log: &Log, handler: Handler) -> VhostConfig {
    VhostConfig::new("a.test")
        .listen(addr())
        .protocol("p", Recorder::echo(log))
        .mount(Mount::handler("/h", handler))
        .mount(Mount::call("/hi", |request| {
            Response::text(200, format!("{} {}\n", request.method(), request.path()))
        }))
        .mount(Mount::redirect("/old", 308, "/new"))
        .page("/", "text/html", "<p>page")
}

/// The text that a client has got.
pub fn read(peer: &wsloop::sim::SimPeer) -> String {
    String::from_utf8(peer.read()).unwrap()
}

pub fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n").into_bytes()
}

/// The bodies of responses that all declare their length.
pub fn bodies(mut text: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    while let Some((head, rest)) = text.split_once("\r\n\r\n") {
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.map_or(0, |length| length.parse().unwrap());
        let (body, rest) = rest.split_at(length);
        bodies.push(body.to_owned());
        text = rest;
    }
    assert_eq!(text, "");
    bodies
}

/// A request with a body of that length, of which nothing is sent yet.
pub fn post(target: &str, length: usize) -> Vec<u8> {
    format!("POST {target} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n")
        .into_bytes()
}

/// A request whose body comes in chunks.
pub fn post_chunked(target: &str) -> Vec<u8> {
    format!("POST {target} HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n")
        .into_bytes()
}

/// The statuses of responses, of which all but chunked ones declare their length.
pub fn statuses(text: &str) -> Vec<u16> {
    let lines = text.match_indices("HTTP/1.1 ");
    lines
        .map(|(at, line)| text[at + line.len()..][..3].parse().unwrap())
        .collect()
}

/// The ids of exchanges, for those who answer from elsewhere.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Vec<ExchangeId>>>);

impl Kept {
    /// An `on_request` that keeps the id.
    pub fn keeper(&self) -> Option<Act> {
        let kept = self.clone();
        Some(Box::new(move |http| {
            kept.0.lock().unwrap().push(http.id());
            Ok(())
        }))
    }

    /// The latest one.
    pub fn id(&self) -> ExchangeId {
        *self.0.lock().unwrap().last().unwrap()
    }

    pub fn all(&self) -> Vec<ExchangeId> {
        self.0.lock().unwrap().clone()
    }
}
