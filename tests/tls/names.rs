//! Names: what is dialled, what is sent as SNI, what is said as `Host`, what is verified.

use wsloop::tls::{Alert, CertificateProblem, ClientTls, HelloError, Identity, Sni, TlsFailure};
use wsloop::{
    ArgumentProblem as Problem, ClientConnectInfo, ConnectFailure, ConnectStage, Cx, FetchError,
    FetchId, FetchInfo, FetchStage, Fetched, HttpClientHandler, ListenConfig, PlaintextPolicy,
    VhostConfig, VhostId,
};

use crate::lab::{
    Event, Lab, Probe, clear_alert, identity, roots, server_tls, sni_of, socket, url,
};
use crate::support::addr;
use crate::testpki::Pki;

/// What one row is given.
#[derive(Clone, Copy, Debug, Default)]
struct Given {
    url: &'static str,
    /// In place of the URL's host.
    address: Option<&'static str>,
    host: Option<&'static str>,
    sni: Option<Option<&'static str>>,
    verify: Option<&'static str>,
}

const fn given(url: &'static str) -> Given {
    Given {
        url,
        address: None,
        host: None,
        sni: None,
        verify: None,
    }
}

impl Given {
    const fn at(mut self, address: &'static str) -> Self {
        self.address = Some(address);
        self
    }

    const fn host(mut self, host: &'static str) -> Self {
        self.host = Some(host);
        self
    }

    const fn sni(mut self, name: &'static str) -> Self {
        self.sni = Some(Some(name));
        self
    }

    const fn no_sni(mut self) -> Self {
        self.sni = Some(None);
        self
    }

    const fn verify(mut self, name: &'static str) -> Self {
        self.verify = Some(name);
        self
    }

    fn info(&self) -> Result<ClientConnectInfo, wsloop::ArgumentError> {
        let mut info = ClientConnectInfo::from_url(self.url)?.port(80)?;
        if let Some(address) = self.address {
            info = info.address(address)?;
        }
        if let Some(host) = self.host {
            info = info.host(host)?;
        }
        match self.sni {
            Some(Some(name)) => info = info.sni(Sni::Name(name.to_owned())),
            Some(None) => info = info.sni(Sni::None),
            None => {}
        }
        if let Some(name) = self.verify {
            info = info.verify_name(name);
        }
        Ok(info)
    }
}

/// What goes out, and for whom the certificate has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    sni: Option<&'static str>,
    host: &'static str,
    verified: &'static str,
}

const fn sent(sni: &'static str, host: &'static str, verified: &'static str) -> Sent {
    Sent {
        sni: Some(sni),
        host,
        verified,
    }
}

const fn unnamed(host: &'static str, verified: &'static str) -> Sent {
    Sent {
        sni: None,
        host,
        verified,
    }
}

const IP4: &str = "10.0.0.1";
const IP6: &str = "2001:db8::1";
const LONG: &str = concat!(
    "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz01234567890.",
    "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz01234567890.test"
);
const LONG_URL: &str = concat!(
    "wss://abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz01234567890.",
    "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz01234567890.test/"
);

