//! What a client makes of a server's certificate, and what an application may make of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use wsloop::tls::{
    Alert, CertificateProblem, ClientAuth, ClientTls, ClientTrust, Refused, RevocationLists, Roots,
    ServerTls, TlsFailure, TlsStep, Verdict,
};
use wsloop::{ConnectStage, Side};

use crate::lab::{
    Failed, Lab, any_identity, has_step, identity, provider, roots, rustls_client, rustls_identity,
    rustls_server, server_tls, url,
};
use crate::testpki::{EC_AUTHORITY_CERTIFICATE, EC_SEC1_KEY, Leaf, Pki, date};

/// A client of these settings meets a server that shows this.
fn meet(tls: ClientTls, leaf: &Leaf, old_version: bool) -> Lab {
    let version = if old_version { &TLS12 } else { &TLS13 };
    let mut lab = Lab::new();
    // What our own settings would refuse to show, rustls shows.
    let server = match old_version {
        true => ServerTls::from_rustls(rustls_server(leaf, &[version]).into()),
        false => ServerTls::new(any_identity(leaf)),
    };
    lab.server("a.test", server);
    let client = lab.client("client", tls);
    lab.dial(client, &url("a.test"));
    lab
}

/// Both sides' account of a server that was not accepted.
fn both(lab: &Lab) -> (Failed, Option<TlsFailure>) {
    let failed = lab.journal.connect_error().unwrap();
    assert_eq!(failed.stage, ConnectStage::Tls);
    assert_eq!(lab.journal.opens("client") + lab.journal.opens("a.test"), 0);
    assert_eq!(lab.context.connections(), 0);
    (failed, lab.journal.refused().unwrap().tls)
}

#[test]
fn tl_05_each_fault_of_a_server_s_certificate_has_its_reason_and_its_alert() {
    use CertificateProblem as P;
    let pki = Pki::new("ca");
    let at_a = || pki.leaf(&["a.test"]);
    let revoked = at_a().issue();
    let middle = pki.intermediate("middle");
    let mut gap = middle.leaf(&["a.test"]).issue();
    gap.keep_leaf_only();
    let self_signed = Pki::new("another ca").leaf(&["a.test"]).issue();
    type Is = fn(&P) -> bool;
    let cases: [(&str, Leaf, Is, Alert); 8] = [
        (
            "expired",
            at_a().valid(date(2000, 1, 1), date(2010, 1, 1)).issue(),
            |p| matches!(p, P::Expired { .. }),
            Alert::CERTIFICATE_EXPIRED,
        ),
        (
            "not yet valid",
            at_a().valid(date(2080, 1, 1), date(2090, 1, 1)).issue(),
            |p| matches!(p, P::NotYetValid { .. }),
            Alert::CERTIFICATE_EXPIRED,
        ),
        (
            "unknown issuer",
            self_signed,
            |p| *p == P::UnknownIssuer,
            Alert::UNKNOWN_CA,
        ),
        (
            "missing intermediate",
            gap,
            |p| *p == P::UnknownIssuer,
            Alert::UNKNOWN_CA,
        ),
        (
            "wrong purpose",
            at_a().for_clients_only().issue(),
            |p| matches!(p, P::WrongPurpose { .. }),
            Alert::UNSUPPORTED_CERTIFICATE,
        ),
        (
            "revoked",
            revoked.clone(),
            |p| *p == P::Revoked,
            Alert::CERTIFICATE_REVOKED,
        ),
        (
            "wrong name",
            pki.leaf(&["b.test"]).issue(),
            |p| matches!(p, P::NotValidForName { .. }),
            Alert::BAD_CERTIFICATE,
        ),
        (
            "authority",
            at_a().authority().issue(),
            |p| *p == P::CaUsedAsEndEntity,
            Alert::CERTIFICATE_UNKNOWN,
        ),
    ];
    for old_version in [false, true] {
        for (case, leaf, is, alert) in &cases {
            let lists = RevocationLists::from_pem(pki.crl_pem(&[&revoked])).unwrap();
            let lists = match *case {
                // There is no list of what is between.
                "missing intermediate" => RevocationLists::default(),
                _ => lists,
            };
            let tls = ClientTls::new(roots(&pki)).revocation_lists(lists);
            let lab = meet(tls, leaf, old_version);
            let (failed, at_server) = both(&lab);
            let Some(TlsFailure::Certificate(problem)) = &failed.tls else {
                panic!("{case}: {}", failed.text);
            };
            assert!(is(problem), "{case}: {problem:?}");
            assert_eq!(failed.tls.as_ref().unwrap().alert(), Some(*alert), "{case}");
            assert_eq!(at_server, Some(TlsFailure::PeerAlert(*alert)), "{case}");
        }
    }
}

