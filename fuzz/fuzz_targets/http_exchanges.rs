//! A whole server on a simulated network, and all that one client sends: requests, bodies, an
//! upgrade. Every split of the same bytes gets the same responses, every exchange ends once, and
//! nothing is kept.
#![no_main]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use wsloop::sim::Net;
use wsloop::{
    BodyLength, Context, ContextConfig, Cx, ExchangeId, ExchangeOutcome, Http, HttpFailure,
    HttpHandler, HttpRequest, Limits, Mount, Protocol, Response, TimerTag, VhostConfig,
};

fuzz_target!(|bytes: &[u8]| {
    let whole = run(bytes, [], usize::MAX);
    assert_eq!(whole, run(bytes, cuts(bytes), usize::MAX));
    assert_eq!(whole, run(bytes, 0..bytes.len(), usize::MAX));
    assert_eq!(whole, run(bytes, [], 3));
});

/// What the client reads, and whether the server has ended the connection.
fn run(bytes: &[u8], cuts: impl IntoIterator<Item = usize>, io: usize) -> (Vec<u8>, bool) {
    let net = Net::new(0);
    net.limit_io(io);
    let mut context = Context::simulated(&net, ContextConfig::new()).expect("nothing is opened");
    let counts = Arc::new(Counts::default());
    let address = "10.0.0.1:80".parse().expect("an address");
    context
        .create_vhost(config(&counts).listen(std::net::SocketAddr::from(address)))
        .expect("it is fit to be made");
    let peer = net.dial(address).expect("it listens");
    let mut turn = |times: usize| {
        for _ in 0..times {
            context
                .service(Some(Duration::ZERO))
                .expect("no peer can cause an error");
        }
        assert!(context.memory() < 64 * 1024 + 32 * bytes.len());
    };
    turn(4);
    let (mut at, mut got) = (0, Vec::new());
    for cut in cuts.into_iter().chain([bytes.len()]) {
        let _ = peer.write(&bytes[at..cut]);
        at = cut;
        turn(3);
        got.extend(peer.read());
    }
    // Each turn moves at least a byte each way.
    turn(if io < 4096 { 200 + 40 * bytes.len() } else { 8 });
    got.extend(peer.read());
    let ended = peer.ended() || peer.was_reset();
    drop(peer);
    turn(8);
    assert_eq!(context.connections(), 0);
    assert_eq!(counts.begun.load(Relaxed), counts.done.load(Relaxed));
    (got, ended)
}

fn config(counts: &Arc<Counts>) -> VhostConfig {
    let mut limits = Limits::default();
    limits.body_bytes = 256;
    VhostConfig::new("a.test")
        .limits(limits)
        .protocol("p", Quiet)
        .mount(Mount::handler("/e", Echo(Arc::clone(counts), Manner::Echo)))
        .mount(Mount::handler(
            "/s",
            Echo(Arc::clone(counts), Manner::Stream),
        ))
        .mount(Mount::handler("/n", Echo(Arc::clone(counts), Manner::No)))
        .mount(Mount::redirect("/o", 308, "/e"))
        .mount(Mount::response("/", Response::text(200, "page\n")))
}

#[derive(Default)]
struct Counts {
    begun: AtomicUsize,
    done: AtomicUsize,
}

#[derive(Clone, Copy)]
enum Manner {
    Echo,
    No,
    Stream,
}

struct Echo(Arc<Counts>, Manner);

impl HttpHandler for Echo {
    type Exchange = Vec<u8>;

    fn on_request(
        &mut self,
        _: &mut Http<'_>,
        request: &HttpRequest<'_>,
    ) -> Result<Vec<u8>, HttpFailure> {
        if let Manner::No = self.1 {
            return Err(Response::text(403, "no\n").into());
        }
        self.0.begun.fetch_add(1, Relaxed);
        Ok(request.method().as_bytes().to_vec())
    }

    fn on_body(
        &mut self,
        _: &mut Http<'_>,
        body: &mut Vec<u8>,
        data: &[u8],
    ) -> Result<(), HttpFailure> {
        body.extend_from_slice(data);
        Ok(())
    }

    fn on_body_end(&mut self, http: &mut Http<'_>, body: &mut Vec<u8>) -> Result<(), HttpFailure> {
        if let Manner::Echo = self.1 {
            http.respond(Response::new(200).body(std::mem::take(body)))?;
            return Ok(());
        }
        http.start(200, &Default::default(), BodyLength::Unknown)?;
        http.request_writable();
        Ok(())
    }

    fn on_writable(&mut self, http: &mut Http<'_>, body: &mut Vec<u8>) -> Result<(), HttpFailure> {
        let rest = body.split_off(body.len().min(100));
        http.write(body)?;
        *body = rest;
        if body.is_empty() {
            http.finish()?;
        } else {
            http.request_writable();
        }
        Ok(())
    }

    fn on_timer(
        &mut self,
        _: &mut Http<'_>,
        _: &mut Vec<u8>,
        _: TimerTag,
    ) -> Result<(), HttpFailure> {
        unreachable!("no timer was set")
    }

    fn on_done(&mut self, _: &mut Cx<'_>, _: ExchangeId, _: Vec<u8>, _: &ExchangeOutcome) {
        self.0.done.fetch_add(1, Relaxed);
    }
}

/// Takes what comes.
struct Quiet;

impl Protocol for Quiet {
    type Session = ();

    fn on_established(
        &mut self,
        _: &mut wsloop::Wsi<'_>,
        _: &wsloop::Established<'_>,
    ) -> Result<(), wsloop::Close> {
        Ok(())
    }
}

/// Growing offsets: the lengths of the pieces are bytes of the stream itself.
fn cuts(stream: &[u8]) -> Vec<usize> {
    let mut cuts = Vec::new();
    let mut end = 0;
    while let Some(&byte) = stream.get(end) {
        end += 1 + usize::from(byte) % 37;
        cuts.push(end.min(stream.len()));
    }
    cuts
}