#[rustfmt::skip]
const ROWS: &[(Given, Sent)] = &[
    // The URL's host is everything.
    (given("wss://a.test/"), sent("a.test", "a.test", "a.test")),
    (given("wss://a.test"), sent("a.test", "a.test", "a.test")),
    (given("wss://a.test:443/"), sent("a.test", "a.test", "a.test")),
    (given("wss://a.test:8443/"), sent("a.test", "a.test:8443", "a.test")),
    (given("wss://a.test:80/"), sent("a.test", "a.test:80", "a.test")),
    (given("WSS://a.test/"), sent("a.test", "a.test", "a.test")),
    (given("wss://a.test/chat?to=b.test"), sent("a.test", "a.test", "a.test")),
    (given("wss://a.test?q"), sent("a.test", "a.test", "a.test")),
    (given("wss://localhost/"), sent("localhost", "localhost", "localhost")),
    (given("wss://b.a.test/"), sent("b.a.test", "b.a.test", "b.a.test")),
    (given("wss://xn--bcher-kva.test/"), sent("xn--bcher-kva.test", "xn--bcher-kva.test", "xn--bcher-kva.test")),
    (given("wss://under_score.test/"), sent("under_score.test", "under_score.test", "under_score.test")),
    (given("wss://4.test/"), sent("4.test", "4.test", "4.test")),
    (given("wss://a-b.test/"), sent("a-b.test", "a-b.test", "a-b.test")),
    (given(LONG_URL), sent(LONG, LONG, LONG)),
    // The dot at the end says that the name is whole; nobody is told.
    (given("wss://a.test./"), sent("a.test", "a.test", "a.test")),
    (given("wss://a.test.:8443/"), sent("a.test", "a.test:8443", "a.test")),
    (given("wss://localhost./"), sent("localhost", "localhost", "localhost")),
    // Names are said in lower case where that is a rule; nobody else cares.
    (given("wss://A.TEST/"), sent("a.test", "A.TEST", "a.test")),
    (given("wss://A.Test:8443/"), sent("a.test", "A.Test:8443", "a.test")),
    (given("wss://XN--BCHER-KVA.test/"), sent("xn--bcher-kva.test", "XN--BCHER-KVA.test", "xn--bcher-kva.test")),
    // RFC 6066 section 3: addresses are no names.
    (given("wss://10.0.0.1/"), unnamed("10.0.0.1", IP4)),
    (given("wss://10.0.0.1:8443/"), unnamed("10.0.0.1:8443", IP4)),
    (given("wss://[2001:db8::1]/"), unnamed("[2001:db8::1]", IP6)),
    (given("wss://[2001:DB8:0:0::1]:8443/"), unnamed("[2001:db8::1]:8443", IP6)),
    (given("wss://[::ffff:10.0.0.1]/"), unnamed("[::ffff:10.0.0.1]", "::ffff:10.0.0.1")),
    // Where it dials is nobody's business.
    (given("wss://a.test/").at("10.0.0.1"), sent("a.test", "a.test", "a.test")),
    (given("wss://a.test/").at("2001:db8::1"), sent("a.test", "a.test", "a.test")),
    (given("wss://a.test/").at("b.a.test"), sent("a.test", "a.test", "a.test")),
    (given("wss://10.0.0.1/").at("a.test"), unnamed("10.0.0.1", IP4)),
    (given("wss://[2001:db8::1]/").at("10.0.0.1"), unnamed("[2001:db8::1]", IP6)),
    // `Host` is only said.
    (given("wss://a.test/").host("b.test"), sent("a.test", "b.test", "a.test")),
    (given("wss://a.test/").host("b.test:99"), sent("a.test", "b.test:99", "a.test")),
    (given("wss://10.0.0.1/").host("b.test"), unnamed("b.test", IP4)),
    (given("wss://a.test/").host("[::1]"), sent("a.test", "[::1]", "a.test")),
    // So is SNI, if it is set.
    (given("wss://a.test/").sni("b.test"), sent("b.test", "a.test", "a.test")),
    (given("wss://a.test/").sni("a.test"), sent("a.test", "a.test", "a.test")),
    (given("wss://a.test/").sni("b.test."), sent("b.test", "a.test", "a.test")),
    (given("wss://10.0.0.1/").sni("a.test"), sent("a.test", "10.0.0.1", IP4)),
    (given("wss://[2001:db8::1]/").sni("a.test"), sent("a.test", "[2001:db8::1]", IP6)),
    (given("wss://a.test/").sni("under_score.test"), sent("under_score.test", "a.test", "a.test")),
    (given("wss://a.test/").no_sni(), unnamed("a.test", "a.test")),
    (given("wss://A.TEST/").no_sni(), unnamed("A.TEST", "a.test")),
    (given("wss://a.test./").no_sni(), unnamed("a.test", "a.test")),
    (given("wss://10.0.0.1/").no_sni(), unnamed("10.0.0.1", IP4)),
    // And the name that is verified is only verified.
    (given("wss://a.test/").verify("b.test"), sent("a.test", "a.test", "b.test")),
    (given("wss://a.test/").verify("B.TEST"), sent("a.test", "a.test", "b.test")),
    (given("wss://a.test/").verify("b.test."), sent("a.test", "a.test", "b.test")),
    (given("wss://a.test/").verify("10.0.0.1"), sent("a.test", "a.test", IP4)),
    (given("wss://a.test/").verify("2001:db8::1"), sent("a.test", "a.test", IP6)),
    (given("wss://10.0.0.1/").verify("a.test"), unnamed("10.0.0.1", "a.test")),
    (given("wss://10.0.0.1/").verify("2001:db8::1"), unnamed("10.0.0.1", IP6)),
    (given("wss://[2001:db8::1]/").verify("a.test"), unnamed("[2001:db8::1]", "a.test")),
    // All of them at once.
    (given("wss://a.test/").no_sni().verify("b.test"), unnamed("a.test", "b.test")),
    (given("wss://a.test/").no_sni().verify("10.0.0.1"), unnamed("a.test", IP4)),
    (given("wss://10.0.0.1/").sni("a.test").verify("a.test"), sent("a.test", "10.0.0.1", "a.test")),
    (given("wss://10.0.0.1/").sni("a.test").verify("b.test"), sent("a.test", "10.0.0.1", "b.test")),
    (given("wss://a.test/").at("10.0.0.1").host("c.test").sni("b.a.test").verify("b.test"),
        sent("b.a.test", "c.test", "b.test")),
    (given("wss://localhost/").at("10.0.0.1").sni("a.test").verify("a.test"),
        sent("a.test", "localhost", "a.test")),
    (given("wss://[2001:db8::1]:1/").at("10.0.0.1").no_sni().host("a.test").verify("a.test"),
        unnamed("a.test", "a.test")),
];

