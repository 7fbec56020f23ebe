//! Who is let in: every way to ask for a certificate against every kind of certificate, and every
//! fault of a server's certificate, in both versions of TLS.

use rustls::{AlertDescription, Error};

use super::super::client::ClientTls;
use super::super::failure::CertificateProblem;
use super::super::hello::TlsVersion;
use super::super::roots::{RevocationLists, Roots};
use super::super::server::{ClientAuth, ClientSelector, ClientTrust, Resumption, ServerTls};
use super::super::testpki::date;
use super::*;

/// Certificates of clients, one for each thing that can be wrong with one.
struct Clients {
    ca: Pki,
    presented: Vec<(&'static str, Option<Leaf>)>,
    lists: RevocationLists,
}

impl Clients {
    fn new() -> Self {
        let ca = Pki::new("client ca");
        let leaf = || ca.leaf(&["device"]);
        let revoked = leaf().issue();
        let presented = vec![
            ("none", None),
            ("good", Some(leaf().issue())),
            (
                "expired",
                Some(leaf().valid(date(2001, 1, 1), date(2002, 1, 1)).issue()),
            ),
            (
                "not yet valid",
                Some(leaf().valid(date(2089, 1, 1), date(2090, 1, 1)).issue()),
            ),
            (
                "unknown CA",
                Some(Pki::new("junk ca").leaf(&["device"]).issue()),
            ),
            (
                "CA of the same name",
                Some(Pki::new("client ca").leaf(&["device"]).issue()),
            ),
            ("wrong EKU", Some(leaf().for_servers_only().issue())),
            ("revoked", Some(revoked.clone())),
        ];
        let lists = RevocationLists::from_pem(ca.crl_pem(&[&revoked])).unwrap();
        Self {
            ca,
            presented,
            lists,
        }
    }

