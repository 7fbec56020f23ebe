//! Client certificates: what is asked for, what is accepted, and what both sides are told.

use std::time::SystemTime;

use rustls::version::{TLS12, TLS13};
use wsloop::tls::{
    Alert, CertificateProblem, ClientAuth, ClientSelector, ClientTls, ClientTrust, RevocationLists,
    ServerTls, TlsFailure, TlsStep, TlsVersion,
};
use wsloop::{ConnectStage, Side, VhostConfig};

use crate::lab::{
    Lab, TlsStranger, any_identity, has_step, identity, record_types, roots, rustls_client,
    server_tls, url,
};
use crate::testpki::{Leaf, Pki, date};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    None,
    Optional,
    Required,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    Nothing,
    Good,
    Expired,
    NotYetValid,
    UnknownCa,
    ForServers,
    Revoked,
}

const ASKS: [Asks; 3] = [Asks::None, Asks::Optional, Asks::Required];
const SHOWS: [Shows; 7] = [
    Shows::Nothing,
    Shows::Good,
    Shows::Expired,
    Shows::NotYetValid,
    Shows::UnknownCa,
    Shows::ForServers,
    Shows::Revoked,
];

/// Certificates of every kind, made once.
struct Certificates {
    pki: Pki,
    server: Leaf,
    good: Leaf,
    expired: Leaf,
    not_yet_valid: Leaf,
    unknown: Leaf,
    for_servers: Leaf,
    revoked: Leaf,
}

impl Certificates {
    fn new() -> Self {
        let pki = Pki::new("ca");
        let early = (date(2000, 1, 1), date(2010, 1, 1));
        let late = (date(2080, 1, 1), date(2090, 1, 1));
        Self {
            server: pki.leaf(&["a.test"]).issue(),
            good: pki.leaf(&["good"]).issue(),
            expired: pki.leaf(&["expired"]).valid(early.0, early.1).issue(),
            not_yet_valid: pki.leaf(&["later"]).valid(late.0, late.1).issue(),
            unknown: Pki::new("another ca").leaf(&["unknown"]).issue(),
            for_servers: pki.leaf(&["server"]).for_servers_only().issue(),
            revoked: pki.leaf(&["revoked"]).issue(),
            pki,
        }
    }

    fn shown(&self, shows: Shows) -> Option<&Leaf> {
        match shows {
            Shows::Nothing => None,
            Shows::Good => Some(&self.good),
            Shows::Expired => Some(&self.expired),
            Shows::NotYetValid => Some(&self.not_yet_valid),
            Shows::UnknownCa => Some(&self.unknown),
            Shows::ForServers => Some(&self.for_servers),
            Shows::Revoked => Some(&self.revoked),
        }
    }

    fn trust(&self) -> ClientTrust {
        let list = self.pki.crl_pem(&[&self.revoked]);
        let lists = RevocationLists::from_pem(list).unwrap();
        ClientTrust::new(roots(&self.pki)).revocation_lists(lists)
    }

    fn server(&self, asks: Asks) -> ServerTls {
        ServerTls::new(identity(&self.server)).client_auth(match asks {
            Asks::None => ClientAuth::None,
            Asks::Optional => ClientAuth::Optional(self.trust()),
            Asks::Required => ClientAuth::Required(self.trust()),
        })
    }

    /// Our own settings speak the best version, so an older one is forced from outside.
    fn client(&self, shows: Shows, version: TlsVersion) -> ClientTls {
        let leaf = self.shown(shows);
        if version == TlsVersion::TLS_1_2 {
            let mut config = rustls_client(&self.pki, leaf, &[&TLS12]);
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            return ClientTls::from_rustls(config.into());
        }
        let tls = ClientTls::new(roots(&self.pki)).min_version(TlsVersion::TLS_1_3);
        match leaf {
            Some(leaf) => tls.identity(any_identity(leaf)),
            None => tls,
        }
    }
}