/// A context that dials a stranger, or a server of its own, on port 80 of two addresses.
struct Desk {
    lab: Lab,
    client: VhostId,
}

impl Desk {
    fn new(pki: &Pki) -> Self {
        let mut lab = Lab::new();
        for name in [
            "a.test",
            "a.test.",
            "b.a.test",
            "localhost",
            "localhost.",
            "xn--bcher-kva.test",
            "under_score.test",
            "4.test",
            "a-b.test",
            LONG,
        ] {
            lab.net.name(name, [addr().ip()]);
        }
        for name in ["A.TEST", "A.Test", "XN--BCHER-KVA.test"] {
            lab.net.name(name, [addr().ip()]);
        }
        let client = lab.client("client", ClientTls::new(roots(pki)));
        Self { lab, client }
    }
}

const LISTENERS: [&str; 3] = ["10.0.0.1:80", "[2001:db8::1]:80", "[::ffff:10.0.0.1]:80"];

#[test]
fn the_server_name_on_the_wire_is_what_the_table_says() {
    let pki = Pki::new("ca");
    let mut desk = Desk::new(&pki);
    let strangers = LISTENERS.map(|at| desk.lab.net.listen(socket(at)).unwrap());
    assert!(ROWS.len() >= 60, "{}", ROWS.len());
    for (given, sent) in ROWS {
        desk.lab.connect(desk.client, given.info().unwrap());
        let mut hellos = strangers.iter().filter_map(|stranger| stranger.accept());
        let peer = hellos
            .next()
            .unwrap_or_else(|| panic!("{given:?} is not dialled"));
        assert_eq!(
            sni_of(&peer.read()),
            Ok(sent.sni.map(str::to_owned)),
            "{given:?}"
        );
        assert!(hellos.next().is_none());
        drop(peer);
        desk.lab.turn();
    }
}

#[test]
fn the_host_header_and_the_name_verified_are_what_the_table_says() {
    let pki = Pki::new("ca");
    // One server for each name, as good as any but for the name.
    for (given, sent) in ROWS {
        let mut desk = Desk::new(&pki);
        for (named, works) in [(sent.verified, true), ("other.test", false)] {
            let site = serve(&mut desk.lab, named, identity(&pki.leaf(&[named]).issue()));
            desk.lab.connect(desk.client, given.info().unwrap());
            let journal = &desk.lab.journal;
            let host = journal.one(|event| match event {
                Event::Filter { host, .. } => Ok(host),
                other => Err(other.into()),
            });
            match journal.connect_error() {
                None => {
                    assert!(works, "{given:?} takes a server for another name");
                    assert_eq!(host.flatten().as_deref(), Some(sent.host), "{given:?}");
                }
                Some(failed) => {
                    assert!(!works, "{given:?}: {}", failed.text);
                    assert!(host.is_none());
                    let Some(TlsFailure::Certificate(problem)) = failed.tls else {
                        panic!("{given:?}: {}", failed.text);
                    };
                    let CertificateProblem::NotValidForName {
                        expected,
                        presented,
                    } = problem
                    else {
                        panic!("{given:?}: {problem:?}");
                    };
                    assert_eq!(&*expected.to_ascii_lowercase(), sent.verified, "{given:?}");
                    assert_eq!(*presented, ["other.test".into()]);
                }
            }
            desk.lab.context.destroy_vhost(site).unwrap();
            desk.lab.turn();
            journal_is_read(&desk.lab);
        }
    }
}