/// Signatures and keys that are too weak, and an issuer who is no authority; made by
/// `tests/tls/weak/make.sh`, since our own tools refuse to.
#[test]
fn tl_05_weak_signatures_and_keys_and_false_authorities_are_refused() {
    use CertificateProblem as P;
    type Is = fn(&P) -> bool;
    macro_rules! case {
        ($name:literal, $is:expr) => {
            (
                $name,
                include_str!(concat!("weak/", $name, "-ca.pem")),
                include_str!(concat!("weak/", $name, ".pem")),
                include_str!(concat!("weak/", $name, ".key")),
                $is as Is,
            )
        };
    }
    for (name, ca, chain, key, is) in [
        case!("sha1", |p| *p == P::UnsupportedSignature),
        case!("rsa1024", |p| *p == P::BadSignature),
        case!("no-authority", |p| *p == P::IssuerNotAuthority),
    ] {
        for version in [&TLS12, &TLS13] {
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            let server = ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(&[version])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain.map(Result::unwrap).collect(), key)
                .unwrap();
            let mut lab = Lab::new();
            lab.server("a.test", ServerTls::from_rustls(server.into()));
            let client = ClientTls::new(Roots::from_pem(ca).unwrap());
            let client = lab.client("client", client);
            lab.dial(client, &url("a.test"));
            let (failed, at_server) = both(&lab);
            let Some(TlsFailure::Certificate(problem)) = &failed.tls else {
                panic!("{name}: {}", failed.text);
            };
            assert!(is(problem), "{name}: {problem:?}");
            let alert = failed.tls.as_ref().unwrap().alert().unwrap();
            assert_eq!(at_server, Some(TlsFailure::PeerAlert(alert)), "{name}");
        }
    }
}

#[test]
fn a_whole_chain_under_an_intermediate_is_accepted() {
    let pki = Pki::new("ca");
    let leaf = pki
        .intermediate("one")
        .intermediate("two")
        .leaf(&["a.test"])
        .issue();
    for old_version in [false, true] {
        let lab = meet(ClientTls::new(roots(&pki)), &leaf, old_version);
        assert_eq!(lab.journal.texts("client"), ["hello"]);
        let open = lab.journal.open("client").unwrap();
        assert_eq!(open.peer.unwrap().chain().len(), 3);
    }
}

#[test]
fn tl_18_looking_at_a_failure_does_not_change_it() {
    static LOOKED: AtomicUsize = AtomicUsize::new(0);
    let pki = Pki::new("ca");
    let leaf = pki.leaf(&["b.test"]).issue();
    type Look = fn() -> Verdict;
    let looks: [Look; 3] = [
        || Verdict::Reject,
        || Verdict::Accept,
        || panic!("what the application does wrong"),
    ];
    for look in looks {
        let before = LOOKED.load(Ordering::Relaxed);
        let tls = ClientTls::new(roots(&pki)).on_verify_failure(move |failure| {
            LOOKED.fetch_add(1, Ordering::Relaxed);
            assert_eq!(failure.name(), "a.test");
            assert_eq!(failure.peer().dns_names(), ["b.test"]);
            assert!(!failure.peer().is_verified());
            assert!(matches!(
                failure.problem(),
                CertificateProblem::NotValidForName { .. }
            ));
            look()
        });
        let lab = meet(tls, &leaf, false);
        let (failed, at_server) = both(&lab);
        assert!(
            matches!(failed.tls, Some(TlsFailure::Certificate(_))),
            "{}",
            failed.text
        );
        assert_eq!(
            at_server,
            Some(TlsFailure::PeerAlert(Alert::BAD_CERTIFICATE))
        );
        assert_eq!(LOOKED.load(Ordering::Relaxed), before + 1);
    }
}