    fn trust(&self) -> ClientTrust {
        let roots = Roots::from_pem(self.ca.ca_pem()).unwrap();
        ClientTrust::new(roots).revocation_lists(self.lists.clone())
    }
}

/// What the server says, and the alert that it sends; nothing if it lets the client in.
fn expected(auth: &str, presented: &str) -> Option<(&'static str, AlertDescription)> {
    use AlertDescription as A;
    match (auth, presented) {
        ("none", _) | (_, "good") | ("optional", "none") => None,
        (_, "none") => Some(("NoCertificatesPresented", A::CertificateRequired)),
        (_, "expired") => Some(("Expired", A::CertificateExpired)),
        (_, "not yet valid") => Some(("NotYetValid", A::CertificateExpired)),
        (_, "unknown CA") => Some(("UnknownIssuer", A::UnknownCA)),
        (_, "CA of the same name") => Some(("BadSignature", A::DecryptError)),
        (_, "wrong EKU") => Some(("WrongPurpose", A::UnsupportedCertificate)),
        (_, "revoked") => Some(("Revoked", A::CertificateRevoked)),
        other => unreachable!("{other:?}"),
    }
}

/// The kind of error, without what it says of times and names.
fn kind(error: &Error) -> String {
    let text = match error {
        Error::InvalidCertificate(what) => {
            format!("{:?}", CertificateProblem::from(what.clone()))
        }
        other => format!("{other:?}"),
    };
    let end = text.find([' ', '(', '{']).unwrap_or(text.len());
    text[..end].to_owned()
}

#[test]
fn tl_09_every_way_to_ask_against_every_certificate_in_both_versions() {
    let (server_ca, clients) = (Pki::new("server ca"), Clients::new());
    let server = identity(&server_ca.leaf(&["a.test"]).issue());
    let modes = [
        ("none", ClientAuth::None),
        ("optional", ClientAuth::Optional(clients.trust())),
        ("required", ClientAuth::Required(clients.trust())),
    ];
    for (auth, mode) in modes {
        let tls = ServerTls::new(server.clone()).client_auth(mode);
        let configs = tls.build(&env()).unwrap();
        assert_eq!(configs.requires_client_cert(), auth == "required");
        for version in VERSIONS {
            for (presented, leaf) in &clients.presented {
                let client = their_client(&server_ca, leaf.as_ref(), version);
                let outcome = run(connect(&client, "a.test"), &Server::Ours(&configs));
                let case = format!("{auth}, {presented}, {version:?}");
                check(&outcome, expected(auth, presented), &case);
                let requested = outcome
                    .server_steps
                    .contains(&TlsStep::CertificateRequested);
                assert_eq!(requested, auth != "none", "{case}");
                let known = outcome.is_established() && auth != "none";
                let chain = leaf.as_ref().map(|leaf| leaf.chain_der().to_vec());
                let chain = chain.filter(|_| known);
                let had = outcome.client_chain.filter(|_| outcome.server.is_ok());
                assert_eq!(had, chain, "{case}");
            }
        }
    }
}

fn check(outcome: &Outcome, expected: Option<(&str, AlertDescription)>, case: &str) {
    let Some((error, alert)) = expected else {
        assert!(outcome.is_established(), "{case}: {:?}", outcome.server);
        return;
    };
    let server = outcome.server.as_ref().unwrap_err();
    assert_eq!(kind(server), error, "{case}");
    assert_eq!(outcome.client, Err(Error::AlertReceived(alert)), "{case}");
    let noted = outcome.server_steps.iter().find_map(|step| match step {
        TlsStep::VerificationFailed(problem) => Some(problem.clone()),
        _ => None,
    });
    let problem = match server {
        Error::InvalidCertificate(what) => Some(CertificateProblem::from(what.clone())),
        _ => None,
    };
    assert_eq!(noted, problem, "{case}");
}

/// The types of the handshake messages that the server sent in the clear, which in TLS 1.2 are all
/// up to its first ChangeCipherSpec.
fn clear_messages(mut wire: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    let mut messages = Vec::new();
    while let [22, _, _, high, low, rest @ ..] = wire {
        let (record, rest) = rest.split_at(usize::from(*high) << 8 | usize::from(*low));
        messages.extend_from_slice(record);
        wire = rest;
    }
    let mut messages = &messages[..];
    while let [kind, a, b, c, rest @ ..] = messages {
        types.push(*kind);
        messages = &rest[u32::from_be_bytes([0, *a, *b, *c]) as usize..];
    }
    types
}

#[test]
fn tl_09_a_server_that_asks_nobody_sends_no_certificate_request() {
    const CERTIFICATE_REQUEST: u8 = 13;
    let (server_ca, clients) = (Pki::new("server ca"), Clients::new());
    let server = identity(&server_ca.leaf(&["a.test"]).issue());
    for (mode, asks) in [
        (ClientAuth::None, false),
        (ClientAuth::Optional(clients.trust()), true),
        (ClientAuth::Required(clients.trust()), true),
    ] {
        let tls = ServerTls::new(server.clone()).client_auth(mode);
        let configs = tls.build(&env()).unwrap();
        let client = their_client(&server_ca, None, &version::TLS12);
        let outcome = run(connect(&client, "a.test"), &Server::Ours(&configs));
        let types = clear_messages(&outcome.to_client);
        assert!(types.starts_with(&[2, 11]), "{types:?}");
        assert_eq!(types.contains(&CERTIFICATE_REQUEST), asks, "{types:?}");
    }
}

#[test]
fn selected_clients_are_asked_and_the_others_are_not() {
    let (server_ca, clients) = (Pki::new("server ca"), Clients::new());
    let server = identity(&server_ca.leaf(&["asked.test", "quiet.test"]).issue());
    let by_name = ClientSelector::new(|hello| hello.server_name() == Some("asked.test"));
    let tls = ServerTls::new(server).client_auth(ClientAuth::OptionalIf(by_name, clients.trust()));
    let configs = tls.build(&env()).unwrap();
    assert!(!configs.requires_client_cert());
    for version in VERSIONS {
        for (presented, leaf) in &clients.presented {
            let client = their_client(&server_ca, leaf.as_ref(), version);
            let asked = run(connect(&client, "asked.test"), &Server::Ours(&configs));
            check(&asked, expected("optional", presented), presented);
            assert!(asked.server_steps.contains(&TlsStep::CertificateRequested));
            let quiet = run(connect(&client, "quiet.test"), &Server::Ours(&configs));
            check(&quiet, None, presented);
            assert_eq!((quiet.client_chain, quiet.server_steps), (None, vec![]));
        }
    }
}

/// A ClientHello of rustls for TLS 1.2, its first cipher suite replaced by a reserved one.
fn hello_with_grease(client: &Arc<ClientConfig>) -> Vec<u8> {
    let mut wire = Vec::new();
    connect(client, "a.test").write_tls(&mut wire).unwrap();
    // Record and message header, version, random; then the session id and the suites' length.
    let session_id = 5 + 4 + 2 + 32;
    let first_suite = session_id + 1 + usize::from(wire[session_id]) + 2;
    wire[first_suite..first_suite + 2].copy_from_slice(&[0x0a, 0x0a]);
    wire
}

#[test]
fn browsers_are_not_asked_where_the_selector_says_so() {
    const CERTIFICATE_REQUEST: u8 = 13;
    let (server_ca, clients) = (Pki::new("server ca"), Clients::new());
    let server = identity(&server_ca.leaf(&["a.test"]).issue());
    let auth = ClientAuth::OptionalIf(ClientSelector::not_a_browser(), clients.trust());
    let configs = ServerTls::new(server)
        .client_auth(auth)
        .build(&env())
        .unwrap();
    let client = their_client(&server_ca, None, &version::TLS12);
    let machine = {
        let mut wire = Vec::new();
        connect(&client, "a.test").write_tls(&mut wire).unwrap();
        wire
    };
    for (wire, asked) in [(machine, true), (hello_with_grease(&client), false)] {
        let config = configs.for_hello(&hello(&wire));
        let mut side = Side::new(ServerConnection::new(config).unwrap().into());
        side.input(&wire);
        let types = clear_messages(&side.output());
        assert!(types.starts_with(&[2, 11]), "{types:?}");
        assert_eq!(types.contains(&CERTIFICATE_REQUEST), asked, "{types:?}");
    }
}

#[test]
fn sessions_of_clients_that_were_not_asked_are_not_resumed_by_those_that_are() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let (server_ca, clients) = (Pki::new("server ca"), Clients::new());
    let server = identity(&server_ca.leaf(&["a.test"]).issue());
    let good = clients.presented[1].1.as_ref();
    for resumption in [Resumption::Tickets, Resumption::Cache(100)] {
        for version in VERSIONS {
            let ask = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&ask);
            let selector = ClientSelector::new(move |_| seen.load(Ordering::Relaxed));
            let tls = ServerTls::new(server.clone())
                .client_auth(ClientAuth::OptionalIf(selector, clients.trust()))
                .resumption(resumption);
            let configs = tls.build(&env()).unwrap();
            let client = their_client(&server_ca, good, version);
            // rustls forgets what it could not resume, so each kind is tried twice.
            let kinds = [false, false, true, true, false, false].map(|asked| {
                ask.store(asked, Ordering::Relaxed);
                let outcome = run(connect(&client, "a.test"), &Server::Ours(&configs));
                assert!(outcome.is_established());
                assert_eq!(outcome.client_chain.is_some(), asked);
                outcome.kind.unwrap()
            });
            use HandshakeKind::{Full, Resumed};
            assert_eq!(
                kinds,
                [Full, Resumed, Full, Resumed, Full, Resumed],
                "{resumption:?}"
            );
        }
    }
}

