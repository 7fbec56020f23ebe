//! How many TLS handshakes may be in progress, and what becomes of the others.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::version::TLS13;
use wsloop::sim::SimPeer;
use wsloop::tls::{CertificateProblem, ClientAuth, ClientTls, ClientTrust, TlsFailure};
use wsloop::{ContextConfig, PlaintextPolicy};

use crate::lab::{Lab, TlsStranger, roots, rustls_client, server_tls, url};
use crate::support::request;
use crate::testpki::Pki;

struct Site {
    lab: Lab,
    pki: Pki,
}

impl Site {
    fn new(handshakes: usize) -> Self {
        Self::on(PlaintextPolicy::Serve, handshakes)
    }

    fn on(policy: PlaintextPolicy, handshakes: usize) -> Self {
        let pki = Pki::new("ca");
        let config = ContextConfig::new().max_tls_handshakes(handshakes);
        let mut lab = Lab::with(1, config);
        let tls = server_tls(&pki, &["a.test"]);
        let (config, _) = lab.server_config("a.test", tls, policy);
        lab.add(config);
        Self { lab, pki }
    }

    /// A stranger whose ClientHello is on its way.
    fn stranger(&mut self) -> TlsStranger {
        let peer = self.lab.stranger();
        let mut stranger =
            TlsStranger::new(peer, rustls_client(&self.pki, None, &[&TLS13]), "a.test");
        let hello = stranger.flight();
        stranger.peer.write(&hello).unwrap();
        self.lab.turn();
        stranger
    }

    fn accepted(&self) -> (usize, usize) {
        let context = &self.lab.context;
        (context.connections(), context.tls_handshakes())
    }
}

fn finish(site: &mut Site, stranger: &mut TlsStranger) {
    stranger.take().unwrap();
    stranger.say(&request("/"));
    stranger.exchange(&mut site.lab).unwrap();
    assert!(stranger.heard().starts_with(b"HTTP/1.1 101 "));
}

#[test]
fn rs_05_above_the_cap_peers_wait_unaccepted_and_nothing_is_computed_for_them() {
    let mut site = Site::new(2);
    let mut strangers: Vec<TlsStranger> = (0..5).map(|_| site.stranger()).collect();
    assert_eq!(site.accepted(), (2, 2));
    let answered = |stranger: &mut TlsStranger| !stranger.peer.read().is_empty();
    assert!(!answered(&mut strangers[2]) && !answered(&mut strangers[4]));
    // Nothing is to be done until one of the handshakes moves.
    assert!(
        site.lab
            .context
            .next_deadline()
            .is_some_and(|at| at > site.lab.net.now())
    );
    for (n, stranger) in strangers.iter_mut().enumerate() {
        finish(&mut site, stranger);
        let left = 5 - 1 - n;
        let waiting = left.min(2);
        assert_eq!(site.accepted(), (n + 1 + waiting, waiting));
    }
    assert_eq!(site.lab.journal.opens("a.test"), 5);
}

#[test]
fn rs_05_whatever_ends_a_handshake_frees_its_place() {
    type End = fn(&mut Site, TlsStranger);
    let ends: [End; 5] = [
        |site, mut stranger| {
            finish(site, &mut stranger);
            std::mem::forget(stranger);
        },
        |_, stranger| stranger.peer.reset(),
        |_, stranger| drop(stranger),
        |site, stranger| {
            site.lab.pass(Duration::from_secs(11));
            drop(stranger);
        },
        |_, stranger| {
            stranger.peer.write(&[23, 3, 3, 0, 1, 0]).unwrap();
            std::mem::forget(stranger);
        },
    ];
    for (n, end) in ends.into_iter().enumerate() {
        let mut site = Site::new(1);
        let first = site.stranger();
        let mut second = site.stranger();
        assert_eq!(site.accepted(), (1, 1), "{n}");
        end(&mut site, first);
        site.lab.turn();
        assert_eq!(site.lab.context.tls_handshakes(), 1, "{n}");
        finish(&mut site, &mut second);
        assert_eq!(site.lab.context.tls_handshakes(), 0, "{n}");
    }
}

#[test]
fn plain_connections_on_the_port_give_their_places_back_with_their_first_byte() {
    let mut site = Site::new(1);
    for _ in 0..3 {
        let peer: SimPeer = site.lab.stranger();
        assert_eq!(site.lab.context.tls_handshakes(), 1);
        peer.write(b"G").unwrap();
        site.lab.turn();
        assert_eq!(site.lab.context.tls_handshakes(), 0);
        std::mem::forget(peer);
    }
    assert_eq!(site.accepted(), (3, 0));
}