#[test]
fn tl_18_a_panic_rejects_even_where_the_application_may_accept() {
    let pki = Pki::new("ca");
    let leaf = pki.leaf(&["b.test"]).issue();
    let tls = ClientTls::new(roots(&pki))
        .danger_allow_override(true)
        .on_verify_failure(|_| panic!("what the application does wrong"));
    both(&meet(tls, &leaf, false));
    // A context goes on after that.
    let tls = ClientTls::new(roots(&pki)).danger_allow_override(true);
    both(&meet(tls, &leaf, false));
}

#[test]
fn what_passes_by_a_dangerous_option_is_not_called_verified() {
    let pki = Pki::new("ca");
    let other = Pki::new("another ca").leaf(&["b.test"]).issue();
    let wrong_name = pki.leaf(&["b.test"]).issue();
    let tls = || ClientTls::new(roots(&pki));
    for (case, (tls, leaf, verified)) in [
        (
            tls()
                .danger_allow_override(true)
                .on_verify_failure(|_| Verdict::Accept),
            &other,
            false,
        ),
        (tls().danger_accept_any_certificate(true), &other, false),
        (tls().danger_no_hostname_check(true), &wrong_name, true),
    ]
    .into_iter()
    .enumerate()
    {
        let mut lab = meet(tls, leaf, false);
        let open = lab.journal.open("client").unwrap();
        let peer = open.peer.unwrap();
        assert_eq!(peer.dns_names(), ["b.test"]);
        assert_eq!(peer.is_verified(), verified, "{case}");
        let report = lab.journal.report(Side::Client).unwrap();
        let passed = |step: &TlsStep| matches!(step, TlsStep::AcceptedUnverified { .. });
        assert_eq!(
            has_step(&report.trace, passed),
            !verified,
            "{}",
            report.trace
        );
        // Nothing is remembered that would let the next one pass without a look.
        let vhost = open.vhost;
        lab.journal.take();
        lab.dial(vhost, &url("a.test"));
        let open = lab.journal.open("client").unwrap();
        assert_eq!(open.info.unwrap().handshake.to_string(), "full handshake");
        assert_eq!(open.peer.unwrap().is_verified(), verified);
    }
}

#[test]
fn a_pin_refuses_what_verification_lets_pass() {
    let pki = Pki::new("ca");
    let good = pki.leaf(&["a.test"]).issue();
    let same_name = pki.leaf(&["a.test"]).issue();
    for (leaf, served) in [(&good, true), (&same_name, false)] {
        let pinned = good.leaf_der().to_vec();
        let tls = ClientTls::new(roots(&pki)).after_verification(move |peer| {
            match peer.leaf() == pinned {
                true => Ok(()),
                false => Err(Refused::new("another certificate than the one we know")),
            }
        });
        let lab = meet(tls, leaf, false);
        if served {
            assert!(
                lab.journal
                    .open("client")
                    .unwrap()
                    .peer
                    .unwrap()
                    .is_verified()
            );
            continue;
        }
        let (failed, at_server) = both(&lab);
        let problem = CertificateProblem::RefusedByApplication;
        assert_eq!(failed.tls, Some(TlsFailure::Certificate(problem)));
        assert_eq!(at_server, Some(TlsFailure::PeerAlert(Alert::ACCESS_DENIED)));
    }
}

#[test]
fn a_self_signed_certificate_of_openssl_is_told_from_an_unknown_one() {
    let mut lab = Lab::new();
    let own = wsloop::tls::Identity::from_pem(EC_AUTHORITY_CERTIFICATE, EC_SEC1_KEY).unwrap();
    lab.net.name("localhost", [crate::support::addr().ip()]);
    lab.server("a.test", ServerTls::new(own));
    let tls = ClientTls::new(Roots::from_pem(EC_AUTHORITY_CERTIFICATE).unwrap());
    let client = lab.client("client", tls);
    lab.dial(client, &url("localhost"));
    let failed = lab.journal.connect_error().unwrap();
    let problem = CertificateProblem::CaUsedAsEndEntity;
    assert_eq!(failed.tls, Some(TlsFailure::Certificate(problem)));
    assert!(failed.text.contains("CA:FALSE"), "{}", failed.text);
}

