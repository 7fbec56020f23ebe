//! TLS handshakes that are begun and left.

use rustls::version::{TLS12, TLS13};
use wsloop::sim::SimPeer;
use wsloop::tls::ServerTls;
use wsloop::{ContextConfig, DeadlineStage, ListenConfig, PlaintextPolicy, VhostConfig};

use super::common::{millis, secs};
use crate::lab::{Event, Lab, Probe, TlsStranger, rustls_client, server_tls, socket};
use crate::support::{addr, masked, plain, request};
use crate::testpki::Pki;

const CAP: usize = 200;
const FLOOD: usize = 1000;
const PLAIN: &str = "10.0.0.1:80";
const SECURE: &str = "10.0.0.1:443";

/// One vhost in the clear and one with TLS, in one context.
struct Site {
    lab: Lab,
    pki: Pki,
    well: SimPeer,
}

impl Site {
    fn new() -> Self {
        let pki = Pki::new("ca");
        let mut lab = Lab::with(1, ContextConfig::new().max_tls_handshakes(CAP));
        let listen = ListenConfig::new(socket(PLAIN)).backlog(10_000);
        let probe = Probe::echo("plain", &lab.journal);
        lab.add(
            VhostConfig::new("b.test")
                .listen(listen)
                .protocol("p", probe),
        );
        let tls: ServerTls = server_tls(&pki, &["a.test"]);
        let listen = ListenConfig::new(socket(SECURE)).backlog(10_000);
        let probe = Probe::echo("secure", &lab.journal);
        let secure = VhostConfig::new("a.test")
            .listen(listen.tls(PlaintextPolicy::Reject))
            .server_tls(tls)
            .protocol("p", probe);
        lab.add(secure);
        let well = lab.net.dial(addr()).unwrap();
        well.write(&request("/")).unwrap();
        lab.turn();
        assert!(well.read().starts_with(b"HTTP/1.1 101 "));
        Self { lab, pki, well }
    }

    /// Who has a connection in the clear is served in one turn.
    fn serves_others(&mut self) {
        self.well.write(&masked(0x81, b"x")).unwrap();
        self.lab.context.service(Some(millis(0))).unwrap();
        assert_eq!(self.well.read(), plain(0x81, b"x"));
    }

    /// A first flight of a client, as often as one likes to send it.
    fn hello(&self, version: &'static rustls::SupportedProtocolVersion) -> Vec<u8> {
        let peer = self.lab.net.dial(socket(PLAIN)).unwrap();
        let config = rustls_client(&self.pki, None, &[version]);
        TlsStranger::new(peer, config, "a.test").flight()
    }

    fn refused(&self, stage: DeadlineStage) -> usize {
        self.lab.journal.count(
            |event| matches!(event, Event::Refused(refused) if refused.deadline == Some(stage)),
        )
    }
}

/// Each of them gets so far, and then says nothing more, or next to nothing.
#[test]
fn tm_03_handshakes_that_stop_anywhere_hold_the_cap_at_most_and_end_at_their_deadline() {
    for version in [&TLS13, &TLS12] {
        for (far, stage) in [
            (0, DeadlineStage::Head),
            (1, DeadlineStage::Tls),
            (100, DeadlineStage::Tls),
            (usize::MAX, DeadlineStage::Tls),
        ] {
            let each = stop_at(version, far, stage);
            let far = far.min(1000);
            println!("{version:?}, at most {far} bytes of a hello: {each} bytes each");
        }
    }
}

/// A flood of those who send so much of a hello: what each of them costs.
fn stop_at(
    version: &'static rustls::SupportedProtocolVersion,
    far: usize,
    stage: DeadlineStage,
) -> usize {
    let mut site = Site::new();
    let hello = site.hello(version);
    site.lab.turn();
    let idle = site.lab.context.memory();
    let open = site.lab.context.connections();
    let secure = socket(SECURE);
    let flood: Vec<SimPeer> = (0..FLOOD)
        .map(|_| site.lab.net.dial(secure).unwrap())
        .collect();
    for peer in &flood {
        peer.write(&hello[..far.min(hello.len())]).unwrap();
    }
    let mut most = 0;
    let mut seconds = 0;
    while site.refused(stage) < FLOOD {
        site.lab.turn();
        assert!(site.lab.context.tls_handshakes() <= CAP);
        assert!(site.lab.context.connections() <= CAP + open);
        most = most.max(site.lab.context.memory().saturating_sub(idle));
        site.serves_others();
        site.lab.pass(secs(1));
        if seconds % 9 == 8 && far == 1 {
            // A byte every nine seconds buys no time.
            let at = 1 + seconds / 9;
            for peer in &flood {
                let _ = peer.write(&hello[at..=at]);
            }
        }
        seconds += 1;
        let waves = FLOOD.div_ceil(CAP);
        assert!(
            seconds <= 16 * waves,
            "{:?} {far}: {}",
            version,
            site.refused(stage)
        );
        assert!(site.refused(stage) <= CAP * (seconds / 10));
    }
    let each = most / CAP;
    assert!(
        each <= HALF_A_HANDSHAKE,
        "{each} bytes each, {far} of the hello"
    );
    drop(flood);
    site.lab.pass(secs(11));
    site.serves_others();
    assert_eq!(site.lab.context.tls_handshakes(), 0);
    each
}

/// What a handshake may cost while it waits for the peer's next flight.
const HALF_A_HANDSHAKE: usize = 24 * 1024;

/// The honest one who comes behind them waits for one deadline, not for all of theirs.
#[test]
fn tm_03_who_comes_behind_a_cap_full_of_silent_handshakes_is_served_when_they_time_out() {
    let mut site = Site::new();
    let secure = socket(SECURE);
    let _flood: Vec<SimPeer> = (0..CAP)
        .map(|_| site.lab.net.dial(secure).unwrap())
        .collect();
    site.lab.turn();
    let peer = site.lab.net.dial(secure).unwrap();
    let config = rustls_client(&site.pki, None, &[&TLS13]);
    let mut honest = TlsStranger::new(peer, config, "a.test");
    honest.say(&request("/"));
    honest.exchange(&mut site.lab).unwrap();
    assert!(honest.heard().is_empty(), "the cap is full");
    site.lab.pass(secs(10) + millis(100));
    honest.exchange(&mut site.lab).unwrap();
    assert!(honest.heard().starts_with(b"HTTP/1.1 101 "));
}
