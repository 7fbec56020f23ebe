//! Every call to the system that fails: a scenario is played once to count its calls, and then once
//! for each of them and for each error that the call's manual page allows. Whatever fails, everything
//! that began ends once, nothing is left open, nothing hangs.
#![cfg(all(
    feature = "sim",
    feature = "deflate",
    any(feature = "aws-lc-rs", feature = "ring")
))]
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test says where it is, and fails by panicking"
)]

#[path = "support/manual.rs"]
mod manual;
#[path = "support/simpki.rs"]
mod simpki;

mod torture {
    pub(crate) mod parts;
    pub(crate) mod rack;
}

use std::io::{self, ErrorKind};
use std::time::Duration;

use torture::parts::{Answers, Speaker};
use torture::rack::{CLIENT, Rack, SERVER, Setting, plain, secure};
use wsloop::hook::Webhook;
use wsloop::sim::{Call, Fault, Net, Selector};
use wsloop::tls::{ClientTls, ServerTls};
use wsloop::{
    DeflateConfig, FetchInfo, HookChain, HookConfig, ListenConfig, Mount, PlaintextPolicy,
    StaticFiles, VhostConfig,
};

/// What a run came to.
#[derive(Clone, Debug, Default)]
struct Outcome {
    /// The final events, in some order.
    ends: Vec<String>,
    /// What else was told of what went wrong.
    troubles: Vec<String>,
    calls: Vec<u64>,
    memory: [usize; 2],
}

fn play(
    scene: &dyn Fn(&mut Rack),
    selector: Selector,
    fault: Option<(Call, u64, Fault)>,
) -> Outcome {
    let net = Net::new(5);
    net.set_selector(selector);
    if let Some((call, nth, fault)) = fault {
        net.fail(call, nth, fault);
    }
    let mut rack = Rack::new(&net);
    scene(&mut rack);
    rack.wind_up();
    let mut ends = rack.told.ends();
    ends.sort();
    let outcome = Outcome {
        ends,
        troubles: rack.told.troubles(),
        calls: Call::ALL.iter().map(|call| net.calls(*call)).collect(),
        memory: [CLIENT, SERVER].map(|node| rack.contexts[node].memory()),
    };
    drop(rack);
    let left = net.sockets();
    assert_eq!(left, Default::default(), "sockets are left");
    outcome
}

/// Plays the scene with every one of its calls failing in every way.
fn torture(what: &str, scene: &dyn Fn(&mut Rack)) {
    for selector in [Selector::Epoll, Selector::Poll] {
        torture_on(selector, what, scene);
    }
}

fn torture_on(selector: Selector, what: &str, scene: &dyn Fn(&mut Rack)) {
    let golden = play(scene, selector, None);
    assert!(!golden.ends.is_empty(), "{what}: nothing happened");
    assert!(golden.troubles.is_empty(), "{what}: {golden:?}");
    let mut runs = 0;
    for (call, count) in Call::ALL.iter().zip(&golden.calls) {
        for nth in 1..=*count {
            for fault in manual::faults(*call) {
                println!("{what}, {selector:?}: {call:?} {nth} of {count}: {fault:?}");
                let run = play(scene, selector, Some((*call, nth, fault)));
                judge(*call, fault, &golden, &run);
                runs += 1;
            }
            for kind in [ErrorKind::Interrupted, ErrorKind::WouldBlock] {
                if matches!(call, Call::Accept | Call::Read | Call::Write) {
                    println!("{what}, {selector:?}: {call:?} {nth} of {count}: {kind:?}");
                    let run = play(scene, selector, Some((*call, nth, kind.into())));
                    assert_eq!(run.ends, golden.ends, "it only takes longer");
                    assert!(run.troubles.is_empty(), "{run:?}");
                    runs += 1;
                }
            }
        }
    }
    println!("{what}: {runs} runs, {:?}", golden.calls);
    assert!(runs > 30, "{what}: only {runs} runs");
}

/// Whatever came out otherwise, somebody was told the reason.
fn judge(call: Call, fault: Fault, golden: &Outcome, run: &Outcome) {
    // A request may have been sent again, and then there was one more exchange.
    let asked = |outcome: &Outcome| -> Vec<String> {
        let ends = outcome.ends.iter();
        let ends = ends.filter(|end| !end.starts_with("exchange: Responded"));
        ends.cloned().collect()
    };
    let same = asked(run) == asked(golden) && run.troubles.is_empty();
    let error = io::Error::from(fault);
    // TLS keeps the kind only. The peer's close stays the reason when the answer to it is lost.
    let (kind, lost) = (error.kind().to_string(), "not delivered".to_owned());
    let mut reasons = vec![error.to_string(), kind, lost];
    if golden.ends.iter().any(|end| end.starts_with("exchange")) {
        // Between two requests a server's connection is nobody's: its client is told.
        let client = ["connection reset", "the peer closed the connection"];
        reasons.extend(client.map(str::to_owned));
    }
    let told = run.ends.iter().chain(&run.troubles);
    let names = |line: &String| reasons.iter().any(|reason| line.contains(reason));
    let is_told = told.clone().any(names);
    // A connection that was aborted before it was accepted is nobody's here.
    let unseen = call == Call::Accept;
    assert!(
        same || is_told || unseen,
        "nobody was told {error}: {:#?}",
        told.collect::<Vec<_>>()
    );
    for (memory, before) in run.memory.iter().zip(golden.memory) {
        let spare = before + SPARE;
        assert!(*memory <= spare, "memory: {memory} after, {before} else");
    }
}