fn serve(lab: &mut Lab, name: &str, identity: Identity) -> VhostId {
    let tls = wsloop::tls::ServerTls::new(identity);
    let mut config = VhostConfig::new("any.test")
        .server_tls(tls)
        .protocol("p", Probe::quiet(name, &lab.journal));
    for at in LISTENERS {
        config = config.listen(ListenConfig::new(socket(at)).tls(PlaintextPolicy::Reject));
    }
    lab.add(config)
}

fn journal_is_read(lab: &Lab) {
    lab.journal.take();
}

#[test]
fn names_that_cannot_be_sent_or_verified_are_errors_that_say_so() {
    let pki = Pki::new("ca");
    let mut desk = Desk::new(&pki);
    for (given, part) in [
        (given("wss://a.test/").sni("10.0.0.1"), "RFC 6066"),
        (given("wss://a.test/").sni("2001:db8::1"), "RFC 6066"),
        (
            given("wss://a.test/").sni(""),
            "neither a host name nor an IP address",
        ),
        (
            given("wss://a.test/").sni("a..test"),
            "neither a host name nor an IP address",
        ),
        (given("wss://a.test/").sni("b\u{fc}cher.test"), "xn--"),
        (
            given("wss://a.test/").sni("a.test:443"),
            "neither a host name nor an IP address",
        ),
        (
            given("wss://a.test/").sni("wss://a.test"),
            "neither a host name nor an IP address",
        ),
        (
            given("wss://a.test/").verify(""),
            "neither a host name nor an IP address",
        ),
        (
            given("wss://a.test/").verify("a test"),
            "neither a host name nor an IP address",
        ),
        (given("wss://a.test/").verify("b\u{fc}cher.test"), "xn--"),
        (
            given("wss://a.test/").verify("*.test"),
            "neither a host name nor an IP address",
        ),
    ] {
        // Before anything is looked up or dialled.
        let info = given.info().unwrap();
        let error = desk.lab.context.client_connect(desk.client, info);
        let error = error.expect_err(&format!("{given:?} goes out"));
        assert_eq!(error.stage(), ConnectStage::Argument, "{given:?}: {error}");
        assert!(error.to_string().contains(part), "{given:?}: {error}");
        desk.lab.turn();
        assert!(desk.lab.journal.connect_error().is_none(), "{given:?}");
    }
}

#[test]
fn a_fetch_whose_names_cannot_be_verified_is_refused_by_the_call() {
    let pki = Pki::new("ca");
    let mut desk = Desk::new(&pki);
    let config = VhostConfig::new("fetcher").client_tls(ClientTls::new(roots(&pki)));
    let fetcher = desk.lab.add(config.http_client(Nobody));
    for info in [
        get().verify_name("a test"),
        get().sni(Sni::Name(IP4.into())),
    ] {
        let error = desk.lab.context.fetch(fetcher, info).unwrap_err();
        assert_eq!(error.stage(), FetchStage::Argument, "{error}");
    }
    assert!(desk.lab.context.fetch(fetcher, get()).is_ok());
}

fn get() -> FetchInfo {
    FetchInfo::get("https://a.test/").unwrap()
}

/// Does not care what comes of a fetch.
struct Nobody;