/// The failure that the server reports, without times and lists; `None` where it serves.
fn expected(asks: Asks, shows: Shows) -> Option<(&'static str, Alert)> {
    match (asks, shows) {
        (Asks::None, _) | (_, Shows::Good) | (Asks::Optional, Shows::Nothing) => None,
        (Asks::Required, Shows::Nothing) => Some(("none", Alert::CERTIFICATE_REQUIRED)),
        (_, Shows::Expired) => Some(("expired", Alert::CERTIFICATE_EXPIRED)),
        (_, Shows::NotYetValid) => Some(("not yet valid", Alert::CERTIFICATE_EXPIRED)),
        (_, Shows::UnknownCa) => Some(("unknown issuer", Alert::UNKNOWN_CA)),
        (_, Shows::ForServers) => Some(("wrong purpose", Alert::UNSUPPORTED_CERTIFICATE)),
        (_, Shows::Revoked) => Some(("revoked", Alert::CERTIFICATE_REVOKED)),
    }
}

/// The same, of a failure; times have to be there and to be those of the certificates.
fn found(failure: &TlsFailure) -> &'static str {
    use CertificateProblem as P;
    let year = |years: u64| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(years);
    match failure {
        TlsFailure::NoCertificate => "none",
        TlsFailure::Certificate(P::Expired {
            not_after: Some(end),
            checked_at: Some(now),
        }) => {
            assert_eq!(*end, year(1_262_304_000));
            assert!(now > end);
            "expired"
        }
        TlsFailure::Certificate(P::NotYetValid {
            not_before: Some(begin),
            checked_at: Some(now),
        }) => {
            assert_eq!(*begin, year(3_471_292_800));
            assert!(now < begin);
            "not yet valid"
        }
        TlsFailure::Certificate(P::UnknownIssuer) => "unknown issuer",
        TlsFailure::Certificate(P::WrongPurpose { .. }) => "wrong purpose",
        TlsFailure::Certificate(P::Revoked) => "revoked",
        other => panic!("{other:?}"),
    }
}

#[test]
fn tl_09_the_matrix_of_client_certificates_is_exact_on_both_sides() {
    let certificates = Certificates::new();
    for version in [TlsVersion::TLS_1_2, TlsVersion::TLS_1_3] {
        for asks in ASKS {
            for shows in SHOWS {
                println!("{version} {asks:?} {shows:?}");
                one_of_the_matrix(&certificates, version, asks, shows);
            }
        }
    }
}

fn one_of_the_matrix(certificates: &Certificates, version: TlsVersion, asks: Asks, shows: Shows) {
    let mut lab = Lab::new();
    lab.server("a.test", certificates.server(asks));
    let client = lab.client("client", certificates.client(shows, version));
    lab.dial(client, &url("a.test"));

    let server = lab.journal.report(Side::Server).unwrap();
    let requested = |step: &TlsStep| matches!(step, TlsStep::CertificateRequested);
    assert_eq!(has_step(&server.trace, requested), asks != Asks::None);
    let Some((problem, alert)) = expected(asks, shows) else {
        let open = lab.journal.open("a.test").unwrap();
        assert_eq!(open.info.as_ref().unwrap().version, version);
        let name = (asks != Asks::None && shows == Shows::Good).then_some("good");
        assert_eq!(open.peer_name(), name);
        assert!(open.peer.is_none_or(|peer| peer.is_verified()));
        assert_eq!(lab.journal.texts("client"), ["hello"]);
        assert!(lab.journal.refused().is_none());
        return;
    };
    assert_eq!(lab.journal.opens("a.test") + lab.journal.opens("client"), 0);
    assert_eq!(lab.journal.filters("a.test"), 0);
    let refused = lab.journal.refused().unwrap();
    let failure = refused.tls.unwrap();
    assert_eq!(found(&failure), problem);
    assert_eq!(failure.alert(), Some(alert));
    assert_eq!(server.failure.as_ref(), Some(&failure));
    assert!(refused.trace.unwrap().steps().len() >= 3);
    let failed = lab.journal.connect_error().unwrap();
    assert_eq!(
        failed.tls,
        Some(TlsFailure::PeerAlert(alert)),
        "{}",
        failed.text
    );
    match version {
        // The alert comes after the client has said all it has to say.
        TlsVersion::TLS_1_3 => assert_eq!(failed.stage, ConnectStage::Response),
        _ => assert_eq!(failed.stage, ConnectStage::Tls),
    }
    assert!(
        failed.text.contains(alert.name().unwrap()),
        "{}",
        failed.text
    );
    let received = |step: &TlsStep| *step == TlsStep::AlertReceived(alert);
    assert!(has_step(&failed.trace.unwrap(), received));
    let sent = |step: &TlsStep| *step == TlsStep::AlertSent(alert);
    assert!(has_step(&server.trace, sent), "{}", server.trace);
    assert!(lab.journal.refused().is_none() && lab.journal.connect_error().is_none());
    assert_eq!(lab.context.connections(), 0);
}

