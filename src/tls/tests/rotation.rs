//! Identities and trust exchanged while clients come and go, watched files, expiry.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use super::super::client::ClientTls;
use super::super::der::UtcTime;
use super::super::failure::CertificateProblem;
use super::super::identity::{IdentityFiles, IdentityOptions};
use super::super::roots::{RevocationLists, Roots};
use super::super::rotate::{
    ClientCell, Expiring, ExpiryWatch, FileWatch, ServerCell, WatchOutcome, read_file,
};
use super::super::server::{ClientAuth, ClientTrust, Resumption, ServerTls};
use super::super::testpki::{TempDir, date};
use super::super::verify::Refused;
use super::*;

fn roots(pki: &Pki) -> Roots {
    Roots::from_pem(pki.ca_pem()).unwrap()
}

#[test]
fn a_new_identity_is_shown_to_new_clients_and_nobody_resumes_the_old_one() {
    let pki = Pki::new("ca");
    let [old, new] = [(); 2].map(|()| pki.leaf(&["a.test"]).issue());
    for version in VERSIONS {
        let mut cell = ServerCell::new(ServerTls::new(identity(&old)), &env()).unwrap();
        let client = their_client(&pki, None, version);
        let enter = |cell: &ServerCell| {
            let outcome = run(connect(&client, "a.test"), &Server::Ours(cell.configs()));
            assert!(outcome.is_established());
            (outcome.kind.unwrap(), outcome.server_chain.unwrap())
        };
        assert_eq!(
            enter(&cell),
            (HandshakeKind::Full, old.chain_der().to_vec())
        );
        assert_eq!(enter(&cell).0, HandshakeKind::Resumed);
        let before = Arc::clone(cell.configs());
        cell.set_identity(identity(&new), &env()).unwrap();
        assert_eq!(cell.generation(), 1);
        assert!(
            cell.settings()
                .current_identity()
                .unwrap()
                .is_same(&identity(&new))
        );
        assert_eq!(
            enter(&cell),
            (HandshakeKind::Full, new.chain_der().to_vec())
        );
        // Whoever was about to begin under the old one still can.
        let fresh = their_client(&pki, None, version);
        let outcome = run(connect(&fresh, "a.test"), &Server::Ours(&before));
        assert_eq!(outcome.server_chain.as_deref(), Some(old.chain_der()));
    }
}

#[test]
fn settings_that_cannot_be_built_change_nothing() {
    let pki = Pki::new("ca");
    let identity = identity(&pki.leaf(&["a.test"]).issue());
    let mut cell = ServerCell::new(ServerTls::new(identity.clone()), &env()).unwrap();
    let before = Arc::clone(cell.configs());
    let nobody = ClientAuth::Required(ClientTrust::new(Roots::default()));
    let settings = ServerTls::new(identity).client_auth(nobody);
    assert!(cell.set(settings, &env()).is_err());
    assert!(Arc::ptr_eq(&before, cell.configs()));
    assert_eq!(cell.generation(), 0);
    let mut cell = ClientCell::new(ClientTls::new(roots(&pki)), &env()).unwrap();
    let before = Arc::clone(cell.configs());
    assert!(cell.set(ClientTls::new(Roots::default()), &env()).is_err());
    assert!(Arc::ptr_eq(&before, cell.configs()));
    assert_eq!(cell.generation(), 0);
}