impl HttpClientHandler for Nobody {
    fn on_done(&mut self, _: &mut Cx<'_>, _: FetchId, _: Result<Fetched, FetchError>) {}
}

/// A name that the certificate is not for, and an authority that nobody trusts, are the two
/// refusals that the program itself can do something about.
#[test]
fn what_can_be_done_about_a_certificate_that_is_not_accepted_is_said() {
    let pki = Pki::new("ca");
    let other = Pki::new("other");
    for (issuer, name, advice) in [(&pki, "b.test", "verify_name"), (&other, "a.test", "Roots")] {
        let mut desk = Desk::new(&pki);
        serve(
            &mut desk.lab,
            "a.test",
            identity(&issuer.leaf(&[name]).issue()),
        );
        desk.lab.dial(desk.client, "wss://a.test:80/");
        let failed = desk.lab.journal.connect_error().unwrap();
        assert!(failed.text.contains(advice), "{}", failed.text);
    }
}

#[test]
fn addresses_that_are_urls_or_worse_say_what_to_call_instead() {
    for (text, problem) in [
        ("wss://b\u{fc}cher.test/", Problem::NotAscii),
        ("wss://u:p@a.test/", Problem::HasUserinfo),
        ("wss://a.test/#f", Problem::Fragment),
        ("https://a.test/", Problem::HttpScheme),
        ("wss://fe80::1/", Problem::BadPort),
        ("wss://[fe80::1%25eth0]/", Problem::Zone),
        ("wss://010.0.0.1/", Problem::LooksLikeIpv4),
        ("wss:///", Problem::NoHost),
        ("wss://a..test/", Problem::EmptyLabel),
    ] {
        let error = ClientConnectInfo::from_url(text).unwrap_err();
        assert_eq!(error.problem, problem, "{text}");
    }
    let info = ClientConnectInfo::from_url("wss://a.test/").unwrap();
    for (text, problem) in [
        ("wss://a.test/", Problem::IsUrl),
        ("a.test:443", Problem::HasPort),
        ("a.test/chat", Problem::HasPath),
        ("me@a.test", Problem::HasUserinfo),
    ] {
        let error = info.clone().address(text).unwrap_err();
        assert_eq!(error.problem, problem, "{text}");
    }
    let error = info.address("wss://a.test/").unwrap_err().to_string();
    assert!(error.contains("from_url"), "{error}");
}

#[test]
fn the_vhost_s_own_names_are_used_where_a_connection_does_not_say() {
    let pki = Pki::new("ca");
    let tls = || ClientTls::new(roots(&pki));
    for (tls, sni, verified) in [
        (tls().sni(Sni::None), None, "a.test"),
        (
            tls().sni(Sni::Name("b.test".into())),
            Some("b.test"),
            "a.test",
        ),
        (tls().verify_name("c.test"), Some("a.test"), "c.test"),
        (
            tls()
                .sni(Sni::Name("b.test".into()))
                .verify_name("10.0.0.1"),
            Some("b.test"),
            "10.0.0.1",
        ),
    ] {
        let mut lab = Lab::new();
        lab.net.name("a.test", [addr().ip()]);
        let client = lab.client("client", tls);
        let stranger = lab.net.listen(addr()).unwrap();
        lab.dial(client, &url("a.test"));
        let peer = stranger.accept().unwrap();
        assert_eq!(sni_of(&peer.read()), Ok(sni.map(str::to_owned)));
        drop((peer, stranger));
        lab.turn();
        lab.journal.take();
        lab.server("a.test", server_tls(&pki, &[verified]));
        lab.dial(client, &url("a.test"));
        assert_eq!(
            lab.journal.opens("client"),
            1,
            "{:?}",
            lab.journal.connect_error()
        );
        // A connection that says so has its own.
        let info = ClientConnectInfo::from_url(&url("a.test")).unwrap();
        lab.connect(client, info.sni(Sni::Default).verify_name("a.test"));
        assert_eq!(
            lab.journal.opens("client"),
            1 + usize::from(verified == "a.test")
        );
    }
}

#[test]
fn the_names_of_a_vhost_are_checked_when_it_is_made() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    for tls in [
        ClientTls::new(roots(&pki)).sni(Sni::Name("10.0.0.1".into())),
        ClientTls::new(roots(&pki)).sni(Sni::Name("a..b".into())),
        ClientTls::new(roots(&pki)).verify_name("b\u{fc}cher.test"),
    ] {
        let config = VhostConfig::new("client").client_tls(tls);
        assert!(lab.context.create_vhost(config).is_err());
    }
}

#[test]
fn a_wss_url_on_a_vhost_without_client_tls_says_what_to_do() {
    let mut lab = Lab::new();
    let probe = Probe::quiet("client", &lab.journal);
    let client = lab.add(VhostConfig::new("client").protocol("c", probe));
    let _stranger = lab.net.listen(addr()).unwrap();
    let info = ClientConnectInfo::from_url("wss://10.0.0.1:80/").unwrap();
    let error = match lab.context.client_connect(client, info) {
        Err(error) => {
            assert!(matches!(error.failure(), ConnectFailure::NoClientTls));
            error.to_string()
        }
        Ok(_) => {
            lab.turn();
            lab.journal.connect_error().unwrap().text
        }
    };
    assert!(error.contains("client_tls"), "{error}");
}

