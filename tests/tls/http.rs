//! Plain HTTP over TLS: several requests on one connection.

use std::time::Duration;

use wsloop::{
    Cx, ExchangeId, ExchangeOutcome, Http, HttpFailure, HttpHandler, HttpRequest, Mount, Response,
    VhostConfig,
};

use super::lab::{Lab, TlsStranger, record_types, rustls_client, server_tls};
use crate::testpki::Pki;

/// Sends bodies back; lets them come in pieces of its own choice.
struct Echo {
    pauses: bool,
}

impl HttpHandler for Echo {
    type Exchange = Vec<u8>;

    fn on_request(
        &mut self,
        _: &mut Http<'_>,
        request: &HttpRequest<'_>,
    ) -> Result<Vec<u8>, HttpFailure> {
        assert!(request.is_tls());
        Ok(Vec::new())
    }

    fn on_body(
        &mut self,
        http: &mut Http<'_>,
        body: &mut Vec<u8>,
        data: &[u8],
    ) -> Result<(), HttpFailure> {
        body.extend_from_slice(data);
        if self.pauses {
            http.pause_reading();
            http.set_timer(Duration::from_millis(100), wsloop::TimerTag(1));
        }
        Ok(())
    }

    fn on_timer(
        &mut self,
        http: &mut Http<'_>,
        _: &mut Vec<u8>,
        _: wsloop::TimerTag,
    ) -> Result<(), HttpFailure> {
        http.resume_reading();
        Ok(())
    }

    fn on_body_end(&mut self, http: &mut Http<'_>, body: &mut Vec<u8>) -> Result<(), HttpFailure> {
        http.respond(Response::new(200).body(std::mem::take(body)))?;
        Ok(())
    }

    fn on_done(&mut self, _: &mut Cx<'_>, _: ExchangeId, _: Vec<u8>, _: &ExchangeOutcome) {}
}

struct Site {
    lab: Lab,
    pki: Pki,
}

impl Site {
    fn new(pauses: bool) -> Self {
        let (mut lab, pki) = (Lab::new(), Pki::new("ca"));
        for name in ["a.test", "b.test"] {
            let tls = server_tls(&pki, &[name]);
            let (config, _) = lab.server_config(name, tls, wsloop::PlaintextPolicy::Serve);
            let config: VhostConfig = config
                .mount(Mount::handler("/echo", Echo { pauses }))
                .mount(Mount::call("/", move |_| Response::text(200, name)));
            lab.add(config);
        }
        Self { lab, pki }
    }