/// A verifier of the application's, which takes whoever comes.
#[derive(Debug)]
struct Anybody;

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[test]
fn what_a_configuration_of_rustls_has_accepted_is_not_called_verified() {
    for version in [&TLS12, &TLS13] {
        let pki = Pki::new("ca");
        let leaf = pki.leaf(&["a.test"]).issue();
        let stranger = Pki::new("anybody's ca").leaf(&["who.test"]).issue();
        let (chain, key) = rustls_identity(&leaf);
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(Arc::new(Anybody))
            .with_single_cert(chain, key)
            .unwrap();
        let mut lab = Lab::new();
        lab.server("a.test", ServerTls::from_rustls(server.into()));
        let tls = rustls_client(&pki, Some(&stranger), &[version]);
        let client = lab.client("client", ClientTls::from_rustls(tls.into()));
        // The second one is resumed.
        for _ in 0..2 {
            lab.dial(client, &url("a.test"));
            for who in ["a.test", "client"] {
                let peer = lab.journal.open(who).unwrap().peer.unwrap();
                assert!(!peer.is_verified(), "{who} sees {peer:?}");
            }
            for side in [Side::Server, Side::Client] {
                let trace = lab.journal.report(side).unwrap().trace;
                assert!(!has_step(&trace, |step| *step == TlsStep::Verified));
            }
        }
    }
}

#[test]
fn what_our_own_rules_have_accepted_is_verified_in_resumed_sessions_too() {
    let pki = Pki::new("ca");
    let trust = ClientTrust::new(roots(&pki));
    let tls = server_tls(&pki, &["a.test"]).client_auth(ClientAuth::Required(trust));
    let mut lab = Lab::new();
    lab.server("a.test", tls);
    let leaf = pki.leaf(&["who.test"]).issue();
    let tls = ClientTls::new(roots(&pki)).identity(identity(&leaf));
    let client = lab.client("client", tls);
    for how in ["full handshake", "resumed"] {
        lab.dial(client, &url("a.test"));
        for who in ["a.test", "client"] {
            let open = lab.journal.open(who).unwrap();
            assert_eq!(open.info.unwrap().handshake.to_string(), how);
            assert!(open.peer.unwrap().is_verified(), "{who} {how}");
        }
        for side in [Side::Server, Side::Client] {
            let trace = lab.journal.report(side).unwrap().trace;
            let verified = has_step(&trace, |step| *step == TlsStep::Verified);
            assert_eq!(verified, how == "full handshake", "{side:?} {trace}");
        }
    }
}

#[test]
fn a_client_that_never_gives_up_comes_back_when_the_certificate_is_exchanged() {
    let policy = |forever: bool| {
        let builder = wsloop::RetryPolicy::builder()
            .delays([Duration::from_secs(1), Duration::from_secs(60)])
            .jitter_percent(0);
        let builder = if forever { builder.forever() } else { builder };
        builder.build().unwrap()
    };
    let pki = Pki::new("ca");
    for forever in [true, false] {
        let mut lab = Lab::new();
        let foreign = Pki::new("another ca");
        let server = lab.server("a.test", server_tls(&foreign, &["a.test"]));
        let client = lab.client("client", ClientTls::new(roots(&pki)));
        let info = wsloop::ClientConnectInfo::from_url(&url("a.test")).unwrap();
        lab.connect(client, info.reconnect(policy(forever)));
        assert_eq!(lab.journal.connect_error().is_none(), forever);
        let good = identity(&pki.leaf(&["a.test"]).issue());
        lab.context.set_server_identity(server, good).unwrap();
        lab.pass(Duration::from_secs(59));
        assert_eq!(
            lab.journal.opens("client"),
            0,
            "the last delay, not the first"
        );
        lab.pass(Duration::from_secs(2));
        assert_eq!(lab.journal.opens("client") == 1, forever);
    }
}
