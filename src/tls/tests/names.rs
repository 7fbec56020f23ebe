//! Which name is said and which is verified: the vhost's settings and the connection's against what
//! is on the wire.

use rustls::CertificateError;

use super::super::client::{ClientTls, Sni};
use super::super::failure::CertificateProblem;
use super::super::hello::ServerNameIndication;
use super::super::roots::Roots;
use super::{names as names_of, *};

/// The certificate of the server in all rows.
const NAMES: [&str; 5] = ["a.test", "*.b.test", "under_score.test", "10.0.0.1", "::1"];

enum Expect {
    /// The name on the wire, and the certificate is good.
    Good(Option<&'static str>),
    /// The name on the wire, and the name that the certificate is not for.
    Wrong(Option<&'static str>, &'static str),
    /// No handshake begins.
    Error(&'static str),
}

use Expect::{Error as Bad, Good, Wrong};
use Said::{Default, Name, Nothing, Vhost};

/// What a connection says of SNI.
#[derive(Clone, Copy)]
enum Said {
    Default,
    Name(&'static str),
    Nothing,
    /// As the vhost has it.
    Vhost,
}

impl Said {
    fn sni(self) -> Option<Sni> {
        match self {
            Default => Some(Sni::Default),
            Name(name) => Some(Sni::Name(name.to_owned())),
            Nothing => Some(Sni::None),
            Vhost => None,
        }
    }
}

/// Host, SNI and verification name of a connection, and what comes of them.
type Row = (&'static str, Said, Option<&'static str>, Expect);

const ROWS: &[Row] = &[
    // A host name is said and verified.
    ("a.test", Vhost, None, Good(Some("a.test"))),
    ("a.test", Default, None, Good(Some("a.test"))),
    ("A.Test", Vhost, None, Good(Some("a.test"))),
    ("a.test.", Vhost, None, Good(Some("a.test"))),
    ("x.b.test", Vhost, None, Good(Some("x.b.test"))),
    (
        "under_score.test",
        Vhost,
        None,
        Good(Some("under_score.test")),
    ),
    ("b.test", Vhost, None, Wrong(Some("b.test"), "b.test")),
    (
        "x.y.b.test",
        Vhost,
        None,
        Wrong(Some("x.y.b.test"), "x.y.b.test"),
    ),
    (
        "other.test",
        Vhost,
        None,
        Wrong(Some("other.test"), "other.test"),
    ),
    // An address is verified and not said.
    ("10.0.0.1", Vhost, None, Good(None)),
    ("10.0.0.2", Vhost, None, Wrong(None, "10.0.0.2")),
    ("::1", Vhost, None, Good(None)),
    ("[::1]", Vhost, None, Good(None)),
    ("0:0:0:0:0:0:0:1", Vhost, None, Good(None)),
    ("[::1%lo]", Vhost, None, Good(None)),
    ("::2", Vhost, None, Wrong(None, "::2")),
    // SNI of the connection.
    ("a.test", Nothing, None, Good(None)),
    ("other.test", Nothing, None, Wrong(None, "other.test")),
    ("10.0.0.1", Nothing, None, Good(None)),
    ("a.test", Name("front.test"), None, Good(Some("front.test"))),
    (
        "a.test",
        Name("FRONT.test."),
        None,
        Good(Some("front.test")),
    ),
    (
        "10.0.0.1",
        Name("front.test"),
        None,
        Good(Some("front.test")),
    ),
    (
        "other.test",
        Name("a.test"),
        None,
        Wrong(Some("a.test"), "other.test"),
    ),
    // The verification name of the connection.
    (
        "other.test",
        Vhost,
        Some("a.test"),
        Good(Some("other.test")),
    ),
    (
        "other.test",
        Vhost,
        Some("A.TEST."),
        Good(Some("other.test")),
    ),
    (
        "other.test",
        Vhost,
        Some("10.0.0.1"),
        Good(Some("other.test")),
    ),
    (
        "a.test",
        Vhost,
        Some("other.test"),
        Wrong(Some("a.test"), "other.test"),
    ),
    ("10.0.0.9", Vhost, Some("a.test"), Good(None)),
    ("10.0.0.9", Vhost, Some("10.0.0.1"), Good(None)),
    ("10.0.0.1", Vhost, Some("10.0.0.9"), Wrong(None, "10.0.0.9")),
    // Both.
    (
        "10.0.0.9",
        Name("a.test"),
        Some("a.test"),
        Good(Some("a.test")),
    ),
    (
        "other.test",
        Name("a.test"),
        Some("a.test"),
        Good(Some("a.test")),
    ),
    (
        "other.test",
        Name("front.test"),
        Some("x.b.test"),
        Good(Some("front.test")),
    ),
    (
        "other.test",
        Name("front.test"),
        Some("[::1]"),
        Good(Some("front.test")),
    ),
    ("other.test", Nothing, Some("a.test"), Good(None)),
    (
        "a.test",
        Nothing,
        Some("other.test"),
        Wrong(None, "other.test"),
    ),
    // What is no name.
    (
        "",
        Vhost,
        None,
        Bad("\"\" is neither a host name nor an IP address"),
    ),
    (
        ".",
        Vhost,
        None,
        Bad("\".\" is neither a host name nor an IP address"),
    ),
    (
        "a..test",
        Vhost,
        None,
        Bad("\"a..test\" is neither a host name nor an IP address"),
    ),
    (
        "a test",
        Vhost,
        None,
        Bad("\"a test\" is neither a host name nor an IP address"),
    ),
    (
        "*.b.test",
        Vhost,
        None,
        Bad("\"*.b.test\" is neither a host name nor an IP address"),
    ),
    (
        "a.test:443",
        Vhost,
        None,
        Bad("\"a.test:443\" is neither a host name nor an IP address"),
    ),
    (
        "[a.test]",
        Vhost,
        None,
        Bad("\"[a.test]\" is neither a host name nor an IP address"),
    ),
    (
        "[::1",
        Vhost,
        None,
        Bad("\"[::1\" is neither a host name nor an IP address"),
    ),
    (
        "bücher.test",
        Vhost,
        None,
        Bad("; write an international name in its ASCII form, xn--..."),
    ),
    (
        "a.test",
        Vhost,
        Some(""),
        Bad("\"\" is neither a host name nor an IP address"),
    ),
    (
        "a.test",
        Name(""),
        None,
        Bad("\"\" is neither a host name nor an IP address"),
    ),
    (
        "a.test",
        Name("10.0.0.1"),
        None,
        Bad(
            "10.0.0.1 is an IP address, which RFC 6066 section 3 does not allow as SNI; use \
                 Sni::None, and verify_name to verify the address",
        ),
    ),
];

#[test]
fn tl_06_the_name_on_the_wire_and_the_name_that_is_verified() {
    for (host, said, verify_name, expect) in ROWS {
        let sni = said.sni();
        let names = PeerNames {
            host,
            sni: sni.as_ref(),
            verify_name: *verify_name,
        };
        check(names, expect);
    }
}

#[test]
fn names_and_labels_that_are_too_long_are_refused() {
    for name in [format!("{}.test", "a".repeat(64)), "a.".repeat(130)] {
        let names = names_of(&name);
        check(names, &Bad("\" is neither a host name nor an IP address"));
    }
}

fn check(names: PeerNames<'_>, expect: &Expect) {
    // The same from the connection, and from the vhost's settings.
    let world = World::new();
    let mut settings = world.client.clone();
    if let Some(sni) = names.sni {
        settings = settings.sni(sni.clone());
    }
    if let Some(name) = names.verify_name {
        settings = settings.verify_name(name);
    }
    let host = names_of(names.host);
    for (tls, names) in [(&world.client, names), (&settings, host)] {
        let configs = tls.build(&env());
        let built = configs.and_then(|configs| configs.handshake(names).map(|_| configs));
        let configs = match (built, expect) {
            (Ok(configs), Good(_) | Wrong(..)) => configs,
            (Err(error), Bad(text)) => {
                assert!(error.to_string().ends_with(text), "{names:?}: {error}");
                continue;
            }
            (other, _) => panic!("{names:?}: {other:?}"),
        };
        let outcome = handshake(&configs, names, &Server::Theirs(Arc::clone(&world.server)));
        match expect {
            Good(sni) => {
                assert!(outcome.is_established(), "{names:?}: {:?}", outcome.client);
                check_sni(&outcome, *sni, names);
            }
            Wrong(sni, wanted) => {
                assert_eq!(refused_name(&outcome), *wanted, "{names:?}");
                check_sni(&outcome, *sni, names);
            }
            Bad(_) => {}
        }
    }
}

fn check_sni(outcome: &Outcome, expected: Option<&str>, names: PeerNames<'_>) {
    const SERVER_NAME: u16 = 0;
    let hello = outcome.hello();
    let expected = match expected {
        Some(name) => ServerNameIndication::Name(name.into()),
        None => ServerNameIndication::Absent,
    };
    assert_eq!(hello.server_name_indication(), &expected, "{names:?}");
    let absent = expected == ServerNameIndication::Absent;
    assert_eq!(hello.has_extension(SERVER_NAME), !absent, "{names:?}");
}

/// The name that the client looked for and did not find.
fn refused_name(outcome: &Outcome) -> String {
    match &outcome.client {
        Err(Error::InvalidCertificate(error @ CertificateError::NotValidForNameContext { .. })) => {
            match CertificateProblem::from(error.clone()) {
                CertificateProblem::NotValidForName { expected, .. } => expected.into(),
                other => panic!("{other:?}"),
            }
        }
        other => panic!("{other:?}"),
    }
}

struct World {
    client: ClientTls,
    server: Arc<ServerConfig>,
}

impl World {
    fn new() -> Self {
        let pki = Pki::new("ca");
        let roots = Roots::from_pem(pki.ca_pem()).unwrap();
        Self {
            client: ClientTls::new(roots),
            server: their_server(&pki.leaf(&NAMES).issue(), &version::TLS13),
        }
    }
}

#[test]
fn a_connection_overrides_what_the_vhost_says() {
    let world = World::new();
    let settings = world.client.sni(Sni::None).verify_name("other.test");
    let configs = settings.build(&env()).unwrap();
    let (sni, server) = (Sni::Default, Server::Theirs(world.server));
    let names = PeerNames {
        host: "front.test",
        sni: Some(&sni),
        verify_name: Some("a.test"),
    };
    let outcome = handshake(&configs, names, &server);
    assert!(outcome.is_established(), "{:?}", outcome.client);
    assert_eq!(outcome.hello().server_name(), Some("front.test"));
}

#[test]
fn a_session_is_resumed_for_the_same_two_names_only() {
    use HandshakeKind::{Full, Resumed};
    let world = World::new();
    let configs = world.client.build(&env()).unwrap();
    let server = Server::Theirs(world.server);
    let sni = Sni::Name("front.test".to_owned());
    let kind = |verify_name, sni| {
        let names = PeerNames {
            host: "front.test",
            sni,
            verify_name: Some(verify_name),
        };
        let outcome = handshake(&configs, names, &server);
        (outcome.kind.unwrap_or(Full), outcome.is_established())
    };
    assert_eq!(kind("a.test", Some(&sni)), (Full, true));
    assert_eq!(kind("a.test", Some(&sni)), (Resumed, true));
    assert_eq!(kind("x.b.test", Some(&sni)), (Full, true));
    assert_eq!(kind("x.b.test", Some(&sni)), (Resumed, true));
    // The certificate is not for this one, whoever was verified for the others.
    assert!(!kind("other.test", Some(&sni)).1);
    assert!(!kind("other.test", None).1);
    assert!(!kind("front.test", Some(&sni)).1);
    assert_eq!(kind("a.test", Some(&Sni::None)), (Full, true));
    assert_eq!(kind("a.test", Some(&Sni::None)), (Resumed, true));
    assert_eq!(kind("a.test", Some(&sni)), (Resumed, true));
}

#[test]
fn sessions_of_different_names_do_not_displace_each_other() {
    let world = World::new();
    let configs = world.client.build(&env()).unwrap();
    let server = Server::Theirs(world.server);
    let front = Sni::Name("front.test".to_owned());
    for round in 0..4 {
        for (verify, sni) in [
            ("a.test", None),
            ("a.test", Some(&Sni::None)),
            ("a.test", Some(&front)),
            ("x.b.test", Some(&front)),
            ("10.0.0.1", Some(&front)),
        ] {
            let names = PeerNames {
                host: "a.test",
                sni,
                verify_name: Some(verify),
            };
            let outcome = handshake(&configs, names, &server);
            let resumed = outcome.kind == Some(HandshakeKind::Resumed);
            assert_eq!(resumed, round > 0, "{names:?}");
        }
    }
}

#[test]
fn many_pairs_of_names_do_not_add_up() {
    let configs = World::new().client.build(&env()).unwrap();
    for number in 0..100 {
        let verify = format!("x{number}.b.test");
        let names = PeerNames {
            host: "front.test",
            sni: None,
            verify_name: Some(&verify),
        };
        configs.handshake(names).unwrap();
        assert_eq!(configs.pairs_of_names(), (number + 1).min(32));
    }
}

#[test]
fn a_configuration_of_rustls_keeps_its_rules_and_verifies_what_it_sends() {
    let pki = Pki::new("ca");
    let server = Server::Theirs(their_server(&pki.leaf(&NAMES).issue(), &version::TLS13));
    let tls = ClientTls::from_rustls(their_client(&pki, None, &version::TLS13));
    let configs = tls.alpn(["ignored"]).build(&env()).unwrap();
    let outcome = handshake(&configs, names_of("a.test"), &server);
    assert!(outcome.is_established());
    assert_eq!(outcome.hello().alpn().len(), 0);
    let none = PeerNames {
        sni: Some(&Sni::None),
        ..names_of("a.test")
    };
    let outcome = handshake(&configs, none, &server);
    assert!(outcome.is_established());
    assert_eq!(outcome.hello().server_name(), None);
    let other = PeerNames {
        verify_name: Some("x.b.test"),
        ..names_of("a.test")
    };
    assert_eq!(
        configs.handshake(other).unwrap_err().to_string(),
        "a client that was made from a configuration of rustls verifies the name that it sends \
         as SNI; use the settings of ClientTls, or a verifier in that configuration"
    );
}