#[test]
fn resumption_can_be_switched_off() {
    let pki = Pki::new("ca");
    let tls = ServerTls::new(identity(&pki.leaf(&["a.test"]).issue())).resumption(Resumption::Off);
    let configs = tls.build(&env()).unwrap();
    for version in VERSIONS {
        let client = their_client(&pki, None, version);
        for _ in 0..3 {
            let outcome = run(connect(&client, "a.test"), &Server::Ours(&configs));
            assert_eq!(outcome.kind, Some(HandshakeKind::Full));
        }
    }
}

/// A server's certificate, and what our client says of it and answers.
type Fault = (&'static str, Leaf, Option<(&'static str, AlertDescription)>);

fn faults(ca: &Pki, revoked: &Leaf) -> Vec<Fault> {
    use AlertDescription as A;
    let leaf = || ca.leaf(&["a.test"]);
    let sub = ca.intermediate("between");
    let mut incomplete = sub.leaf(&["a.test"]).issue();
    incomplete.keep_leaf_only();
    vec![
        ("good", leaf().issue(), None),
        (
            "good, through an intermediate",
            sub.leaf(&["a.test"]).issue(),
            None,
        ),
        (
            "expired",
            leaf().valid(date(2001, 1, 1), date(2002, 1, 1)).issue(),
            Some(("Expired", A::CertificateExpired)),
        ),
        (
            "not yet valid",
            leaf().valid(date(2089, 1, 1), date(2090, 1, 1)).issue(),
            Some(("NotYetValid", A::CertificateExpired)),
        ),
        (
            "wrong name",
            ca.leaf(&["b.test", "*.a.test"]).issue(),
            Some(("NotValidForName", A::BadCertificate)),
        ),
        (
            "unknown CA",
            Pki::new("junk ca").leaf(&["a.test"]).issue(),
            Some(("UnknownIssuer", A::UnknownCA)),
        ),
        (
            "CA of the same name",
            Pki::new("ca").leaf(&["a.test"]).issue(),
            Some(("BadSignature", A::DecryptError)),
        ),
        (
            "no intermediate",
            incomplete,
            Some(("UnknownIssuer", A::UnknownCA)),
        ),
        (
            "wrong EKU",
            leaf().for_clients_only().issue(),
            Some(("WrongPurpose", A::UnsupportedCertificate)),
        ),
        (
            "CA as leaf",
            leaf().authority().issue(),
            Some(("CaUsedAsEndEntity", A::CertificateUnknown)),
        ),
        (
            "unknown critical extension",
            leaf().with_unknown_critical_extension().issue(),
            Some(("UnknownCriticalExtension", A::CertificateUnknown)),
        ),
        (
            "revoked",
            revoked.clone(),
            Some(("Revoked", A::CertificateRevoked)),
        ),
    ]
}