#[test]
fn tl_09_whoever_asks_nobody_puts_no_certificate_request_on_the_wire() {
    let certificates = Certificates::new();
    for (asks, expected) in [(Asks::None, false), (Asks::Optional, true)] {
        let mut lab = Lab::new();
        lab.server("a.test", certificates.server(asks));
        let peer = lab.stranger();
        let config = rustls_client(&certificates.pki, None, &[&TLS12]);
        let mut stranger = TlsStranger::new(peer, config, "a.test");
        let hello = stranger.flight();
        stranger.peer.write(&hello).unwrap();
        lab.turn();
        // The server's first flight is in the clear under TLS 1.2.
        let types = handshake_messages(&stranger.peer.read());
        assert_eq!(types.contains(&CERTIFICATE_REQUEST), expected, "{types:?}");
        assert_eq!(types.last(), Some(&SERVER_HELLO_DONE));
    }
}

/// The types of the handshake messages in records in the clear.
fn handshake_messages(wire: &[u8]) -> Vec<u8> {
    assert!(record_types(wire).iter().all(|&kind| kind == 22));
    let mut messages = Vec::new();
    let mut rest = wire;
    while let [_, _, _, high, low, body @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        messages.extend_from_slice(&body[..len]);
        rest = &body[len..];
    }
    let mut types = Vec::new();
    let mut rest = messages.as_slice();
    while let [kind, high, middle, low, body @ ..] = rest {
        types.push(*kind);
        let len = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        rest = &body[len..];
    }
    types
}

const CERTIFICATE_REQUEST: u8 = 13;
const SERVER_HELLO_DONE: u8 = 14;

/// TL-10: the client's request is on its way, or refused by a socket that is already shut, when
/// the alert comes.
#[test]
fn tl_10_the_alert_is_the_reason_although_the_request_was_written_first() {
    let certificates = Certificates::new();
    for limit in [1, 7, 100, usize::MAX] {
        let mut lab = Lab::new();
        lab.net.limit_io(limit);
        lab.server("a.test", certificates.server(Asks::Required));
        let tls = certificates.client(Shows::Nothing, TlsVersion::TLS_1_3);
        let client = lab.client("client", tls);
        lab.dial(client, &url("a.test"));
        for _ in 0..300 {
            lab.turn();
        }
        let failed = lab.journal.connect_error().unwrap();
        let alert = TlsFailure::PeerAlert(Alert::CERTIFICATE_REQUIRED);
        assert_eq!(failed.tls, Some(alert), "{limit}: {}", failed.text);
    }
}

#[test]
fn the_hook_after_verification_refuses_and_only_refuses() {
    let certificates = Certificates::new();
    for (shows, served) in [(Shows::Good, false), (Shows::Expired, false)] {
        let mut lab = Lab::new();
        let trust = certificates.trust().after_verification(|peer| {
            assert_eq!(peer.common_name(), Some("good"));
            Err(wsloop::tls::Refused::new("not today"))
        });
        let auth = ClientAuth::Required(trust);
        lab.server("a.test", certificates.server(Asks::None).client_auth(auth));
        let client = lab.client("client", certificates.client(shows, TlsVersion::TLS_1_3));
        lab.dial(client, &url("a.test"));
        assert_eq!(lab.journal.opens("a.test") == 1, served);
        let refused = lab.journal.refused().unwrap();
        let said = |step: &TlsStep| *step == TlsStep::Refused("not today".into());
        assert_eq!(
            has_step(&refused.trace.unwrap(), said),
            shows == Shows::Good
        );
        let alert = match shows {
            Shows::Good => Alert::ACCESS_DENIED,
            _ => Alert::CERTIFICATE_EXPIRED,
        };
        let failed = lab.journal.connect_error().unwrap();
        assert_eq!(failed.tls, Some(TlsFailure::PeerAlert(alert)));
    }
}

