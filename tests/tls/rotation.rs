//! New identities and new rules on vhosts that are at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::version::TLS12;
use rustls::{ClientConfig, RootCertStore, SupportedCipherSuite};
use wsloop::tls::{
    Alert, CertificateProblem, ClientAuth, ClientTls, ClientTrust, Identity, Refused, Resumption,
    Roots, ServerTls, TlsFailure, TlsStep,
};
use wsloop::{
    ClientConnectInfo, ProtocolHandle, RetryPolicy, Side, VhostConfig, VhostError, VhostId, WsiId,
};

use crate::lab::{
    Event, Lab, Open, Probe, TlsStranger, any_identity, has_step, identity, provider, roots,
    rustls_client, rustls_identity, url,
};
use crate::testpki::{Leaf, Pki, TempDir, date};

const SECOND: Duration = Duration::from_secs(1);

fn named(pki: &Pki, common_name: &str) -> Leaf {
    pki.leaf(&["a.test"]).common_name(common_name).issue()
}

struct Site {
    lab: Lab,
    pki: Pki,
    server: VhostId,
    client: VhostId,
    client_handle: ProtocolHandle<Probe>,
}

impl Site {
    /// A server `server 1` and a client `client 1`, who shows that to whoever asks.
    fn new(shape: impl FnOnce(ServerTls, &Pki) -> ServerTls) -> Self {
        let pki = Pki::new("ca");
        let tls = ServerTls::new(identity(&named(&pki, "server 1")));
        let tls = shape(tls, &pki);
        Self::with(pki, tls)
    }

    fn with(pki: Pki, tls: ServerTls) -> Self {
        let mut lab = Lab::new();
        let policy = wsloop::PlaintextPolicy::Reject;
        let (config, _) = lab.server_config("a.test", tls, policy);
        let server = lab.add(config);
        let tls = ClientTls::new(roots(&pki)).identity(identity(&named(&pki, "client 1")));
        let (client, client_handle) = lab.client_with("client", tls);
        Self {
            lab,
            pki,
            server,
            client,
            client_handle,
        }
    }

    fn dial(&mut self) {
        self.lab.dial(self.client, &url("a.test"));
    }

    /// Dials; both ends of what comes of it, client's first.
    fn open(&mut self) -> (Open, Open) {
        self.dial();
        let journal = &self.lab.journal;
        let client = journal.open("client");
        let client = client.unwrap_or_else(|| panic!("{:?}", journal.take()));
        (client, journal.open("a.test").unwrap())
    }

    /// Which certificate the server shows to somebody who comes now, in a full handshake.
    fn shown(&mut self) -> String {
        let client = self.lab.client("looker", ClientTls::new(roots(&self.pki)));
        self.lab.dial(client, &url("a.test"));
        let open = self.lab.journal.open("looker").unwrap();
        assert!(self.lab.journal.open("a.test").is_some());
        let name = open.peer_name().unwrap().to_owned();
        self.lab.context.destroy_vhost(client).unwrap();
        self.lab.turn();
        self.lab.journal.take();
        name
    }

    fn set_server_identity(&mut self, next: Identity) {
        let set = self.lab.context.set_server_identity(self.server, next);
        set.unwrap();
    }

    fn set_client_identity(&mut self, next: Identity) {
        let set = self.lab.context.set_client_identity(self.client, next);
        set.unwrap();
    }

    fn still_talks(&mut self, id: WsiId) {
        self.lab.journal.take();
        self.lab.say(self.client_handle, id, "still here");
        assert_eq!(self.lab.journal.texts("client"), ["still here"]);
    }
}

fn required(pki: &Pki) -> ClientAuth {
    ClientAuth::Required(ClientTrust::new(roots(pki)))
}

/// Admits those of the authority until they are banned.
fn required_until(pki: &Pki, banned: &Arc<AtomicBool>) -> ClientAuth {
    let banned = Arc::clone(banned);
    let trust = ClientTrust::new(roots(pki)).after_verification(move |_| {
        match banned.load(Ordering::Relaxed) {
            true => Err(Refused::new("banned since")),
            false => Ok(()),
        }
    });
    ClientAuth::Required(trust)
}

fn how(open: &Open) -> String {
    open.info.as_ref().unwrap().handshake.to_string()
}