#[test]
fn tl_05_every_fault_of_a_servers_certificate_is_refused_with_its_reason_and_alert() {
    let ca = Pki::new("ca");
    let revoked = ca.leaf(&["a.test"]).issue();
    let lists = RevocationLists::from_pem(ca.crl_pem(&[&revoked])).unwrap();
    // The intermediate's own leaf needs a list of the intermediate.
    let lists = lists.danger_accept_unknown();
    let roots = Roots::from_pem(ca.ca_pem()).unwrap();
    let client = ClientTls::new(roots).revocation_lists(lists);
    let client = client.build(&env()).unwrap();
    for version in VERSIONS {
        for (fault, leaf, expected) in faults(&ca, &revoked) {
            let server = Server::Theirs(their_server(&leaf, version));
            let outcome = handshake(&client, names("a.test"), &server);
            let case = format!("{fault}, {version:?}");
            let received = TlsStep::CertificateReceived {
                count: leaf.chain_der().len(),
            };
            assert_eq!(outcome.client_steps.first(), Some(&received), "{case}");
            let Some((error, alert)) = expected else {
                assert!(outcome.is_established(), "{case}: {:?}", outcome.client);
                assert_eq!(
                    outcome.client_steps.get(1),
                    Some(&TlsStep::Verified),
                    "{case}"
                );
                assert_eq!(outcome.server_chain.as_deref(), Some(leaf.chain_der()));
                continue;
            };
            let own = outcome.client.as_ref().unwrap_err();
            assert_eq!(kind(own), error, "{case}");
            assert_eq!(outcome.server, Err(Error::AlertReceived(alert)), "{case}");
            let last = outcome.client_steps.last();
            assert!(
                matches!(last, Some(TlsStep::VerificationFailed(_))),
                "{case}: {last:?}"
            );
        }
    }
}