#[test]
fn tl_15_tickets_from_before_do_not_bypass_new_trust() {
    let (ca, old, new) = (Pki::new("ca"), Pki::new("old"), Pki::new("new"));
    let server = identity(&ca.leaf(&["a.test"]).issue());
    let leaf = old.leaf(&["device"]).issue();
    let revoked = RevocationLists::from_pem(old.crl_pem(&[&leaf])).unwrap();
    for (trust, problem) in [
        (
            ClientTrust::new(roots(&new)),
            CertificateProblem::UnknownIssuer,
        ),
        (
            ClientTrust::new(roots(&old)).revocation_lists(revoked),
            CertificateProblem::Revoked,
        ),
    ] {
        for (resumption, version) in [Resumption::Tickets, Resumption::Cache(100)]
            .into_iter()
            .flat_map(|resumption| VERSIONS.map(|version| (resumption, version)))
        {
            let settings = |trust| {
                ServerTls::new(server.clone())
                    .resumption(resumption)
                    .client_auth(ClientAuth::Required(trust))
            };
            let before = settings(ClientTrust::new(roots(&old)));
            let mut cell = ServerCell::new(before, &env()).unwrap();
            let client = their_client(&ca, Some(&leaf), version);
            let enter =
                |cell: &ServerCell| run(connect(&client, "a.test"), &Server::Ours(cell.configs()));
            assert!(enter(&cell).is_established());
            assert_eq!(enter(&cell).kind, Some(HandshakeKind::Resumed));
            cell.set(settings(trust.clone()), &env()).unwrap();
            for _ in 0..2 {
                match enter(&cell).server {
                    Err(Error::InvalidCertificate(error)) => {
                        assert_eq!(CertificateProblem::from(error), problem);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

#[test]
fn a_client_does_not_resume_under_another_identity() {
    let (ca, clients) = (Pki::new("ca"), Pki::new("clients"));
    let trust = ClientTrust::new(roots(&clients));
    let server = ServerTls::new(identity(&ca.leaf(&["a.test"]).issue()))
        .client_auth(ClientAuth::Required(trust))
        .build(&env())
        .unwrap();
    let [old, new] = ["one", "two"].map(|name| clients.leaf(&[name]).issue());
    let settings = ClientTls::new(roots(&ca)).identity(identity(&old));
    let mut cell = ClientCell::new(settings, &env()).unwrap();
    let enter = |cell: &ClientCell| {
        let outcome = handshake(cell.configs(), names("a.test"), &Server::Ours(&server));
        assert!(outcome.is_established());
        (outcome.kind.unwrap(), outcome.client_chain.unwrap())
    };
    assert_eq!(
        enter(&cell),
        (HandshakeKind::Full, old.chain_der().to_vec())
    );
    assert_eq!(
        enter(&cell),
        (HandshakeKind::Resumed, old.chain_der().to_vec())
    );
    cell.set_identity(identity(&new), &env()).unwrap();
    assert_eq!(
        enter(&cell),
        (HandshakeKind::Full, new.chain_der().to_vec())
    );
    assert_eq!(
        enter(&cell),
        (HandshakeKind::Resumed, new.chain_der().to_vec())
    );
    assert_eq!(cell.generation(), 1);
    assert!(
        cell.settings()
            .current_identity()
            .unwrap()
            .is_same(&identity(&new))
    );
}

/// A wall clock that is set by hand.
#[derive(Debug)]
struct Clock(AtomicU64);

impl Clock {
    fn set(&self, time: UtcTime) {
        let seconds = u64::try_from(time.unix()).unwrap();
        self.0.store(seconds, Ordering::Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = self.0.load(Ordering::Relaxed);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

fn clocked() -> (Arc<Clock>, TlsEnv) {
    let clock = Arc::new(Clock(AtomicU64::new(1_800_000_000)));
    let env = TlsEnv {
        clock: Arc::<Clock>::clone(&clock),
        ..env()
    };
    (clock, env)
}

#[test]
fn tm_06_the_clock_is_the_contexts_own() {
    let (clock, env) = clocked();
    let pki = Pki::new("ca");
    let leaf = pki
        .leaf(&["a.test"])
        .valid(date(2030, 1, 1), date(2031, 1, 1))
        .issue();
    let client = ClientTls::new(roots(&pki)).build(&env).unwrap();
    let server = Server::Theirs(their_server(&leaf, &version::TLS13));
    let enter = || handshake(&client, names("a.test"), &server).client.is_ok();
    assert!(!enter());
    clock.set(UtcTime::from_unix(1_900_000_000));
    assert!(enter());
    clock.set(UtcTime::from_unix(2_000_000_000));
    let again = ClientTls::new(roots(&pki)).build(&env).unwrap();
    let outcome = handshake(&again, names("a.test"), &server);
    let Err(Error::InvalidCertificate(error)) = outcome.client else {
        panic!("{:?}", outcome.client);
    };
    let text = CertificateProblem::from(error).to_string();
    assert!(text.starts_with("it expired"), "{text}");
}

#[test]
fn the_chain_of_a_resumed_session_can_be_judged_again() {
    let (clock, env) = clocked();
    let (ca, clients) = (Pki::new("ca"), Pki::new("clients"));
    let banned = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&banned);
    let trust = ClientTrust::new(roots(&clients)).after_verification(move |_| {
        match seen.load(Ordering::Relaxed) {
            true => Err(Refused::new("banned since")),
            false => Ok(()),
        }
    });
    let server = ServerTls::new(identity(&ca.leaf(&["a.test"]).issue()))
        .client_auth(ClientAuth::Required(trust))
        .build(&env)
        .unwrap();
    let leaf = clients
        .leaf(&["device"])
        .valid(date(2020, 1, 1), date(2030, 1, 1))
        .issue();
    let chain = certified(&leaf).cert;
    assert_eq!(server.verify_resumed(&chain, &env), Ok(()));
    banned.store(true, Ordering::Relaxed);
    assert!(server.verify_resumed(&chain, &env).is_err());
    banned.store(false, Ordering::Relaxed);
    clock.set(UtcTime::from_unix(1_900_000_000));
    assert!(server.verify_resumed(&chain, &env).is_err());
    let nobody = server.verify_resumed(&[], &env);
    assert_eq!(nobody, Err(Error::NoCertificatesPresented));
}

/// Files in memory, and a watch on two of them.
struct Story {
    pki: Pki,
    files: BTreeMap<PathBuf, Vec<u8>>,
    watch: FileWatch,
    env: TlsEnv,
    clock: Arc<Clock>,
    now: Instant,
    dir: TempDir,
    first: Leaf,
}

const INTERVAL: Duration = Duration::from_secs(60);

impl Story {
    fn new() -> Self {
        Self::with(IdentityFiles::new)
    }

    /// Begins with a good pair, which was read from real files.
    fn with(arrange: impl FnOnce(PathBuf, PathBuf) -> IdentityFiles) -> Self {
        let pki = Pki::new("ca");
        let dir = TempDir::new("watch");
        let first = pki.leaf(&["a.test"]).issue();
        let files = arrange(dir.path("chain.pem"), dir.path("key.pem"));
        let bundle = files.certificate == files.key;
        let key = first.key_pem();
        let chain = first.chain_pem() + if bundle { &key } else { "" };
        std::fs::write(&files.certificate, &chain).unwrap();
        if !bundle {
            std::fs::write(&files.key, first.key_pem()).unwrap();
        }
        let identity = Identity::from_pem_files(&files.certificate, &files.key).unwrap();
        let mut contents = BTreeMap::new();
        for path in [&files.certificate, &files.key] {
            contents.insert(path.clone(), read_file(path).unwrap());
        }
        let now = now();
        let (clock, env) = clocked();
        Self {
            watch: FileWatch::new(&identity, INTERVAL, now).unwrap(),
            files: contents,
            pki,
            env,
            clock,
            now,
            dir,
            first,
        }
    }

    fn watch_identity(&self) -> Identity {
        Identity::from_pem_files(self.dir.path("chain.pem"), self.dir.path("key.pem")).unwrap()
    }

    fn leaf(&self) -> Leaf {
        self.pki.leaf(&["a.test"]).issue()
    }

    fn chain(&mut self, text: impl Into<Vec<u8>>) {
        let path = self.dir.path("chain.pem");
        self.files.insert(path, text.into());
    }

    fn key(&mut self, text: impl Into<Vec<u8>>) {
        let path = self.dir.path("key.pem");
        self.files.insert(path, text.into());
    }

    /// What the next look gives, in a word or as the text of the error without the directory.
    fn look(&mut self) -> String {
        self.now = self.watch.due();
        let files = &self.files;
        let read = |path: &Path| match files.get(path) {
            Some(bytes) if bytes == b"unreadable" => Err(io::ErrorKind::PermissionDenied.into()),
            Some(bytes) => Ok(bytes.clone()),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        match self.watch.poll(self.now, &self.env, read) {
            WatchOutcome::Bad(error) => {
                let dir = format!("{}/", self.dir.path("").display());
                error.to_string().replace(&dir.replace("//", "/"), "")
            }
            WatchOutcome::Changed(identity) => format!("changed to {:?}", identity.serial()),
            WatchOutcome::Pending => "pending".to_owned(),
            WatchOutcome::Unchanged => "unchanged".to_owned(),
        }
    }

    /// A good pair is taken up at the second look, whatever was before.
    fn ends_well(&mut self) {
        let leaf = self.leaf();
        self.chain(leaf.chain_pem());
        self.key(leaf.key_pem());
        assert_eq!(self.look(), "pending");
        assert_eq!(self.look(), changed_to(&leaf));
        assert_eq!(self.look(), "unchanged");
    }
}

fn changed_to(leaf: &Leaf) -> String {
    format!("changed to {:?}", leaf.serial())
}

#[test]
fn a_new_pair_is_taken_up_when_it_was_found_twice() {
    let mut story = Story::new();
    assert_eq!(story.look(), "unchanged");
    story.ends_well();
    story.ends_well();
}

#[test]
fn files_are_read_only_when_it_is_time_and_soon_again_when_they_changed() {
    let mut story = Story::new();
    let early = story.watch.due() - Duration::from_millis(1);
    let outcome = story.watch.poll(early, &story.env, |_| panic!("not yet"));
    assert!(matches!(outcome, WatchOutcome::Unchanged));
    assert_eq!(story.look(), "unchanged");
    assert_eq!(story.watch.due(), story.now + INTERVAL);
    let leaf = story.leaf();
    story.chain(leaf.chain_pem());
    assert_eq!(story.look(), "pending");
    assert_eq!(story.watch.due(), story.now + Duration::from_secs(1));
}

#[test]
fn an_interval_without_end_or_length_is_survived() {
    let story = Story::new();
    let second = story.now + Duration::from_secs(1);
    let watch = |interval| FileWatch::new(&story.watch_identity(), interval, story.now).unwrap();
    assert_eq!(watch(Duration::ZERO).due(), second);
    assert!(watch(Duration::MAX).due() > second);
}

#[test]
fn tl_13_a_certificate_that_is_swapped_before_its_key_is_waited_for() {
    let mut story = Story::new();
    let leaf = story.leaf();
    story.chain(leaf.chain_pem());
    assert_eq!(story.look(), "pending");
    // The key comes in time.
    story.key(leaf.key_pem());
    assert_eq!(story.look(), "pending");
    assert_eq!(story.look(), changed_to(&leaf));
    // And now it does not.
    let leaf = story.leaf();
    story.chain(leaf.chain_pem());
    assert_eq!(story.look(), "pending");
    assert_eq!(
        story.look(),
        "key.pem: this private key does not belong to the certificate in chain.pem; was one of \
         them replaced without the other?"
    );
    assert_eq!([story.look(), story.look()], ["unchanged", "unchanged"]);
    story.key(leaf.key_pem());
    assert_eq!(story.look(), "pending");
    assert_eq!(story.look(), changed_to(&leaf));
}

#[test]
fn tl_13_what_cannot_be_used_is_reported_once_and_changes_nothing() {
    let sub = Pki::new("ca").intermediate("between");
    let below = sub.leaf(&["a.test"]).issue();
    let mut only_leaf = below.clone();
    only_leaf.keep_leaf_only();
    let wrong_order = sub.ca_pem() + &only_leaf.chain_pem();
    let good = Story::new().leaf();
    let half = &good.chain_pem()[..300];
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let expired = sub
        .leaf(&["a.test"])
        .valid(date(2001, 1, 1), date(2002, 1, 1))
        .issue();
    for (chain, key, text) in [
        (
            wrong_order.as_str(),
            below.key_pem(),
            "chain.pem: the private key belongs to certificate 2; the chain is in a wrong order: \
             the leaf certificate comes first, then each certificate's issuer",
        ),
        (
            half,
            good.key_pem(),
            "chain.pem: the block \"CERTIFICATE\" that begins in line 1 does not end; is the file \
             half written?",
        ),
        ("", good.key_pem(), "chain.pem: the file is empty"),
        (
            "unreadable",
            good.key_pem(),
            "chain.pem: the file cannot be read: permission denied",
        ),
        (
            "<html>404</html>",
            good.key_pem(),
            "chain.pem: this is not PEM text: no line begins with \"-----BEGIN \"",
        ),
        (
            &good.chain_pem(),
            encrypted.to_owned(),
            "key.pem: the private key is encrypted, and there is no way to ask for a passphrase \
             here; decrypt it first, for instance with `openssl pkey -in KEY -out PLAIN_KEY`",
        ),
        (
            &expired.chain_pem(),
            expired.key_pem(),
            "chain.pem: certificate 1 expired on 2002-01-01 00:00:00 UTC",
        ),
    ] {
        let mut story = Story::new();
        story.chain(chain);
        story.key(key);
        let looks = [(); 4].map(|()| story.look());
        assert_eq!(looks, ["pending", text, "unchanged", "unchanged"]);
        story.ends_well();
    }
}

#[test]
fn tl_13_a_file_that_is_gone_is_reported_and_its_return_is_no_change() {
    let mut story = Story::new();
    let key = story.files.remove(&story.dir.path("key.pem")).unwrap();
    assert_eq!(story.look(), "pending");
    assert_eq!(story.look(), "key.pem: there is no such file");
    assert_eq!(story.look(), "unchanged");
    story.key(key);
    assert_eq!([story.look(), story.look()], ["unchanged", "unchanged"]);
    story.ends_well();
}

#[test]
fn the_same_certificate_written_in_another_way_is_no_change() {
    let mut story = Story::new();
    let chain = format!("# renewed, it says\n\n{}", story.first.chain_pem());
    story.chain(chain.replace('\n', "\r\n"));
    assert_eq!([story.look(), story.look()], ["unchanged", "unchanged"]);
    story.ends_well();
}

#[test]
fn two_different_errors_are_both_reported() {
    let mut story = Story::new();
    story.chain("");
    assert_eq!(
        [story.look(), story.look()],
        ["pending", "chain.pem: the file is empty"]
    );
    story.key("");
    let missing = "chain.pem: the file is empty";
    assert_eq!([story.look(), story.look()], ["pending", missing]);
    assert_eq!(story.look(), "unchanged");
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_taken_up_when_it_is() {
    let mut story = Story::new();
    let leaf = story
        .pki
        .leaf(&["a.test"])
        .valid(date(2030, 1, 1), date(2031, 1, 1))
        .issue();
    story.chain(leaf.chain_pem());
    story.key(leaf.key_pem());
    assert_eq!(story.look(), "pending");
    assert_eq!(
        story.look(),
        "chain.pem: certificate 1 is not valid before 2030-01-01 00:00:00 UTC; is the clock right?"
    );
    assert_eq!(story.look(), "unchanged");
    story.clock.set(UtcTime::from_unix(1_900_000_000));
    assert_eq!(story.look(), changed_to(&leaf));
    assert_eq!(story.look(), "unchanged");
}

#[test]
fn a_bundle_is_watched_as_one_file() {
    let mut story = Story::with(|chain, _| IdentityFiles::bundle(chain));
    assert_eq!(story.look(), "unchanged");
    let leaf = story.leaf();
    story.chain(leaf.chain_pem());
    let text = "chain.pem: there is no private key in it, only CERTIFICATE";
    assert_eq!([story.look(), story.look()], ["pending", text]);
    story.chain(leaf.key_pem() + &leaf.chain_pem());
    assert_eq!(
        [story.look(), story.look()],
        ["pending".to_owned(), changed_to(&leaf)]
    );
}

#[test]
fn an_identity_from_memory_has_no_files_to_watch() {
    let leaf = Pki::new("ca").leaf(&["a.test"]).issue();
    assert!(FileWatch::new(&identity(&leaf), INTERVAL, now()).is_none());
}

#[test]
fn each_threshold_before_the_end_is_told_once() {
    const DAY: u64 = 24 * 60 * 60;
    let leaf = Pki::new("ca")
        .leaf(&["a.test"])
        .valid(date(2020, 1, 1), date(2030, 1, 31))
        .issue();
    let end = 1_896_048_000;
    let days = |days: u64| Duration::from_secs(days * DAY);
    let before = |seconds: i64| UtcTime::from_unix(end - seconds);
    let mut watch = ExpiryWatch::new(&identity(&leaf), &[days(1), days(30), days(7), days(0)]);
    assert_eq!(watch.not_after(), before(0));
    let month = 30 * 24 * 60 * 60;
    assert_eq!(watch.next(), Some(before(month)));
    assert_eq!(watch.expiring(before(month + 1)), None);
    let expected = |threshold, left| {
        let not_after = before(0);
        Some(Expiring {
            not_after,
            left,
            threshold,
        })
    };
    assert_eq!(watch.expiring(before(month)), expected(days(30), days(30)));
    assert_eq!(watch.expiring(before(month)), None);
    assert_eq!(watch.next(), Some(before(7 * 24 * 60 * 60)));
    // Two at once: the nearer counts.
    assert_eq!(
        watch.expiring(before(10)),
        expected(days(1), Duration::from_secs(10))
    );
    assert_eq!(watch.next(), Some(before(0)));
    assert_eq!(watch.expiring(before(1)), None);
    assert_eq!(watch.expiring(before(-100)), expected(days(0), days(0)));
    assert_eq!((watch.next(), watch.expiring(before(-1000))), (None, None));
}

#[test]
fn by_default_a_certificate_for_a_short_time_is_told_of_in_its_last_third() {
    let leaf = Pki::new("ca")
        .leaf(&["a.test"])
        .valid(date(2026, 1, 1), date(2026, 1, 7))
        .issue();
    let options = IdentityOptions::new().accept_out_of_date();
    let identity = options.from_pem(leaf.chain_pem(), leaf.key_pem()).unwrap();
    let days = |count: u64| Duration::from_secs(count * 24 * 3600);
    let mut watch = ExpiryWatch::by_default(&identity);
    let at =
        |left: u64| UtcTime::from_unix(identity.not_after().unix() - i64::try_from(left).unwrap());
    assert_eq!(watch.expiring(at(days(3).as_secs())), None);
    let told = |watch: &mut ExpiryWatch, left| watch.expiring(at(left)).map(|told| told.threshold);
    assert_eq!(told(&mut watch, days(2).as_secs()), Some(days(2)));
    assert_eq!(told(&mut watch, days(2).as_secs() - 1), None);
    assert_eq!(told(&mut watch, days(1).as_secs()), Some(days(1)));
    assert_eq!(told(&mut watch, 0), Some(days(0)));
}