#[test]
fn a_new_server_certificate_is_for_new_handshakes_and_disturbs_nobody() {
    let mut site = Site::new(|tls, _| tls);
    let (old, _) = site.open();
    assert_eq!(old.peer_name(), Some("server 1"));
    let next = identity(&named(&site.pki, "server 2"));
    site.set_server_identity(next);
    site.still_talks(old.id);
    let (new, _) = site.open();
    assert_eq!(new.peer_name(), Some("server 2"));
    assert_eq!(
        how(&new),
        "full handshake",
        "a ticket from before is of no use"
    );
    site.still_talks(old.id);
    site.still_talks(new.id);
}

#[test]
fn a_new_client_certificate_is_for_new_handshakes_and_disturbs_nobody() {
    let mut site = Site::new(|tls, pki| tls.client_auth(required(pki)));
    let (old, at_server) = site.open();
    assert_eq!(at_server.peer_name(), Some("client 1"));
    let next = identity(&named(&site.pki, "client 2"));
    site.set_client_identity(next);
    site.still_talks(old.id);
    let (new, at_server) = site.open();
    // Resumption would bring the old name back.
    assert_eq!(at_server.peer_name(), Some("client 2"));
    assert_eq!(how(&new), "full handshake");
    let (_, at_server) = site.open();
    assert_eq!(how(&at_server), "resumed");
    assert_eq!(at_server.peer_name(), Some("client 2"));
}

#[test]
fn a_handshake_that_has_begun_goes_on_with_what_it_began_with() {
    let mut site = Site::new(|tls, _| tls);
    let peer = site.lab.stranger();
    let config = rustls_client(&site.pki, None, &[&rustls::version::TLS13]);
    let mut stranger = TlsStranger::new(peer, config, "a.test");
    let hello = stranger.flight();
    stranger.peer.write(&hello).unwrap();
    site.lab.turn();
    let next = identity(&named(&site.pki, "server 2"));
    site.set_server_identity(next);
    stranger.say(&crate::support::request("/"));
    stranger.exchange(&mut site.lab).unwrap();
    assert!(stranger.heard().starts_with(b"HTTP/1.1 101 "));
    assert_eq!(site.lab.journal.opens("a.test"), 1);
}

/// TL-15: what was agreed under old rules is not resumed under new ones.
#[test]
fn after_client_certificates_are_required_a_ticket_from_before_gets_nobody_in() {
    for resumption in [Resumption::Tickets, Resumption::Cache(100), Resumption::Off] {
        for old_version in [false, true] {
            let mut site = Site::new(|tls, _| tls.resumption(resumption));
            let mut config = rustls_client(&site.pki, None, &[&TLS12]);
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            let tls = match old_version {
                true => ClientTls::from_rustls(config.into()),
                false => ClientTls::new(roots(&site.pki)),
            };
            site.lab.context.set_client_tls(site.client, tls).unwrap();
            let (first, _) = site.open();
            let (second, _) = site.open();
            let expected = match resumption {
                Resumption::Off => "full handshake",
                _ => "resumed",
            };
            assert_eq!(how(&second), expected, "{resumption:?} {old_version}");
            let tls = ServerTls::new(identity(&named(&site.pki, "server 1")));
            let tls = tls.resumption(resumption).client_auth(required(&site.pki));
            site.lab.context.set_server_tls(site.server, tls).unwrap();
            site.still_talks(first.id);
            site.lab.journal.take();
            site.dial();
            let refused = site.lab.journal.refused().unwrap();
            assert_eq!(refused.tls, Some(TlsFailure::NoCertificate));
            let failed = site.lab.journal.connect_error().unwrap();
            let alert = TlsFailure::PeerAlert(Alert::CERTIFICATE_REQUIRED);
            assert_eq!(failed.tls, Some(alert));
            assert_eq!(site.lab.journal.opens("a.test"), 0);
        }
    }
}

#[test]
fn tl_15_after_the_authority_is_replaced_a_ticket_from_before_gets_nobody_in() {
    for resumption in [Resumption::Tickets, Resumption::Cache(100)] {
        let mut site = Site::new(|tls, pki| tls.resumption(resumption).client_auth(required(pki)));
        site.open();
        let (second, _) = site.open();
        assert_eq!(how(&second), "resumed");
        let others = Pki::new("another ca");
        let tls = ServerTls::new(identity(&named(&site.pki, "server 1")));
        let tls = tls.resumption(resumption).client_auth(required(&others));
        site.lab.context.set_server_tls(site.server, tls).unwrap();
        site.dial();
        let refused = site.lab.journal.refused().unwrap();
        let problem = TlsFailure::Certificate(CertificateProblem::UnknownIssuer);
        assert_eq!(refused.tls, Some(problem));
        assert_eq!(site.lab.journal.opens("a.test"), 0);
    }
}