fn optional_if(certificates: &Certificates, selector: ClientSelector) -> ServerTls {
    let auth = ClientAuth::OptionalIf(selector, certificates.trust());
    certificates.server(Asks::None).client_auth(auth)
}

#[test]
fn optional_if_asks_those_whom_the_selector_picks_and_no_others() {
    let certificates = Certificates::new();
    for version in [TlsVersion::TLS_1_2, TlsVersion::TLS_1_3] {
        let mut lab = Lab::new();
        let by_name = ClientSelector::new(|hello| hello.server_name() == Some("asked.test"));
        lab.net.name("asked.test", [crate::support::addr().ip()]);
        let leaf = certificates.pki.leaf(&["a.test", "asked.test"]).issue();
        let tls = optional_if(&certificates, by_name).with_identity(identity(&leaf));
        lab.server("a.test", tls);
        let client = lab.client("client", certificates.client(Shows::Good, version));
        for (host, name) in [("a.test", None), ("asked.test", Some("good"))] {
            lab.dial(client, &url(host));
            let open = lab.journal.open("a.test").unwrap();
            assert_eq!(open.peer_name(), name, "{version} {host}");
            let report = lab.journal.report(Side::Server).unwrap();
            let requested = |step: &TlsStep| matches!(step, TlsStep::CertificateRequested);
            assert_eq!(has_step(&report.trace, requested), name.is_some());
        }
        // A bad certificate of somebody who is asked is no better than with `Optional`.
        let bad = lab.client("bad", certificates.client(Shows::Expired, version));
        lab.dial(bad, &url("asked.test"));
        let failed = lab.journal.connect_error().unwrap();
        let alert = TlsFailure::PeerAlert(Alert::CERTIFICATE_EXPIRED);
        assert_eq!(failed.tls, Some(alert));
    }
}

#[test]
fn a_session_is_not_resumed_across_asked_and_not_asked() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let certificates = Certificates::new();
    static ASKS: AtomicBool = AtomicBool::new(false);
    let selector = ClientSelector::new(|_| ASKS.load(Ordering::Relaxed));
    let mut lab = Lab::new();
    lab.server("a.test", optional_if(&certificates, selector));
    let tls = certificates.client(Shows::Good, TlsVersion::TLS_1_3);
    let client = lab.client("client", tls);
    let mut seen = Vec::new();
    for asks in [false, false, true, true, false, true] {
        ASKS.store(asks, Ordering::Relaxed);
        lab.dial(client, &url("a.test"));
        let open = lab.journal.open("a.test").unwrap();
        assert_eq!(open.peer_name(), asks.then_some("good"));
        seen.push(open.info.unwrap().handshake.to_string());
    }
    let [full, resumed] = ["full handshake", "resumed"];
    // Tickets of one kind mean nothing to the other; both kinds do resume.
    assert_eq!(seen[..4], [full, resumed, full, resumed]);
}

#[test]
fn a_hello_with_grease_is_not_asked_for_a_certificate() {
    let certificates = Certificates::new();
    for grease in [false, true] {
        let mut lab = Lab::new();
        let selector = ClientSelector::not_a_browser();
        lab.server("a.test", optional_if(&certificates, selector));
        let config = rustls_client(&certificates.pki, None, &[&TLS12]);
        let peer = lab.stranger();
        let mut stranger = TlsStranger::new(peer, config, "a.test");
        let mut hello = stranger.flight();
        if grease {
            hello = with_cipher(&hello, 0x3a3a);
        }
        stranger.peer.write(&hello).unwrap();
        lab.turn();
        let types = handshake_messages(&stranger.peer.read());
        assert_eq!(types.contains(&CERTIFICATE_REQUEST), !grease, "{types:?}");
    }
}