#[test]
fn tl_06_a_server_copes_with_odd_server_names() {
    let pki = Pki::new("ca");
    let long = format!("{}test", "label.".repeat(49));
    assert!(long.len() > 255);
    for (name, served) in [
        ("a.test", true),
        ("A.TEST", true),
        ("a.test.", true),
        ("10.0.0.1", true),
        ("::1", true),
        ("under_score", true),
        ("", false),
        ("a b", false),
        ("a.test\0", false),
        (".", false),
        (long.as_str(), false),
    ] {
        let mut lab = Lab::new();
        lab.server("a.test", server_tls(&pki, &["a.test"]));
        let peer = lab.stranger();
        let config = crate::lab::rustls_client(&pki, None, &[&rustls::version::TLS13]);
        let mut stranger = crate::lab::TlsStranger::new(peer, config, "a.test");
        let hello = with_sni(&stranger.flight(), name.as_bytes());
        stranger.peer.write(&hello).unwrap();
        lab.turn();
        let answer = stranger.peer.read();
        let goes_on = answer.first() == Some(&22);
        assert_eq!(goes_on, served, "{name:?}: {:?}", lab.journal.refused());
        assert!(
            goes_on || clear_alert(&answer).is_some(),
            "{name:?}: {answer:x?}"
        );
    }
}

#[test]
fn tl_06_two_names_are_refused_whichever_comes_first() {
    let pki = Pki::new("ca");
    for (first, second) in [
        ("a.test", "b.test"),
        ("b.test", "a.test"),
        ("a.test", "a.test"),
    ] {
        let mut lab = Lab::new();
        lab.server("a.test", server_tls(&pki, &["a.test"]));
        let peer = lab.stranger();
        let config = crate::lab::rustls_client(&pki, None, &[&rustls::version::TLS13]);
        let mut stranger = crate::lab::TlsStranger::new(peer, config, "a.test");
        let hello = with_two_names(&stranger.flight(), first, second);
        assert_eq!(sni_of(&hello), Err("several names"));
        stranger.peer.write(&hello).unwrap();
        lab.turn();
        let answer = stranger.peer.read();
        assert_eq!(
            clear_alert(&answer),
            Some(Alert::ILLEGAL_PARAMETER),
            "{answer:x?}"
        );
        let refused = lab.journal.refused().unwrap();
        assert_eq!(refused.tls, Some(TlsFailure::Hello(HelloError::ServerName)));
    }
}

/// The ClientHello, which has an SNI, with two names in its list.
fn with_two_names(hello: &[u8], first: &str, second: &str) -> Vec<u8> {
    let len = |name: &str| (name.len() as u16).to_be_bytes();
    let mut names = first.as_bytes().to_vec();
    names.push(0);
    names.extend(len(second));
    names.extend(second.as_bytes());
    let mut out = with_sni(hello, &names);
    let at = out.windows(names.len()).position(|window| window == names);
    let at = at.unwrap();
    out[at - 2..at].copy_from_slice(&len(first));
    out
}

/// The ClientHello, which has an SNI, with another name in it.
fn with_sni(hello: &[u8], name: &[u8]) -> Vec<u8> {
    let old = sni_of(hello).unwrap().unwrap();
    let at = hello
        .windows(old.len())
        .position(|window| window == old.as_bytes())
        .unwrap();
    let mut out = hello.to_vec();
    out.splice(at..at + old.len(), name.iter().copied());
    let grown = name.len() as isize - old.len() as isize;
    let extensions = extensions_at(hello);
    // The name, the list, the extension, all extensions, the message, the record.
    let fields = [
        (at - 2, 2),
        (at - 5, 2),
        (at - 7, 2),
        (extensions, 2),
        (6, 3),
        (3, 2),
    ];
    for (at, size) in fields {
        let field = &mut out[at..at + size];
        let value = field
            .iter()
            .fold(0_isize, |all, byte| all << 8 | isize::from(*byte))
            + grown;
        let bytes = (value as u32).to_be_bytes();
        field.copy_from_slice(&bytes[4 - size..]);
    }
    out
}

fn extensions_at(hello: &[u8]) -> usize {
    let session = 5 + 4 + 2 + 32;
    let suites = session + 1 + usize::from(hello[session]);
    let len = usize::from(u16::from_be_bytes([hello[suites], hello[suites + 1]]));
    let compressions = suites + 2 + len;
    compressions + 1 + usize::from(hello[compressions])
}