/// A stranger whose suite is this one; clones resume one another's sessions.
fn with_suite(pki: &Pki, suite: SupportedCipherSuite) -> ClientConfig {
    let mut provider = CryptoProvider::clone(&provider());
    provider.cipher_suites = vec![suite];
    let mut store = RootCertStore::empty();
    store
        .add(CertificateDer::from(pki.ca_der().to_vec()))
        .unwrap();
    let (chain, key) = rustls_identity(&named(pki, "device"));
    ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[suite.version()])
        .unwrap()
        .with_root_certificates(store)
        .with_client_auth_cert(chain, key)
        .unwrap()
}

/// A client that may not resume hears why, as it would in a full handshake.
#[test]
fn a_ticket_of_somebody_who_is_not_admitted_any_more_gets_the_alert_that_says_so() {
    let suites = provider().cipher_suites.clone();
    assert!(suites.len() > 6, "of both versions");
    for suite in suites {
        let pki = Pki::new("ca");
        let banned = Arc::new(AtomicBool::new(false));
        // Some suites of TLS 1.2 are for another kind of key.
        let leaf = pki.leaf(&["a.test"]).issue();
        let auth = required_until(&pki, &banned);
        let tls = ServerTls::new(identity(&leaf)).client_auth(auth);
        let mut lab = Lab::new();
        lab.server("a.test", tls);
        let config = with_suite(&pki, suite);
        let name = suite.suite().as_str().unwrap();
        if name.contains("_RSA_") {
            continue;
        }
        let mut met = Vec::new();
        for round in 0..3 {
            banned.store(round == 2, Ordering::Relaxed);
            let peer = lab.stranger();
            let mut stranger = TlsStranger::new(peer, config.clone(), "a.test");
            let outcome = stranger.exchange(&mut lab);
            let report = lab.journal.report(Side::Server).unwrap();
            let kind = report.info.unwrap().handshake;
            met.push((outcome, kind.to_string(), report.failure));
            if round == 2 {
                let alert = TlsStep::AlertSent(Alert::ACCESS_DENIED);
                assert!(has_step(&report.trace, |step| *step == alert), "{name}");
                assert!(stranger.peer.ended(), "and that is all");
            }
            stranger.peer.close();
            lab.turn();
        }
        let problem = TlsFailure::Certificate(CertificateProblem::RefusedByApplication);
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::AccessDenied);
        let expected = [
            (Ok(()), "full handshake".to_owned(), None),
            (Ok(()), "resumed".into(), None),
            (Err(alert), "resumed".into(), Some(problem.clone())),
        ];
        assert_eq!(met, expected, "{name}");
        let told = lab.journal.pick(|event| match event {
            Event::Refused(refused) => refused.tls.clone(),
            _ => None,
        });
        assert_eq!(told, [problem], "{name}");
    }
}

#[test]
fn our_own_client_hears_why_its_session_is_not_resumed() {
    let banned = Arc::new(AtomicBool::new(false));
    let mut site = Site::new(|tls, pki| tls.client_auth(required_until(pki, &banned)));
    site.open();
    let (second, _) = site.open();
    assert_eq!(how(&second), "resumed");
    banned.store(true, Ordering::Relaxed);
    site.dial();
    let failed = site.lab.journal.connect_error().unwrap();
    let alert = TlsFailure::PeerAlert(Alert::ACCESS_DENIED);
    assert_eq!(failed.tls, Some(alert), "{}", failed.text);
    assert_eq!(site.lab.journal.opens("a.test"), 0);
}

#[test]
fn a_client_that_stops_trusting_an_authority_does_not_resume_with_it() {
    let mut site = Site::new(|tls, _| tls);
    site.open();
    let (second, _) = site.open();
    assert_eq!(how(&second), "resumed");
    let tls = ClientTls::new(roots(&Pki::new("another ca")));
    site.lab.context.set_client_tls(site.client, tls).unwrap();
    site.dial();
    let failed = site.lab.journal.connect_error().unwrap();
    let problem = TlsFailure::Certificate(CertificateProblem::UnknownIssuer);
    assert_eq!(failed.tls, Some(problem));
}