/// The ClientHello with one more cipher suite in front.
fn with_cipher(hello: &[u8], suite: u16) -> Vec<u8> {
    let mut out = hello.to_vec();
    let suites = 5 + 4 + 2 + 32 + 1 + usize::from(hello[5 + 4 + 2 + 32]);
    out.splice(suites + 2..suites + 2, suite.to_be_bytes());
    for (at, size) in [(3, 2), (6, 3), (suites, 2)] {
        let field = &mut out[at..at + size];
        let value = field
            .iter()
            .fold(0_u32, |all, byte| all << 8 | u32::from(*byte))
            + 2;
        field.copy_from_slice(&value.to_be_bytes()[4 - size..]);
    }
    out
}

#[cfg(feature = "aws-lc-rs")]
#[test]
fn a_client_with_ech_gets_in_without_being_asked() {
    use rustls::client::{EchGreaseConfig, EchMode};
    use rustls::crypto::aws_lc_rs::hpke;
    use rustls::pki_types::CertificateDer;

    let certificates = Certificates::new();
    let mut lab = Lab::new();
    let selector = ClientSelector::not_a_browser();
    lab.server("a.test", optional_if(&certificates, selector));
    let suite = hpke::DH_KEM_X25519_HKDF_SHA256_AES_128;
    let (key, _) = suite_key(suite);
    let ech = EchMode::Grease(EchGreaseConfig::new(suite, key));
    let mut store = rustls::RootCertStore::empty();
    let root = CertificateDer::from(certificates.pki.ca_der().to_vec());
    store.add(root).unwrap();
    let (chain, key) = crate::lab::rustls_identity(&certificates.good);
    let config = rustls::ClientConfig::builder_with_provider(crate::lab::provider())
        .with_ech(ech)
        .unwrap()
        .with_root_certificates(store)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let browser = lab.client("browser", ClientTls::from_rustls(config.into()));
    lab.dial(browser, &url("a.test"));
    let open = lab.journal.open("a.test").unwrap();
    assert_eq!(open.peer_name(), None, "it has one, and is not asked");
    let machine = certificates.client(Shows::Good, TlsVersion::TLS_1_3);
    let machine = lab.client("machine", machine);
    lab.dial(machine, &url("a.test"));
    assert_eq!(
        lab.journal.open("a.test").unwrap().peer_name(),
        Some("good")
    );
}

#[cfg(feature = "aws-lc-rs")]
fn suite_key(
    suite: &'static dyn rustls::crypto::hpke::Hpke,
) -> (
    rustls::crypto::hpke::HpkePublicKey,
    rustls::crypto::hpke::HpkePrivateKey,
) {
    suite.generate_key_pair().unwrap()
}

#[test]
fn the_end_right_after_the_request_for_a_certificate_has_its_own_reason() {
    let certificates = Certificates::new();
    for (version, asks, expected) in [
        (&TLS12, Asks::Optional, true),
        (&TLS13, Asks::Optional, true),
        (&TLS12, Asks::Required, true),
        (&TLS13, Asks::Required, true),
        (&TLS12, Asks::None, false),
        (&TLS13, Asks::None, false),
    ] {
        let mut lab = Lab::new();
        lab.server("a.test", certificates.server(asks));
        let config = rustls_client(&certificates.pki, None, &[version]);
        let peer = lab.stranger();
        let mut stranger = TlsStranger::new(peer, config, "a.test");
        let hello = stranger.flight();
        stranger.peer.write(&hello).unwrap();
        lab.turn();
        assert!(!stranger.peer.read().is_empty());
        stranger.peer.close();
        lab.turn();
        let refused = lab.journal.refused().unwrap();
        let cancelled = refused.tls == Some(TlsFailure::CertificateRequestCancelled);
        assert_eq!(
            cancelled, expected,
            "{version:?} {asks:?}: {}",
            refused.text
        );
        assert!(
            !expected || refused.text.contains("browser"),
            "{}",
            refused.text
        );
    }
}