/// A pool may have grown by a buffer or an inflater.
const SPARE: usize = 128 * 1024;

fn echo(setting: &Setting) -> impl Fn(&mut Rack) + use<> {
    let setting = setting.clone();
    move |rack: &mut Rack| {
        let mut server = VhostConfig::new("n1.test").protocol("p", Speaker::server(&rack.told));
        let mut client = VhostConfig::new("client").protocol("p", Speaker::client(&rack.told));
        if setting.deflate {
            (server, client) = (
                server.deflate(DeflateConfig::new()),
                client.deflate(DeflateConfig::new()),
            );
        }
        if setting.tls {
            let listener = ListenConfig::new(secure()).tls(PlaintextPolicy::Reject);
            let pki = simpki::Pki::get();
            server = server
                .listen(listener)
                .server_tls(ServerTls::new(pki.identity(0)));
            client = client.client_tls(ClientTls::new(pki.roots()));
        } else {
            server = server.listen(plain());
        }
        rack.serve(server);
        rack.dial(client, setting.url);
    }
}

#[test]
fn rs_08_an_echo_over_ws_survives_any_failing_call() {
    let scene = echo(&Setting::new("ws://n1.test/"));
    torture("ws", &scene);
}

#[test]
fn rs_08_an_echo_over_wss_survives_any_failing_call() {
    let scene = echo(&Setting::new("wss://n1.test/").tls());
    torture("wss", &scene);
}

#[test]
fn rs_08_a_compressed_echo_survives_any_failing_call() {
    let scene = echo(&Setting::new("ws://n1.test/").deflate());
    torture("deflate", &scene);
}

#[test]
fn rs_08_a_connect_with_several_addresses_survives_any_failing_call() {
    let scene = echo(&Setting::new("ws://several.test/"));
    torture("several", &scene);
}

#[test]
fn rs_08_a_keep_alive_exchange_with_files_survives_any_failing_call() {
    torture("http", &|rack| {
        let files = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support");
        let Ok(files) = StaticFiles::new(files) else {
            panic!("the directory is there");
        };
        let server = VhostConfig::new("n1.test")
            .listen(plain())
            .mount(Mount::handler("/files", files))
            .mount(Mount::handler("/h", Answers::new(&rack.told)));
        rack.serve(server);
        rack.serve_client(VhostConfig::new("client"));
        for target in ["files/mod.rs", "h", "files/missing"] {
            rack.fetch(FetchInfo::get(&format!("http://n1.test/{target}")).unwrap());
            rack.turn(20);
        }
        let post = FetchInfo::post("http://n1.test/h", vec![b'x'; 20_000]);
        rack.fetch(post.unwrap());
    });
}

#[test]
fn rs_08_a_fetch_over_https_survives_any_failing_call() {
    torture("https", &|rack| {
        let pki = simpki::Pki::get();
        let listener = ListenConfig::new(secure()).tls(PlaintextPolicy::Reject);
        let server = VhostConfig::new("n1.test")
            .listen(listener)
            .server_tls(ServerTls::new(pki.identity(0)))
            .mount(Mount::handler("/h", Answers::new(&rack.told)));
        rack.serve(server);
        rack.serve_client(VhostConfig::new("client").client_tls(ClientTls::new(pki.roots())));
        for _ in 0..2 {
            rack.fetch(FetchInfo::get("https://n1.test/h").unwrap());
            rack.turn(20);
        }
    });
}

#[test]
fn rs_08_the_verdict_of_a_webhook_survives_any_failing_call() {
    torture("webhook", &|rack| {
        let webhook = Webhook::new("http://endpoint.test:8080/ask").unwrap();
        let hooks = HookChain::new().with(HookConfig::new("webhook", webhook));
        let server = VhostConfig::new("n1.test")
            .listen(plain())
            .hooks(hooks)
            .protocol("p", Speaker::server(&rack.told));
        rack.serve(server);
        let endpoint = VhostConfig::new("endpoint.test")
            .listen(Rack::endpoint())
            .mount(Mount::handler("/ask", Answers::allowing(&rack.told)))
            .protocol("p", Speaker::client(&rack.told));
        rack.dial(endpoint, "ws://n1.test/");
    });
}

#[test]
fn rs_08_accepting_strangers_survives_any_failing_call() {
    torture("accept", &|rack| {
        let server = VhostConfig::new("n1.test")
            .listen(plain())
            .mount(Mount::handler("/h", Answers::new(&rack.told)));
        rack.serve(server);
        let mut strangers = Vec::new();
        for _ in 0..3 {
            let Ok(peer) = rack.net.dial(plain()) else {
                continue;
            };
            rack.turn(3);
            let _ = peer.write(b"GET /h HTTP/1.1\r\nHost: n1.test\r\n\r\n");
            strangers.push(peer);
            rack.turn(3);
        }
        rack.net.advance(Duration::from_millis(500));
        rack.turn(10);
        drop(strangers);
    });
}