#[test]
fn settings_that_are_not_fit_leave_the_old_ones_in_force() {
    let mut site = Site::new(|tls, _| tls);
    let (live, _) = site.open();
    let own = || ServerTls::new(identity(&named(&Pki::new("x"), "server 2")));
    let site_server = site.server;
    let context = &mut site.lab.context;
    for tls in [
        own().alpn([""]),
        own().min_version(wsloop::tls::TlsVersion::new(0x0301)),
    ] {
        let set = context.set_server_tls(site_server, tls);
        assert!(matches!(set, Err(VhostError::Tls(_))), "{set:?}");
    }
    let tls = ClientTls::new(Roots::from_pem(site.pki.ca_pem()).unwrap()).alpn([vec![0; 256]]);
    let set = context.set_client_tls(site.client, tls);
    assert!(matches!(set, Err(VhostError::Tls(_))), "{set:?}");
    // The certificate was not exchanged, so there is nothing to drain either.
    assert_eq!(context.drain_old_identity(site.server), 0);
    assert_eq!(context.drain_old_identity(site.client), 0);
    assert_eq!(site.shown(), "server 1");
    site.still_talks(live.id);
}

#[test]
fn what_has_no_tls_has_nothing_to_exchange() {
    let mut site = Site::new(|tls, _| tls);
    let next = || identity(&named(&Pki::new("x"), "x"));
    let context = &mut site.lab.context;
    let set = context.set_server_identity(site.client, next());
    assert!(matches!(set, Err(VhostError::NoTls)), "{set:?}");
    let set = context.set_client_identity(site.server, next());
    assert!(matches!(set, Err(VhostError::NoTls)), "{set:?}");
    context.destroy_vhost(site.client).unwrap();
    context.service(Some(Duration::ZERO)).unwrap();
    let set = context.set_client_identity(site.client, next());
    assert!(matches!(set, Err(VhostError::Gone)), "{set:?}");
    assert!(matches!(
        context.watch_identity(site.client, SECOND),
        Err(VhostError::Gone)
    ));
    assert!(matches!(
        context.warn_before_expiry(site.client, &[]),
        Err(VhostError::Gone)
    ));
    assert_eq!(context.drain_old_identity(site.client), 0);
}

/// Two files and a server that watches them.
struct Watched {
    site: Site,
    directory: TempDir,
}

const EVERY: Duration = Duration::from_secs(5);

impl Watched {
    fn new() -> Self {
        let directory = TempDir::new("tls-rotation");
        let pki = Pki::new("ca");
        let leaf = named(&pki, "server 1");
        directory.write("cert.pem", &leaf.chain_pem());
        directory.write("key.pem", &leaf.key_pem());
        let files = (directory.path("cert.pem"), directory.path("key.pem"));
        let tls = ServerTls::new(Identity::from_pem_files(files.0, files.1).unwrap());
        let mut site = Site::with(pki, tls);
        site.lab.context.watch_identity(site.server, EVERY).unwrap();
        Self { site, directory }
    }

    fn write(&self, certificate: &str, key: &str) {
        self.directory.write("cert.pem", certificate);
        self.directory.write("key.pem", key);
    }

    fn put(&self, leaf: &Leaf) {
        self.write(&leaf.chain_pem(), &leaf.key_pem());
    }

    /// What was told about the files meanwhile.
    fn told(&mut self, time: Duration) -> Vec<Result<(), String>> {
        self.site.lab.pass(time);
        let server = self.site.server;
        self.site
            .lab
            .journal
            .take()
            .into_iter()
            .filter_map(|event| match event {
                Event::Identity(id, side, outcome) => {
                    assert_eq!((id, side), (server, Side::Server));
                    Some(outcome)
                }
                _ => None,
            })
            .collect()
    }
}

