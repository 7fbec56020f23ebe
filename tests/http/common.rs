//! A handler that writes down what it is told, and what a client reads.

use wsloop::http::HeaderList;
use wsloop::{
    BodyLength, Cx, ExchangeId, ExchangeOutcome, Http, HttpFailure, HttpHandler, HttpRequest,
    Mount, Response, TimerTag, VhostConfig,
};

use crate::support::{Log, Recorder, World, addr};

type Act = Box<dyn FnMut(&mut Http<'_>) -> Result<(), HttpFailure> + Send>;

/// Answers `echo` requests with their body, in pieces, and others as the test says.
#[derive(Default)]
pub struct Handler {
    pub log: Log,
    pub request: Option<Act>,
    pub body_end: Option<Act>,
    pub writable: Option<Act>,
    pub timer: Option<Act>,
    pub read_closed: Option<Act>,
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
        _: &mut Http<'_>,
        exchange: &mut Collected,
        data: &[u8],
    ) -> Result<(), HttpFailure> {
        exchange.body.extend_from_slice(data);
        Ok(())
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

    fn on_done(&mut self, _: &mut Cx<'_>, _: ExchangeId, _: Collected, outcome: &ExchangeOutcome) {
        self.log.push(format!("done {outcome:?}"));
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