#[test]
fn a_plain_listener_and_clients_are_not_held_up() {
    let mut site = Site::new(1);
    let _waits = site.stranger();
    let plain = crate::lab::socket("10.0.0.9:80");
    let probe = crate::lab::Probe::echo("plain", &site.lab.journal);
    site.lab.add(
        wsloop::VhostConfig::new("plain")
            .listen(plain)
            .protocol("p", probe),
    );
    let client = site.lab.client("client", ClientTls::new(roots(&site.pki)));
    site.lab.dial(client, "ws://10.0.0.9:80/");
    assert_eq!(site.lab.journal.texts("client"), ["hello"]);
    site.lab.journal.take();
    // A client of the same context waits for its server's place like everybody.
    site.lab.dial(client, &url("a.test"));
    assert!(site.lab.journal.open("client").is_none());
    site.lab.pass(Duration::from_millis(9900));
    site.lab.pass(Duration::from_millis(200));
    assert!(site.lab.journal.refused().is_some());
}

/// A stranger whose certificate has that behind it, and what the server makes of it; the most
/// memory that the server took meanwhile.
fn with_chain(own: &Pki, behind: Vec<Vec<u8>>) -> (Option<TlsFailure>, usize) {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    let trust = ClientTrust::new(roots(&pki));
    let tls = server_tls(&pki, &["a.test"]).client_auth(ClientAuth::Required(trust));
    lab.server("a.test", tls);
    let (mut chain, key) = crate::lab::rustls_identity(&own.leaf(&["client"]).issue());
    chain.extend(behind.into_iter().map(CertificateDer::from));
    let mut store = rustls::RootCertStore::empty();
    store
        .add(CertificateDer::from(pki.ca_der().to_vec()))
        .unwrap();
    let config = rustls::ClientConfig::builder_with_provider(crate::lab::provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(store)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let mut stranger = TlsStranger::new(lab.stranger(), config, "a.test");
    let hello = stranger.flight();
    stranger.peer.write(&hello).unwrap();
    lab.turn();
    stranger.take().unwrap();
    let mut memory = 0;
    for piece in stranger.flight().chunks(10_000) {
        let _ = stranger.peer.write(piece);
        lab.turn();
        memory = memory.max(lab.context.memory());
    }
    (
        lab.journal.refused().and_then(|refused| refused.tls),
        memory,
    )
}

#[test]
fn tl_17_chains_of_certificates_are_bounded_in_number_and_length() {
    let stranger = Pki::new("another ca");
    let authority = stranger.ca_der().to_vec();
    let (failure, memory) = with_chain(&stranger, vec![authority; 100]);
    let problem = CertificateProblem::UnknownIssuer;
    assert_eq!(failure, Some(TlsFailure::Certificate(problem)));
    assert!(memory < 200_000, "{memory}");
    // A megabyte is more than a message may have.
    let (failure, memory) = with_chain(&stranger, vec![vec![0x30; 10_000]; 100]);
    assert!(
        matches!(
            failure,
            Some(TlsFailure::PeerMisbehaved { .. } | TlsFailure::StashOverflow { .. })
        ),
        "{failure:?}"
    );
    assert!(memory < 200_000, "{memory}");
}

#[test]
fn rc_08_a_shutdown_ends_handshakes_of_both_sides_and_tells_everybody() {
    for hello in [0, 1, usize::MAX] {
        let mut site = Site::on(PlaintextPolicy::Reject, 10);
        let peer = site.lab.stranger();
        let config = rustls_client(&site.pki, None, &[&TLS13]);
        let mut stranger = TlsStranger::new(peer, config, "a.test");
        let mut flight = stranger.flight();
        flight.truncate(hello);
        stranger.peer.write(&flight).unwrap();
        let other = crate::lab::socket("10.0.0.9:443");
        let _silent = site.lab.net.listen(other).unwrap();
        let client = site.lab.client("client", ClientTls::new(roots(&site.pki)));
        site.lab.dial(client, "wss://10.0.0.9/");
        assert_eq!(site.lab.context.tls_handshakes(), 1);
        site.lab.context.shutdown(Duration::from_secs(3));
        site.lab.turn();
        assert_eq!(site.lab.journal.refused().unwrap().kind, "Shutdown");
        let failed = site.lab.journal.connect_error().unwrap();
        assert!(failed.text.contains("shutting down"), "{}", failed.text);
        assert!(site.lab.context.is_shut_down(), "{hello}");
        assert_eq!(site.lab.context.tls_handshakes(), 0);
        // Whoever waits for TLS is told nothing in the clear.
        let said = stranger.peer.read();
        assert!(!said.starts_with(b"HTTP"), "{hello}");
    }
}