#[test]
fn a_revocation_list_is_taken_strictly_unless_told_otherwise() {
    let (server_ca, ca) = (Pki::new("server ca"), Pki::new("client ca"));
    let server = identity(&server_ca.leaf(&["a.test"]).issue());
    let leaf = ca.leaf(&["device"]).issue();
    let client = their_client(&server_ca, Some(&leaf), &version::TLS13);
    let outdated = ca.crl_pem_until(&[], date(2021, 1, 1));
    let foreign = Pki::new("another ca").crl_pem(&[]);
    let lists = |pem: &str| RevocationLists::from_pem(pem).unwrap();
    for (what, lists, expected) in [
        ("outdated", lists(&outdated), Some("RevocationListExpired")),
        (
            "outdated, lax",
            lists(&outdated).danger_accept_outdated(),
            None,
        ),
        ("foreign", lists(&foreign), Some("RevocationUnknown")),
        (
            "foreign, lax",
            lists(&foreign).danger_accept_unknown(),
            None,
        ),
        (
            "joined",
            lists(&foreign).and(&lists(&ca.crl_pem(&[]))),
            None,
        ),
        (
            "joined, revoked",
            lists(&foreign).and(&lists(&ca.crl_pem(&[&leaf]))),
            Some("Revoked"),
        ),
    ] {
        let roots = Roots::from_pem(ca.ca_pem()).unwrap();
        let trust = ClientTrust::new(roots).revocation_lists(lists);
        let tls = ServerTls::new(server.clone()).client_auth(ClientAuth::Required(trust));
        let configs = tls.build(&env()).unwrap();
        let outcome = run(connect(&client, "a.test"), &Server::Ours(&configs));
        let error = outcome.server.as_ref().err().map(kind);
        assert_eq!(error.as_deref(), expected, "{what}");
    }
}

#[test]
fn an_intermediate_is_looked_up_only_when_the_chain_is_to_be_checked() {
    let (server_ca, root) = (Pki::new("server ca"), Pki::new("client ca"));
    let between = root.intermediate("between");
    let leaf = between.leaf(&["device"]).issue();
    let client = their_client(&server_ca, Some(&leaf), &version::TLS13);
    let server = identity(&server_ca.leaf(&["a.test"]).issue());
    let lists = RevocationLists::from_pem(between.crl_pem(&[])).unwrap();
    for (lists, expected) in [
        (lists.clone(), None),
        (lists.check_chain(), Some("RevocationUnknown")),
    ] {
        let roots = Roots::from_pem(root.ca_pem()).unwrap();
        let trust = ClientTrust::new(roots).revocation_lists(lists);
        let tls = ServerTls::new(server.clone()).client_auth(ClientAuth::Required(trust));
        let configs = tls.build(&env()).unwrap();
        let outcome = run(connect(&client, "a.test"), &Server::Ours(&configs));
        let error = outcome.server.as_ref().err().map(kind);
        assert_eq!(error.as_deref(), expected);
    }
}

#[test]
fn the_minimum_version_holds_on_both_sides() {
    let pki = Pki::new("ca");
    let leaf = pki.leaf(&["a.test"]).issue();
    let server = ServerTls::new(identity(&leaf)).min_version(TlsVersion::TLS_1_3);
    let server = server.build(&env()).unwrap();
    let old = their_client(&pki, None, &version::TLS12);
    let outcome = run(connect(&old, "a.test"), &Server::Ours(&server));
    let alert = Error::AlertReceived(AlertDescription::ProtocolVersion);
    assert_eq!(outcome.client, Err(alert.clone()));
    let roots = Roots::from_pem(pki.ca_pem()).unwrap();
    let client = ClientTls::new(roots).min_version(TlsVersion::TLS_1_3);
    let client = client.build(&env()).unwrap();
    let old = Server::Theirs(their_server(&leaf, &version::TLS12));
    let outcome = handshake(&client, names("a.test"), &old);
    assert_eq!(outcome.client, Err(alert));
    assert_eq!(outcome.hello().versions(), [TlsVersion::TLS_1_3]);
    for version in [TlsVersion::new(0x0302), TlsVersion::new(0x0305)] {
        let error = ServerTls::new(identity(&leaf))
            .min_version(version)
            .build(&env());
        let text = format!("{version} is not implemented; TLS 1.2 and TLS 1.3 are");
        assert_eq!(error.unwrap_err().to_string(), text);
    }
}