#[test]
fn a_vhost_may_insist_on_the_newest_version() {
    let certificates = Certificates::new();
    let mut lab = Lab::new();
    let tls = server_tls(&certificates.pki, &["a.test"]).min_version(TlsVersion::TLS_1_3);
    lab.server("a.test", tls);
    let client = certificates.client(Shows::Nothing, TlsVersion::TLS_1_2);
    let client = lab.client("client", client);
    lab.dial(client, &url("a.test"));
    assert_eq!(
        lab.journal.refused().unwrap().tls,
        Some(TlsFailure::NoCommonVersion)
    );
    let alert = TlsFailure::PeerAlert(Alert::PROTOCOL_VERSION);
    let failed = lab.journal.connect_error().unwrap();
    assert_eq!((failed.tls, failed.stage), (Some(alert), ConnectStage::Tls));
}

fn agreed(server: ServerTls, client: ClientTls) -> Result<wsloop::tls::TlsInfo, TlsFailure> {
    let mut lab = Lab::new();
    lab.server("a.test", server);
    let client = lab.client("client", client);
    lab.dial(client, &url("a.test"));
    match lab.journal.open("client") {
        Some(open) => Ok(open.info.unwrap()),
        None => Err(lab.journal.connect_error().unwrap().tls.unwrap()),
    }
}

#[test]
fn the_highest_version_is_kept_by_both_sides() {
    const OLD: TlsVersion = TlsVersion::TLS_1_2;
    const NEW: TlsVersion = TlsVersion::TLS_1_3;
    let pki = Pki::new("ca");
    for (server, client, expected) in [
        (NEW, NEW, NEW),
        (OLD, NEW, OLD),
        (NEW, OLD, OLD),
        (OLD, OLD, OLD),
    ] {
        let server = server_tls(&pki, &["a.test"]).max_version(server);
        let client = ClientTls::new(roots(&pki)).max_version(client);
        assert_eq!(agreed(server, client).unwrap().version, expected);
    }
    let server = server_tls(&pki, &["a.test"]).min_version(NEW);
    let client = ClientTls::new(roots(&pki)).max_version(OLD);
    let alert = TlsFailure::PeerAlert(Alert::PROTOCOL_VERSION);
    assert_eq!(agreed(server, client).unwrap_err(), alert);
}

#[test]
fn versions_that_leave_none_are_refused_at_once() {
    const OLD: TlsVersion = TlsVersion::TLS_1_2;
    const NEW: TlsVersion = TlsVersion::TLS_1_3;
    let pki = Pki::new("ca");
    let ancient = TlsVersion::new(0x0301);
    for (min, max, text) in [
        (
            NEW,
            OLD,
            "the highest version, TLS 1.2, is below the lowest, TLS 1.3",
        ),
        (OLD, ancient, "TLS 1.0 is not implemented"),
        (ancient, NEW, "TLS 1.0 is not implemented"),
    ] {
        let server = server_tls(&pki, &["a.test"])
            .min_version(min)
            .max_version(max);
        let client = ClientTls::new(roots(&pki))
            .min_version(min)
            .max_version(max);
        for config in [
            VhostConfig::new("a.test").server_tls(server),
            VhostConfig::new("a.test").client_tls(client),
        ] {
            let error = Lab::new().context.create_vhost(config).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}

#[test]
fn a_client_that_prefers_a_post_quantum_key_exchange_gets_it() {
    let pki = Pki::new("ca");
    let known = crate::lab::provider();
    let is_hybrid = |group: &&&dyn rustls::crypto::SupportedKxGroup| {
        group.name() == rustls::NamedGroup::X25519MLKEM768
    };
    let hybrid = known.kx_groups.iter().any(|group| is_hybrid(&group));
    for prefers in [false, true] {
        let server = server_tls(&pki, &["a.test"]);
        let client = ClientTls::new(roots(&pki)).prefer_post_quantum(prefers);
        let info = agreed(server, client).unwrap();
        let expected = match prefers && hybrid {
            true => "X25519MLKEM768",
            false => "X25519",
        };
        assert_eq!(info.group, Some(expected));
    }
}
