//! Settings that callbacks ask for, and how settings and steps are shown.

use wsloop::tls::{
    CertificateProblem, ChosenBy, ClientTls, Identity, PemSource, RevocationLists, Roots,
    ServerTls, TlsStep, TlsVersion,
};
use wsloop::{Side, VhostId};

use crate::lab::{Event, Lab, identity, roots, url};
use crate::testpki::Pki;

fn named(pki: &Pki, common_name: &str) -> Identity {
    identity(&pki.leaf(&["a.test"]).common_name(common_name).issue())
}

/// Which exchanges were told, and whether they came about.
fn exchanges(lab: &Lab) -> Vec<(VhostId, Side, bool)> {
    lab.journal.pick(|event| match event {
        Event::Identity(vhost, side, outcome) => Some((*vhost, *side, outcome.is_ok())),
        _ => None,
    })
}

#[test]
fn settings_that_a_callback_asks_for_are_in_use_after_it() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    let server = lab.server("a.test", ServerTls::new(named(&pki, "server 1")));
    let nobodys = ClientTls::new(roots(&Pki::new("other")));
    let (client, handle) = lab.client_with("client", nobodys);
    lab.dial(client, &url("a.test"));
    assert!(lab.journal.connect_error().is_some());
    let of_server = ServerTls::new(named(&pki, "server 2"));
    let of_client = ClientTls::new(roots(&pki));
    lab.context.with_protocol(handle, |_, cx| {
        cx.set_server_tls(server, of_server).unwrap();
        cx.set_client_tls(client, of_client).unwrap();
    });
    lab.turn();
    let expected = [(server, Side::Server, true), (client, Side::Client, true)];
    assert_eq!(exchanges(&lab), expected);
    lab.dial(client, &url("a.test"));
    let open = lab.journal.open("client").unwrap();
    assert_eq!(open.peer_name(), Some("server 2"));
}

#[test]
fn settings_that_are_not_fit_are_told_and_change_nothing() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    let server = lab.server("a.test", ServerTls::new(named(&pki, "server 1")));
    let (client, handle) = lab.client_with("client", ClientTls::new(roots(&pki)));
    let unfit = ServerTls::new(named(&pki, "server 2"))
        .min_version(TlsVersion::TLS_1_3)
        .max_version(TlsVersion::TLS_1_2);
    lab.context
        .with_protocol(handle, |_, cx| cx.set_server_tls(server, unfit).unwrap());
    lab.turn();
    assert_eq!(exchanges(&lab), [(server, Side::Server, false)]);
    lab.dial(client, &url("a.test"));
    let open = lab.journal.open("client").unwrap();
    assert_eq!(open.peer_name(), Some("server 1"));
}

#[test]
fn settings_show_what_they_are_and_no_keys() {
    let pki = Pki::new("ca");
    let tls = ServerTls::new(named(&pki, "server"));
    let shown = format!("{tls:?} {:?}", ClientTls::new(roots(&pki)));
    assert!(!shown.contains("PRIVATE"), "{shown}");
    assert_eq!(format!("{:?}", roots(&pki)), "Roots { len: 1, .. }");
    assert!(Roots::default().is_empty() && roots(&pki).skipped().is_empty());
    let lists = RevocationLists::from_pem(pki.crl_pem(&[])).unwrap();
    assert!(format!("{lists:?}").contains("len: 1"));
    let sources = [
        PemSource::File("a.pem".into()),
        PemSource::Memory,
        PemSource::MemoryCertificate,
        PemSource::MemoryKey,
        PemSource::System,
    ];
    let mut names: Vec<String> = sources.iter().map(ToString::to_string).collect();
    assert_eq!(sources.iter().filter_map(PemSource::path).count(), 1);
    names.dedup();
    assert_eq!(names.len(), sources.len());
}

#[test]
fn steps_of_a_handshake_are_told_in_words() {
    let by = |by| TlsStep::VhostChosen {
        vhost: "a".into(),
        by,
    };
    let problem = || CertificateProblem::BadSignature;
    for (step, text) in [
        (TlsStep::PeerClosed, "closed by the peer".to_owned()),
        (
            TlsStep::AcceptedUnverified { problem: None },
            "certificate not verified".to_owned(),
        ),
        (
            TlsStep::AcceptedUnverified {
                problem: Some(problem()),
            },
            format!("certificate accepted in spite of: {}", problem()),
        ),
        (
            by(ChosenBy::DefaultForNoName),
            "vhost \"a\" chosen by default, for there was no name".to_owned(),
        ),
        (
            by(ChosenBy::WildcardName),
            "vhost \"a\" chosen by wildcard name".to_owned(),
        ),
    ] {
        assert_eq!(step.to_string(), text);
    }
}