#[test]
fn tl_12_protocols_are_agreed_on_or_refused() {
    let pki = Pki::new("ca");
    let leaf = pki.leaf(&["a.test"]).issue();
    let refused = Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    for (client, server, expected) in [
        (&["http/1.1"][..], &["http/1.1"][..], Ok(())),
        (&["h2", "http/1.1"], &["http/1.1"], Ok(())),
        (&[], &["http/1.1"], Ok(())),
        (&["http/1.1"], &[], Ok(())),
        (&["h2"], &["http/1.1"], Err(refused)),
    ] {
        let tls = ServerTls::new(identity(&leaf)).alpn(server.iter().copied());
        let configs = tls.build(&env()).unwrap();
        let roots = Roots::from_pem(pki.ca_pem()).unwrap();
        let tls = ClientTls::new(roots).alpn(client.iter().copied());
        let own = tls.build(&env()).unwrap();
        let outcome = handshake(&own, names("a.test"), &Server::Ours(&configs));
        assert_eq!(outcome.client, expected, "{client:?} {server:?}");
        let offered: Vec<_> = client.iter().map(|name| name.as_bytes()).collect();
        assert!(outcome.hello().alpn().eq(offered));
    }
    let tls = ServerTls::new(identity(&leaf)).alpn(["http/1.1", ""]);
    let text = "an ALPN protocol name has 1 to 255 bytes, this one has 0";
    assert_eq!(tls.build(&env()).unwrap_err().to_string(), text);
}

#[test]
fn http_1_1_is_offered_and_agreed_to_by_default() {
    let pki = Pki::new("ca");
    let server = ServerTls::new(identity(&pki.leaf(&["a.test"]).issue()));
    let client = ClientTls::new(Roots::from_pem(pki.ca_pem()).unwrap());
    let (server, client) = (server.build(&env()).unwrap(), client.build(&env()).unwrap());
    let outcome = handshake(&client, names("a.test"), &Server::Ours(&server));
    assert!(outcome.is_established());
    assert!(outcome.hello().alpn().eq([b"http/1.1"]));
}

/// `http/1.0` is a protocol of its own in the registry of RFC 7301, and `curl --http1.0` offers it
/// alone.
#[test]
fn a_client_that_speaks_http_1_0_alone_is_served_by_default() {
    let pki = Pki::new("ca");
    let server = ServerTls::new(identity(&pki.leaf(&["a.test"]).issue()));
    let server = server.build(&env()).unwrap();
    for (offered, agreed) in [
        (&["http/1.0"][..], b"http/1.0"),
        (&["http/1.0", "http/1.1"], b"http/1.1"),
    ] {
        let client = ClientTls::new(Roots::from_pem(pki.ca_pem()).unwrap());
        let client = client.alpn(offered.iter().copied());
        let client = client.build(&env()).unwrap();
        let outcome = handshake(&client, names("a.test"), &Server::Ours(&server));
        assert!(outcome.is_established(), "{offered:?}");
        assert_eq!(outcome.alpn.as_deref(), Some(&agreed[..]));
    }
}

#[test]
fn peers_without_roots_are_told_what_to_do() {
    let identity = identity(&Pki::new("ca").leaf(&["a.test"]).issue());
    let none = ClientTrust::new(Roots::default());
    let server = ServerTls::new(identity).client_auth(ClientAuth::Optional(none));
    assert_eq!(
        server.build(&env()).unwrap_err().to_string(),
        "there are no root certificates to verify clients against; give ClientTrust the CA that \
         issues their certificates: Roots::from_pem_file"
    );
    assert_eq!(
        ClientTls::new(Roots::default())
            .build(&env())
            .unwrap_err()
            .to_string(),
        "there are no root certificates to verify servers against; give ClientTls its roots: \
         Roots::from_pem_file for a CA of your own, Roots::system (feature `native-certs`) or \
         Roots::bundled (feature `webpki-roots`) for the public ones"
    );
}