#[test]
fn tl_13_files_that_are_not_fit_are_reported_once_and_change_nothing() {
    type Spoil = fn(&Watched, &Leaf, &Leaf);
    let cases: [(&str, Spoil, &str); 8] = [
        (
            "key of another",
            |at, new, other| at.write(&new.chain_pem(), &other.key_pem()),
            "key.pem",
        ),
        (
            "certificate before key",
            |at, new, _| {
                at.directory.write("cert.pem", &new.chain_pem());
            },
            "was one of them replaced without the other",
        ),
        (
            "half written certificate",
            |at, new, _| {
                let text = new.chain_pem();
                at.write(&text[..text.len() / 2], &new.key_pem());
            },
            "half written",
        ),
        (
            "half written key",
            |at, new, _| {
                let text = new.key_pem();
                at.write(&new.chain_pem(), &text[..text.len() / 2]);
            },
            "half written",
        ),
        (
            "empty",
            |at, new, _| at.write("", &new.key_pem()),
            "the file is empty",
        ),
        (
            "gone",
            |at, _, _| std::fs::remove_file(at.directory.path("key.pem")).unwrap(),
            "no such file",
        ),
        (
            "a directory",
            |at, _, _| {
                std::fs::remove_file(at.directory.path("cert.pem")).unwrap();
                std::fs::create_dir(at.directory.path("cert.pem")).unwrap();
            },
            "cannot be read",
        ),
        (
            "wrong order",
            |at, new, other| {
                at.write(&(other.chain_pem() + &new.chain_pem()), &new.key_pem());
            },
            "wrong order",
        ),
    ];
    for (case, spoil, words) in cases {
        println!("{case}");
        let mut watched = Watched::new();
        let (live, _) = watched.site.open();
        assert!(
            watched.told(EVERY * 3).is_empty(),
            "nothing has changed yet"
        );
        let new = named(&watched.site.pki, "server 2");
        let other = named(&watched.site.pki, "other");
        spoil(&watched, &new, &other);
        let told = watched.told(EVERY * 6);
        let [Err(text)] = told.as_slice() else {
            panic!("{case}: {told:?}");
        };
        assert!(text.contains(words), "{case}: {text}");
        assert!(text.contains(".pem"), "{case}: {text}");
        assert_eq!(watched.site.shown(), "server 1", "{case}");
        watched.site.still_talks(live.id);
        let _ = std::fs::remove_dir(watched.directory.path("cert.pem"));
        watched.put(&new);
        assert_eq!(watched.told(EVERY * 2), [Ok(())], "{case}");
        assert_eq!(watched.site.shown(), "server 2");
        watched.site.still_talks(live.id);
        // And the next one.
        watched.put(&other);
        assert_eq!(watched.told(EVERY * 2), [Ok(())], "{case}");
        assert_eq!(watched.site.shown(), "other");
    }
}

#[test]
fn tl_13_a_pair_that_is_written_while_it_is_looked_at_is_used_when_it_is_whole() {
    let mut watched = Watched::new();
    let new = named(&watched.site.pki, "server 2");
    watched.directory.write("cert.pem", &new.chain_pem());
    // The first look falls between the two files, the second after them.
    assert!(watched.told(EVERY + SECOND / 2).is_empty());
    watched.directory.write("key.pem", &new.key_pem());
    assert_eq!(
        watched.told(EVERY),
        [Ok(())],
        "the halves were never reported"
    );
    assert_eq!(watched.site.shown(), "server 2");
}

#[test]
fn the_same_certificate_written_again_is_no_news() {
    let mut watched = Watched::new();
    let text = std::fs::read_to_string(watched.directory.path("cert.pem")).unwrap();
    watched
        .directory
        .write("cert.pem", &format!("a comment\n{text}"));
    assert!(watched.told(EVERY * 4).is_empty());
    let (open, _) = watched.site.open();
    drop(open);
    let (open, _) = watched.site.open();
    assert_eq!(how(&open), "resumed", "tickets stay good");
}

#[test]
fn a_client_watches_its_files_too() {
    let directory = TempDir::new("tls-client");
    let mut site = Site::new(|tls, pki| tls.client_auth(required(pki)));
    let write = |leaf: &Leaf| {
        let text = leaf.chain_pem() + &leaf.key_pem();
        directory.write("both.pem", &text);
    };
    write(&named(&site.pki, "client 3"));
    let own = Identity::from_pem_bundle_file(directory.path("both.pem")).unwrap();
    let tls = ClientTls::new(roots(&site.pki)).identity(own);
    site.lab.context.set_client_tls(site.client, tls).unwrap();
    site.lab
        .context
        .watch_identity(site.client, SECOND)
        .unwrap();
    let (_, at_server) = site.open();
    assert_eq!(at_server.peer_name(), Some("client 3"));
    write(&named(&site.pki, "client 4"));
    site.lab.pass(SECOND * 4);
    let told = site.lab.journal.pick(|event| match event {
        Event::Identity(id, side, outcome) => Some((*id, *side, outcome.clone())),
        _ => None,
    });
    assert_eq!(told, [(site.client, Side::Client, Ok(()))]);
    let (_, at_server) = site.open();
    assert_eq!(at_server.peer_name(), Some("client 4"));
}

