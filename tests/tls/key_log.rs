//! The secrets of connections: told to whoever asked for them, and to nobody else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rustls::version::TLS12;
use wsloop::ContextConfig;
use wsloop::tls::{ClientTls, KeyLogFile};

use crate::lab::{Lab, TlsStranger, roots, rustls_client, server_tls, url};
use crate::support::request;
use crate::testpki::{Pki, TempDir};

/// Label, client random and secret.
type Line = (String, Vec<u8>, Vec<u8>);
/// Client random and secret.
type Said = (Vec<u8>, Vec<u8>);

fn logging() -> (ContextConfig, Arc<Mutex<Vec<Line>>>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&lines);
    let config = ContextConfig::new().key_log(move |label: &str, random: &[u8], secret: &[u8]| {
        let line = (label.to_owned(), random.to_vec(), secret.to_vec());
        log.lock().unwrap().push(line);
    });
    (config, lines)
}

/// One connection between both sides of one context.
fn connect(config: ContextConfig) {
    let pki = Pki::new("ca");
    let mut lab = Lab::with(1, config);
    lab.server("a.test", server_tls(&pki, &["a.test"]));
    let client = lab.client("client", ClientTls::new(roots(&pki)));
    lab.dial(client, &url("a.test"));
    assert_eq!(lab.journal.texts("client"), ["hello"]);
}

const LABELS: [&str; 5] = [
    "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
    "CLIENT_TRAFFIC_SECRET_0",
    "EXPORTER_SECRET",
    "SERVER_HANDSHAKE_TRAFFIC_SECRET",
    "SERVER_TRAFFIC_SECRET_0",
];

#[test]
fn both_sides_tell_the_same_secrets_of_the_same_connection() {
    let (config, lines) = logging();
    connect(config);
    let mut told: BTreeMap<String, Vec<Said>> = BTreeMap::new();
    for (label, random, secret) in lines.lock().unwrap().drain(..) {
        assert_eq!(random.len(), 32);
        assert!(secret.len() >= 32, "{label}");
        told.entry(label).or_default().push((random, secret));
    }
    assert_eq!(told.keys().collect::<Vec<_>>(), LABELS);
    for (label, sides) in told {
        let [one, other] = sides.as_slice() else {
            panic!("{label}: {sides:?}");
        };
        assert_eq!(one, other, "{label}");
    }
}

#[test]
fn the_secret_of_tls_1_2_is_that_of_the_peer() {
    let (config, lines) = logging();
    let pki = Pki::new("ca");
    let mut lab = Lab::with(1, config);
    lab.server("a.test", server_tls(&pki, &["a.test"]));
    let theirs = Arc::new(PeerLog::default());
    let mut config = rustls_client(&pki, None, &[&TLS12]);
    config.key_log = theirs.clone();
    let mut stranger = TlsStranger::new(lab.stranger(), config, "a.test");
    stranger.say(&request("/"));
    stranger.exchange(&mut lab).unwrap();
    let lines = lines.lock().unwrap();
    assert_eq!(*lines, *theirs.0.lock().unwrap());
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].0, "CLIENT_RANDOM");
}

/// What the stranger's library logs.
#[derive(Debug, Default)]
struct PeerLog(Mutex<Vec<Line>>);

impl rustls::KeyLog for PeerLog {
    fn log(&self, label: &str, random: &[u8], secret: &[u8]) {
        let line = (label.to_owned(), random.to_vec(), secret.to_vec());
        self.0.lock().unwrap().push(line);
    }
}

#[test]
fn a_file_is_appended_to_in_the_format_of_nss() {
    let dir = TempDir::new("key-log");
    let path = dir.path("keys");
    std::fs::write(&path, "# before\n").unwrap();
    connect(ContextConfig::new().key_log(KeyLogFile::append(&path).unwrap()));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("# before"));
    let mut count = 0;
    for line in lines {
        let parts: Vec<&str> = line.split(' ').collect();
        let [label, random, secret] = parts.as_slice() else {
            panic!("{line:?}");
        };
        assert!(LABELS.contains(label), "{line:?}");
        let is_hex = |text: &str| {
            text.bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        assert!(random.len() == 64 && is_hex(random), "{line:?}");
        assert!(secret.len() >= 64 && is_hex(secret), "{line:?}");
        count += 1;
    }
    assert_eq!(count, 2 * LABELS.len());
}

#[cfg(unix)]
#[test]
fn a_new_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new("key-log-mode");
    let path = dir.path("keys");
    connect(ContextConfig::new().key_log(KeyLogFile::append(&path).unwrap()));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}

#[cfg(target_os = "linux")]
#[test]
fn rs_16_traffic_goes_on_when_the_disk_is_full() {
    connect(ContextConfig::new().key_log(KeyLogFile::append("/dev/full").unwrap()));
}

#[test]
fn without_opt_in_nothing_is_told() {
    let (_config, lines) = logging();
    connect(ContextConfig::new());
    assert!(lines.lock().unwrap().is_empty());
    let (config, _lines) = logging();
    let shown = format!("{config:?}");
    assert!(shown.contains("key_log: Some(KeyLog)"), "{shown}");
}