    fn stranger(&mut self, name: &'static str) -> TlsStranger {
        let config = rustls_client(&self.pki, None, &[&rustls::version::TLS13]);
        let peer = self.lab.stranger();
        let mut stranger = TlsStranger::new(peer, config, name);
        stranger.tls.set_buffer_limit(None);
        stranger.exchange(&mut self.lab).unwrap();
        stranger
    }
}

/// Takes what has come, in pieces for which the other library has room.
fn hear(stranger: &mut TlsStranger) -> Vec<u8> {
    let mut heard = Vec::new();
    loop {
        let bytes = stranger.peer.read_up_to(4096);
        if bytes.is_empty() {
            return heard;
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            stranger.tls.read_tls(&mut rest).unwrap();
            stranger.tls.process_new_packets().unwrap();
        }
        heard.extend(stranger.heard());
    }
}

fn get(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

fn post(body: &str) -> Vec<u8> {
    let len = body.len();
    format!("POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: {len}\r\n\r\n{body}")
        .into_bytes()
}

fn statuses(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.match_indices("HTTP/1.1 ");
    lines
        .map(|(at, line)| text[at + line.len()..][..3].to_owned())
        .collect()
}

#[test]
fn requests_for_another_vhost_than_the_handshakes_get_421_also_later() {
    let mut site = Site::new(false);
    let mut stranger = site.stranger("a.test");
    stranger.say(&get("a.test"));
    stranger.exchange(&mut site.lab).unwrap();
    stranger.say(&get("A.TEST:443"));
    stranger.exchange(&mut site.lab).unwrap();
    assert_eq!(statuses(&stranger.heard()), ["200", "200"]);
    stranger.say(&[get("b.test"), get("a.test")].concat());
    stranger.exchange(&mut site.lab).unwrap();
    let heard = stranger.heard();
    assert_eq!(statuses(&heard), ["421"]);
    assert!(!String::from_utf8_lossy(&heard).contains("b.test"));
    assert!(stranger.peer.ended());
}

#[test]
fn plain_requests_on_the_same_port_choose_their_vhost_each() {
    let mut site = Site::new(false);
    let peer = site.lab.stranger();
    peer.write(&[get("a.test"), get("b.test"), get("a.test")].concat())
        .unwrap();
    site.lab.turn();
    let text = String::from_utf8(peer.read()).unwrap();
    assert_eq!(statuses(text.as_bytes()), ["200"; 3]);
    assert_eq!(text.matches("\r\n\r\nb.test").count(), 1);
}

#[test]
fn records_may_cut_requests_anywhere() {
    let session = [post("first"), get("a.test"), post("second")].concat();
    let run = |size: usize| {
        let mut site = Site::new(false);
        let mut stranger = site.stranger("a.test");
        for piece in session.chunks(size) {
            stranger.say(piece);
            let records = stranger.flight();
            for bytes in records.chunks(size.max(7)) {
                stranger.peer.write(bytes).unwrap();
                site.lab.context.service(Some(Duration::ZERO)).unwrap();
            }
        }
        site.lab.turn();
        stranger.take().unwrap();
        stranger.heard()
    };
    let whole = run(session.len());
    assert_eq!(statuses(&whole), ["200"; 3]);
    for size in [1, 2, 3, 5, 17, 64] {
        assert_eq!(run(size), whole, "pieces of {size}");
    }
}

#[test]
fn a_paused_body_goes_on_where_it_stopped() {
    let mut site = Site::new(true);
    let mut stranger = site.stranger("a.test");
    let body = "0123456789".repeat(10_000);
    stranger.say(&[post(&body), get("a.test")].concat());
    let out = stranger.flight();
    stranger.peer.write(&out).unwrap();
    let mut heard = Vec::new();
    for _ in 0..30 {
        site.lab.pass(Duration::from_secs(1));
        heard.extend(hear(&mut stranger));
    }
    assert_eq!(statuses(&heard), ["200", "200"]);
    assert!(String::from_utf8(heard).unwrap().contains(&body));
}

#[test]
fn pipelined_requests_are_all_answered_to_a_slow_reader() {
    let mut site = Site::new(false);
    let mut stranger = site.stranger("a.test");
    let body = "x".repeat(9_000);
    for _ in 0..400 {
        stranger.say(&post(&body));
        let out = stranger.flight();
        stranger.peer.write(&out).unwrap();
        site.lab.turn();
    }
    assert!(
        site.lab.context.memory() < 4_000_000,
        "{}",
        site.lab.context.memory()
    );
    let mut heard = Vec::new();
    for _ in 0..400 {
        site.lab.turn();
        heard.extend(hear(&mut stranger));
    }
    assert_eq!(statuses(&heard).len(), 400);
}

/// Keeps its exchanges waiting, and says how they end.
struct Told(std::sync::mpsc::Sender<String>);

impl HttpHandler for Told {
    type Exchange = ();

    fn on_request(&mut self, _: &mut Http<'_>, _: &HttpRequest<'_>) -> Result<(), HttpFailure> {
        Ok(())
    }

    fn on_done(&mut self, _: &mut Cx<'_>, _: ExchangeId, (): (), outcome: &ExchangeOutcome) {
        self.0.send(format!("{outcome:?}")).unwrap();
    }
}

#[test]
fn an_exchange_that_bytes_that_are_no_record_cut_off_is_told_of_once() {
    for garbage in [b"7".as_slice(), b"\x17\x03\x03\x00\x01\x00"] {
        let (mut lab, pki) = (Lab::new(), Pki::new("ca"));
        let (tell, told) = std::sync::mpsc::channel();
        let tls = server_tls(&pki, &["a.test"]);
        let (config, _) = lab.server_config("a.test", tls, wsloop::PlaintextPolicy::Reject);
        lab.add(config.mount(Mount::handler("/", Told(tell))));
        let config = rustls_client(&pki, None, &[&rustls::version::TLS13]);
        let mut stranger = TlsStranger::new(lab.stranger(), config, "a.test");
        stranger.exchange(&mut lab).unwrap();
        stranger.say(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\n");
        stranger.exchange(&mut lab).unwrap();
        stranger.peer.write(garbage).unwrap();
        for _ in 0..3 {
            lab.context.service(Some(Duration::ZERO)).unwrap();
            assert_eq!(lab.context.check_invariants(), [""; 0]);
        }
        let told: Vec<String> = told.try_iter().collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("Io("), "{told:?}");
        assert!(told[0].contains("TlsError"), "{told:?}");
        let records = record_types(&stranger.peer.read());
        assert_eq!(records.len(), 1, "an alert, encrypted");
    }
}