#[test]
fn a_watched_identity_that_is_exchanged_by_hand_is_not_exchanged_back() {
    let mut watched = Watched::new();
    let next = identity(&named(&watched.site.pki, "by hand"));
    watched.site.set_server_identity(next);
    assert!(watched.told(EVERY * 4).is_empty());
    assert_eq!(watched.site.shown(), "by hand");
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn expiring(lab: &Lab) -> Vec<(VhostId, Side, Duration)> {
    let told = lab.journal.pick(|event| match event {
        Event::Expiring(id, side, what) => Some((*id, *side, what.threshold)),
        _ => None,
    });
    lab.journal.take();
    told
}

#[test]
fn an_end_that_is_near_is_told_once_by_the_narrowest_threshold() {
    // Valid until 2090, which is between 20 and 80 years from now.
    let mut site = Site::new(|tls, _| tls);
    let thresholds = [YEAR * 200, YEAR, YEAR * 80, YEAR * 20];
    site.lab
        .context
        .warn_before_expiry(site.server, &thresholds)
        .unwrap();
    site.lab.pass(SECOND * 3);
    assert_eq!(
        expiring(&site.lab),
        [(site.server, Side::Server, YEAR * 80)]
    );
    site.lab.net.advance(Duration::from_secs(3 * 3600));
    site.lab.turn();
    assert!(expiring(&site.lab).is_empty());
    // A new certificate is looked at anew.
    let next = site
        .pki
        .leaf(&["a.test"])
        .valid(date(2020, 1, 1), date(2085, 1, 1))
        .issue();
    site.set_server_identity(identity(&next));
    site.lab.pass(SECOND * 3);
    assert_eq!(
        expiring(&site.lab),
        [(site.server, Side::Server, YEAR * 80)]
    );
}

#[test]
fn a_certificate_that_has_expired_is_told_at_the_threshold_of_zero() {
    let mut site = Site::new(|tls, _| tls);
    let old = site
        .pki
        .leaf(&["a.test"])
        .valid(date(2000, 1, 1), date(2010, 1, 1))
        .issue();
    site.set_client_identity(any_identity(&old));
    let day = Duration::from_secs(24 * 3600);
    site.lab
        .context
        .warn_before_expiry(site.client, &[day, Duration::ZERO])
        .unwrap();
    site.lab.pass(SECOND * 3);
    let told = site.lab.journal.pick(|event| match event {
        Event::Expiring(_, side, what) => Some((*side, *what)),
        _ => None,
    });
    let [(Side::Client, what)] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(
        (what.threshold, what.left),
        (Duration::ZERO, Duration::ZERO)
    );
    assert_eq!(what.not_after.to_string(), "2010-01-01 00:00:00 UTC");
}

#[test]
fn the_next_expiry_is_that_of_the_shortest_certificate_of_all_vhosts() {
    let mut site = Site::new(|tls, _| tls);
    let at = |lab: &Lab| {
        lab.context
            .next_expiry()
            .map(|(id, at)| (id, at.to_string()))
    };
    let until = |pki: &Pki, year| {
        identity(
            &pki.leaf(&["a.test"])
                .valid(date(2000, 1, 1), date(year, 1, 1))
                .issue(),
        )
    };
    let client = until(&site.pki, 2080);
    site.set_client_identity(client);
    assert_eq!(
        at(&site.lab),
        Some((site.client, "2080-01-01 00:00:00 UTC".into()))
    );
    let server = until(&site.pki, 2070);
    site.set_server_identity(server);
    assert_eq!(
        at(&site.lab),
        Some((site.server, "2070-01-01 00:00:00 UTC".into()))
    );
    site.lab.context.destroy_vhost(site.server).unwrap();
    site.lab.turn();
    assert_eq!(
        at(&site.lab),
        Some((site.client, "2080-01-01 00:00:00 UTC".into()))
    );
    assert_eq!(Lab::new().context.next_expiry(), None);
}

fn retrying() -> ClientConnectInfo {
    let policy = RetryPolicy::builder()
        .delays([SECOND])
        .jitter_percent(0)
        .forever()
        .build()
        .unwrap();
    ClientConnectInfo::from_url(&url("a.test"))
        .unwrap()
        .reconnect(policy)
}

#[test]
fn a_drained_server_s_clients_come_back_to_the_new_certificate() {
    let mut site = Site::new(|tls, _| tls);
    site.lab.connect(site.client, retrying());
    assert_eq!(
        site.lab.journal.open("client").unwrap().peer_name(),
        Some("server 1")
    );
    assert_eq!(
        site.lab.context.drain_old_identity(site.server),
        0,
        "nothing is old"
    );
    let next = identity(&named(&site.pki, "server 2"));
    site.set_server_identity(next);
    assert_eq!(site.lab.context.drain_old_identity(site.server), 1);
    site.lab.turn();
    let end = site.lab.journal.closed("client").unwrap();
    assert_eq!((end.code, end.clean), (1001, true), "{end:?}");
    let end = site.lab.journal.closed("a.test").unwrap();
    assert_eq!(end.kind, "its certificate was replaced");
    site.lab.journal.take();
    site.lab.pass(SECOND * 3);
    let open = site.lab.journal.open("client").unwrap();
    assert_eq!(open.peer_name(), Some("server 2"));
    assert_eq!(
        site.lab.context.drain_old_identity(site.server),
        0,
        "all are new"
    );
}

#[test]
fn a_drained_client_comes_back_with_its_new_certificate() {
    let mut site = Site::new(|tls, pki| tls.client_auth(required(pki)));
    site.lab.connect(site.client, retrying());
    assert_eq!(
        site.lab.journal.open("a.test").unwrap().peer_name(),
        Some("client 1")
    );
    let next = identity(&named(&site.pki, "client 2"));
    site.set_client_identity(next);
    assert_eq!(site.lab.context.drain_old_identity(site.client), 1);
    site.lab.turn();
    let end = site.lab.journal.closed("client").unwrap();
    assert_eq!((end.code, end.clean), (1001, true), "{end:?}");
    assert_eq!(end.kind, "its certificate was replaced");
    site.lab.journal.take();
    site.lab.pass(SECOND * 3);
    let open = site.lab.journal.open("a.test");
    let open = open.expect("it comes back");
    assert_eq!(open.peer_name(), Some("client 2"));
}

#[test]
fn draining_leaves_new_and_plain_connections_alone() {
    let pki = Pki::new("ca");
    let tls = ServerTls::new(identity(&named(&pki, "server 1")));
    let mut lab = Lab::new();
    let policy = wsloop::PlaintextPolicy::Serve;
    let (config, _) = lab.server_config("a.test", tls, policy);
    let server = lab.add(config);
    let client = lab.client("client", ClientTls::new(roots(&pki)));
    lab.dial(client, &url("a.test"));
    lab.dial(client, "ws://a.test:80/");
    lab.context
        .set_server_identity(server, identity(&named(&pki, "server 2")))
        .unwrap();
    lab.dial(client, &url("a.test"));
    assert_eq!(lab.journal.opens("a.test"), 3);
    assert_eq!(lab.context.drain_old_identity(server), 1);
    assert_eq!(
        lab.context.drain_old_identity(server),
        0,
        "it is closing already"
    );
    lab.turn();
    assert!(lab.journal.closed("a.test").is_some());
    assert!(lab.journal.closed("a.test").is_none());
    assert_eq!(lab.context.connections(), 4);
}

fn warnings(lab: &Lab) -> Vec<(VhostId, Side, String)> {
    let told = lab.journal.pick(|event| match event {
        Event::Warning(id, side, warning) => Some((*id, *side, warning.to_string())),
        _ => None,
    });
    lab.journal.take();
    told
}

#[test]
fn a_name_that_the_certificate_does_not_cover_is_told_at_creation_and_at_every_exchange() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    let cert = |names: &[&str]| identity(&pki.leaf(names).issue());
    let (config, _) = lab.server_config(
        "a.test",
        ServerTls::new(cert(&["a.test"])),
        wsloop::PlaintextPolicy::Reject,
    );
    let id = lab.add(config.name("b.test").name("*.c.test"));
    assert!(warnings(&lab).is_empty(), "callbacks come in turns");
    lab.turn();
    let told = warnings(&lab);
    assert_eq!(told.len(), 2, "{told:?}");
    for (name, (vhost, side, text)) in ["b.test", "*.c.test"].iter().zip(told) {
        assert_eq!((vhost, side), (id, Side::Server));
        assert!(text.contains(name), "{text}");
    }
    lab.turn();
    assert!(warnings(&lab).is_empty(), "told once");
    lab.context
        .set_server_identity(id, cert(&["b.test", "*.c.test"]))
        .unwrap();
    lab.turn();
    let told = warnings(&lab);
    assert!(
        told.len() == 1 && told[0].2.contains("\"a.test\""),
        "{told:?}"
    );
    let all = ServerTls::new(cert(&["a.test", "b.test", "*.c.test"]));
    lab.context.set_server_tls(id, all).unwrap();
    lab.turn();
    assert!(warnings(&lab).is_empty());
}

