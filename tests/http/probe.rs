//! What known probes of HTTP/1.1 servers ask: the cases of `Http11Probe` by its ids, and those of
//! `h1spec`, each with what this server answers and the rule it follows.

use std::time::Duration;

use wsloop::{
    ExchangeOutcome, Http, HttpFailure, HttpHandler, HttpRequest, Mount, Response, VhostConfig,
};

use crate::support::{Log, Recorder, World, addr};

#[path = "probe/compliance.rs"]
mod compliance;
#[path = "probe/fields.rs"]
mod fields;
#[path = "probe/h1spec.rs"]
mod h1spec;
#[path = "probe/malformed.rs"]
mod malformed;
#[path = "probe/smuggling.rs"]
mod smuggling;

/// One case of a table.
struct Case {
    id: &'static str,
    sent: Sent,
    want: Want,
    /// The rule behind the answer, and the reason where a probe would like another one better.
    rule: &'static str,
}

/// What the client sends.
enum Sent {
    Bytes(&'static [u8]),
    /// A head, then so many times the same, then the rest.
    Long(&'static [u8], usize, &'static [u8], &'static [u8]),
}

/// What it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// A response with this status; then the connection ends, and nothing else is answered.
    Refused(u16),
    /// A response with this status and body; the next request is answered.
    Served(u16, &'static str),
    /// The same after a 100.
    Continued(&'static str),
    /// A response with this status, and a head that has this line; the next request is answered.
    Says(u16, &'static str),
    /// As `Refused`, and the head has this line.
    RefusedWith(u16, &'static str),
    /// A good response with this body, after which the connection ends.
    Last(&'static str),
    /// Nothing, until a deadline passes: then 408, and the end.
    Waits,
}

const fn case(id: &'static str, sent: &'static [u8], want: Want, rule: &'static str) -> Case {
    Case {
        id,
        sent: Sent::Bytes(sent),
        want,
        rule,
    }
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        match &self.sent {
            Sent::Bytes(bytes) => bytes.to_vec(),
            Sent::Long(before, times, piece, after) => {
                [before, piece.repeat(*times).as_slice(), after].concat()
            }
        }
    }

    /// What is wrong with the answers, if something is.
    fn problem(&self, got: &Got) -> Option<String> {
        let (codes, rest) = (self.want.codes(), &got.responses);
        let statuses: Vec<u16> = rest.iter().map(|response| response.status).collect();
        if statuses != codes {
            return Some(format!("answered {statuses:?} instead of {codes:?}"));
        }
        if got.ended == self.want.persists() {
            return Some(format!("ended: {}", got.ended));
        }
        let says = |line: &str| rest[0].head.lines().any(|other| other == line);
        let fits = match self.want {
            Want::Served(_, body) | Want::Last(body) => rest[0].body == body,
            Want::Continued(body) => rest[1].body == body,
            Want::Says(_, line) | Want::RefusedWith(_, line) => says(line),
            Want::Refused(_) => says("Connection: close"),
            Want::Waits => true,
        };
        if !fits {
            return Some(format!("unfit {rest:?}"));
        }
        rest.iter().find_map(Answer::problem)
    }
}

impl Want {
    /// The answers, with that to the request which follows.
    fn codes(self) -> Vec<u16> {
        match self {
            Self::Refused(status) | Self::RefusedWith(status, _) => vec![status],
            Self::Served(status, _) | Self::Says(status, _) => vec![status, 200],
            Self::Continued(_) => vec![100, 200, 200],
            Self::Last(_) => vec![200],
            Self::Waits => vec![408],
        }
    }

    const fn persists(self) -> bool {
        matches!(self, Self::Served(..) | Self::Says(..) | Self::Continued(_))
    }
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
struct Got {
    responses: Vec<Answer>,
    ended: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    /// RFC 9110 section 6.6.1: an origin server with a clock generates Date in all 2xx, 3xx and 4xx
    /// responses. Section 8.6: no Content-Length in a 204.
    fn problem(&self) -> Option<String> {
        let dates = self.head.lines().filter(|line| line.starts_with("Date: "));
        let dates: Vec<&str> = dates.collect();
        let is_dated = dates.len() == 1 && dates[0].len() == 35 && dates[0].ends_with(" GMT");
        if !is_dated && self.status != 100 {
            return Some(format!("dates {dates:?}"));
        }
        let has_length = self.head.contains("Content-Length: ");
        (self.status == 204 && has_length).then(|| "a 204 with a length".to_owned())
    }
}

/// Cuts what a server has said into responses: for a HEAD there is no body.
fn answers(mut text: &str, is_head: bool) -> Vec<Answer> {
    let mut found = Vec::new();
    while let Some((head, rest)) = text.split_once("\r\n\r\n") {
        let status = head.get(9..12).unwrap().parse().unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.map_or(0, |length| length.parse().unwrap());
        let has_body = !is_head || !found.is_empty();
        let (body, rest) = rest.split_at(if has_body { length } else { 0 });
        found.push(Answer {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        });
        text = rest;
    }
    assert_eq!(text, "", "what follows is no response");
    found
}

/// Sends back the body of a request, or says what it was if it had none; below `/echo`, its fields.
struct Echo;

struct Asked {
    about: String,
    body: Vec<u8>,
}

impl HttpHandler for Echo {
    type Exchange = Asked;

    fn on_request(
        &mut self,
        _: &mut Http<'_>,
        request: &HttpRequest<'_>,
    ) -> Result<Asked, HttpFailure> {
        let mut about = format!("{} {}\n", request.method(), request.path());
        if request.path() == "/echo" {
            about = request
                .head()
                .headers()
                .fold(about, |about, (name, value)| {
                    about + &format!("{name}: {}\n", String::from_utf8_lossy(value))
                });
        }
        Ok(Asked {
            about,
            body: Vec::new(),
        })
    }

    fn on_body(
        &mut self,
        _: &mut Http<'_>,
        asked: &mut Asked,
        data: &[u8],
    ) -> Result<(), HttpFailure> {
        asked.body.extend_from_slice(data);
        Ok(())
    }

    fn on_body_end(&mut self, http: &mut Http<'_>, asked: &mut Asked) -> Result<(), HttpFailure> {
        let body = String::from_utf8_lossy(&asked.body).into_owned();
        let shows_all = asked.about.contains("/echo");
        http.respond(Response::text(
            200,
            match (shows_all, body.is_empty()) {
                (true, _) => format!("{}{body}", asked.about),
                (false, true) => asked.about.clone(),
                (false, false) => body,
            },
        ))?;
        Ok(())
    }

    fn on_done(
        &mut self,
        _: &mut wsloop::Cx<'_>,
        _: wsloop::ExchangeId,
        _: Asked,
        outcome: &ExchangeOutcome,
    ) {
        let _ = outcome;
    }
}

fn world() -> World {
    World::with(|log: &Log| {
        VhostConfig::new("a.test")
            .listen(addr())
            .protocol("p", Recorder::echo(log))
            .mount(Mount::protocol("/chat", "p"))
            .mount(Mount::handler("/", Echo))
            .mount(Mount::response("/page", Response::text(200, "a page\n")))
    })
}

const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// Sends the case in pieces of that size, then another request, and reads what comes.
fn ask(world: &mut World, case: &Case, size: usize) -> Got {
    let bytes = case.bytes();
    let peer = world.dial();
    for piece in bytes.chunks(size.max(1)) {
        let _ = peer.write(piece);
        world.context.service(Some(Duration::ZERO)).unwrap();
    }
    world.turn();
    let mut got = peer.read();
    if case.want == Want::Waits {
        assert_eq!(got, b"", "{}: answered at once", case.id);
        assert!(!peer.ended(), "{}: closed at once", case.id);
        world.pass(Duration::from_secs(31));
    } else {
        let _ = peer.write(NEXT);
        world.turn();
    }
    got.extend(peer.read());
    let text = String::from_utf8(got).unwrap();
    Got {
        responses: answers(&text, bytes.starts_with(b"HEAD ")),
        ended: peer.ended() || peer.was_reset(),
    }
}

fn check(cases: &[Case]) {
    let mut problems = Vec::new();
    for case in cases {
        let whole = ask(&mut world(), case, usize::MAX);
        let problem = case.problem(&whole);
        problems.extend(problem.map(|text| format!("{} ({}): {text}", case.id, case.rule)));
        if case.bytes().len() <= 1024 {
            let cut = ask(&mut world(), case, 1);
            if cut != whole {
                problems.push(format!("{}: {cut:?} byte by byte, not {whole:?}", case.id));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn ht_26_compliance_is_as_probes_ask_for() {
    check(compliance::CASES);
}

#[test]
fn ht_26_malformed_requests_are_refused() {
    check(malformed::CASES);
}

#[test]
fn ht_26_no_request_is_smuggled() {
    check(smuggling::CASES);
    check(smuggling::DESYNC);
}

#[test]
fn ht_26_fields_reach_the_application_as_they_are() {
    check(fields::CASES);
}

#[test]
fn ht_26_the_cases_of_h1spec_are_answered() {
    assert_eq!(h1spec::CASES.len(), 33);
    check(h1spec::CASES);
}

#[test]
fn ht_26_every_case_of_the_probe_is_here_once() {
    let tables = [
        compliance::CASES,
        malformed::CASES,
        smuggling::CASES,
        smuggling::DESYNC,
        fields::CASES,
    ];
    let mut ids: Vec<&str> = tables
        .iter()
        .flat_map(|table| table.iter())
        .map(|case| case.id)
        .collect();
    ids.extend(fields::NOT_APPLICABLE.iter().map(|(id, _)| *id));
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((all, ids.len()), (PROBES, PROBES));
}

/// How many cases the probe had when the tables were written.
const PROBES: usize = 215;