#[test]
fn a_watched_pair_that_does_not_cover_the_name_is_used_and_told() {
    let dir = TempDir::new("warnings");
    let pki = Pki::new("ca");
    let write = |names: &[&str]| {
        let leaf = pki.leaf(names).issue();
        let key = dir.write("key.pem", &leaf.key_pem());
        (dir.write("chain.pem", &leaf.chain_pem()), key)
    };
    let (chain, key) = write(&["a.test"]);
    let tls = ServerTls::new(Identity::from_pem_files(chain, key).unwrap());
    let mut site = Site::with(Pki::new("ca"), tls);
    site.lab
        .context
        .watch_identity(site.server, SECOND)
        .unwrap();
    site.lab.turn();
    assert!(warnings(&site.lab).is_empty());
    write(&["b.test"]);
    site.lab.pass(SECOND * 5);
    let told = warnings(&site.lab);
    assert!(
        told.len() == 1 && told[0].2.contains("\"a.test\""),
        "{told:?}"
    );
}

/// Nobody has to ask for it.
#[test]
fn an_end_within_a_month_is_told_by_default_and_can_be_turned_off() {
    for silent in [false, true] {
        let mut site = Site::new(|tls, _| tls);
        let old = site
            .pki
            .leaf(&["a.test"])
            .valid(date(2000, 1, 1), date(2010, 1, 1));
        let old = any_identity(&old.issue());
        if silent {
            site.lab
                .context
                .warn_before_expiry(site.server, &[])
                .unwrap();
        }
        site.lab.turn();
        assert!(expiring(&site.lab).is_empty());
        site.set_server_identity(old);
        site.lab.pass(SECOND * 3);
        let told = expiring(&site.lab);
        let expected = [(site.server, Side::Server, Duration::ZERO)];
        assert_eq!(told, if silent { &[][..] } else { &expected });
    }
}

/// The application's word is the last: a drain that is under way does not bring the connection
/// back.
#[test]
fn who_closes_during_a_drain_is_not_brought_back() {
    type Say = fn(&mut Lab, ProtocolHandle<Probe>, WsiId);
    let ways: [(Say, bool); 3] = [
        (|_, _, _| {}, true),
        (
            |lab, handle, id| {
                let close = wsloop::Close::normal();
                let _ = lab
                    .context
                    .with_protocol(handle, |_, cx| cx.close(id, close));
            },
            false,
        ),
        (
            |lab, handle, id| {
                let _ = lab.context.with_protocol(handle, |_, cx| cx.abort(id));
            },
            false,
        ),
    ];
    for (say, comes_back) in ways {
        let mut site = Site::new(|tls, _| tls);
        let id = site.lab.connect(site.client, retrying());
        site.lab.journal.take();
        let next = identity(&named(&site.pki, "client 2"));
        site.set_client_identity(next);
        assert_eq!(site.lab.context.drain_old_identity(site.client), 1);
        say(&mut site.lab, site.client_handle, id);
        site.lab.turn();
        assert!(site.lab.journal.closed("client").is_some());
        site.lab.pass(SECOND * 5);
        assert_eq!(site.lab.journal.open("client").is_some(), comes_back);
        assert_eq!(
            site.lab.context.connections(),
            if comes_back { 2 } else { 0 }
        );
    }
}

#[test]
fn settings_are_exchanged_from_a_callback_and_the_outcome_is_told() {
    let mut site = Site::new(|tls, _| tls);
    let next = identity(&site.pki.leaf(&["a.test"]).issue());
    site.lab.journal.take();
    let server = site.server;
    let mut config = VhostConfig::new("caller");
    let handle = config.add_protocol("p", Probe::echo("caller", &site.lab.journal));
    let caller = site.lab.add(config);
    let asked = site.lab.context.with_protocol(handle, |_, cx| {
        cx.set_server_identity(server, next).unwrap();
        cx.drain_old_identity(server).unwrap();
        // It has no TLS as a client, and no identity to be exchanged.
        cx.set_client_identity(caller, identity(&Pki::new("x").leaf(&["x"]).issue()))
            .unwrap();
    });
    asked.unwrap();
    site.lab.pass(SECOND);
    let changed = site.lab.journal.pick(|event| match event {
        Event::Identity(id, side, outcome) => Some((*id, *side, outcome.clone())),
        _ => None,
    });
    assert_eq!(changed, [(server, Side::Server, Ok(()))]);
}

#[test]
fn what_cannot_be_watched_is_an_error() {
    let mut lab = Lab::new();
    let plain = lab.add(VhostConfig::new("plain"));
    let watched = lab.context.watch_identity(plain, SECOND);
    assert!(matches!(watched, Err(VhostError::NoTls)), "{watched:?}");
    let pki = Pki::new("ca");
    let secure = lab.server("a.test", crate::lab::server_tls(&pki, &["a.test"]));
    let watched = lab.context.watch_identity(secure, Duration::ZERO);
    assert!(
        matches!(watched, Err(VhostError::ZeroInterval)),
        "{watched:?}"
    );
}
