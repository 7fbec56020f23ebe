//! The TLS examples do what their head comments say, also in the eyes of `openssl` and `curl` where
//! the machine has them. `cargo test` builds the examples; when only this binary is asked for,
//! `cargo build --examples` has to come first.
#![cfg(all(unix, feature = "aws-lc-rs"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

#[path = "support/testpki.rs"]
mod testpki;

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

use testpki::{Pki, TempDir};

#[test]
fn three_clients_are_known_by_their_certificates_and_one_comes_back_with_a_new_one() {
    let said = run("mtls_client");
    let serials = |name: &str| -> Vec<String> {
        let start = format!("{name}: the server has verified us as {name:?} by certificate ");
        let lines = said.lines().filter_map(|line| line.strip_prefix(&start));
        lines.map(str::to_owned).collect()
    };
    let (anna, bert, carl) = (serials("anna"), serials("bert"), serials("carl"));
    assert_eq!((anna.len(), bert.len(), carl.len()), (1, 2, 1), "{said}");
    assert_ne!(bert[0], bert[1]);
    assert_ne!(anna[0], carl[0]);
    assert!(said.contains("bert: a new certificate is in use"), "{said}");
    assert!(
        said.contains("bert: its certificate was replaced, code 1001"),
        "{said}"
    );
}

#[test]
fn a_hundred_requests_share_four_connections_until_the_certificate_is_replaced() {
    let said = run("https_client");
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "100 responses, the last one: you are anna",
            "4 connections opened, used again 96 times; 4 open, 4 of them idle",
            "replacing the certificate",
            "100 responses, the last one: you are bert",
            "8 connections opened, used again 192 times; 4 open, 4 of them idle",
        ]
    );
}

#[test]
fn an_allow_list_an_endpoint_and_a_refusal_decide_who_may_connect() {
    let server = Asked::start(&[]);
    for (target, status) in [
        ("/?user=ada&token=sesame", 101),
        ("/?user=eve&token=guess", 401),
        ("/", 403),
    ] {
        assert_eq!(server.ask(target), status, "{target}");
    }
    drop(server);
    let server = Asked::start(&["--local", "127.0.0.0/8"]);
    assert_eq!(server.ask("/"), 101);
}

/// The example `webhook_auth` as a process.
struct Asked {
    process: Child,
    _said: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Asked {
    fn start(options: &[&str]) -> Self {
        let mut command = example("webhook_auth");
        let command = command.arg("127.0.0.1:0").args(options);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = said.next().unwrap().unwrap();
        let (_, port) = line.rsplit_once(':').unwrap();
        Self {
            port: port.parse().unwrap(),
            process,
            _said: said,
        }
    }

    /// The status that a request for an upgrade is answered with.
    fn ask(&self, target: &str) -> u16 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let line = BufReader::new(stream).lines().next().unwrap().unwrap();
        let (_, rest) = line.split_once(' ').unwrap();
        rest.split_once(' ').unwrap().0.parse().unwrap()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn each_name_is_answered_by_its_vhost_with_its_certificate() {
    let said = run("sni_vhosts");
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "a.test: certificate for a.test; vhost a.test",
            "b.test: certificate for b.test; vhost b.test",
            "any.c.test: certificate for *.c.test; vhost *.c.test",
            "unknown.test: refused: the peer's certificate is not accepted: it is not valid for \
         \"unknown.test\", only for default.test",
            "unknown.test, if default.test is good enough: certificate for default.test; vhost \
         default.test",
            "no name, if default.test is good enough: certificate for default.test; vhost default.test",
        ]
    );
}

#[test]
fn the_trace_tells_both_sides_of_every_handshake() {
    let said = run("tls_trace");
    let parts: Vec<_> = said.trim_end().split("\n\n").collect();
    let wanted: [&[&str]; 4] = [
        &[
            "A good handshake",
            "Client with",
            "certificate verified",
            "Server with",
            "vhost \"open.test\" chosen by exact name",
            "full handshake",
            "The client has its connection",
        ],
        &[
            "Client with",
            "TLS 1.3, resumed",
            "Server with",
            "TLS 1.3, resumed",
            "The client has its connection",
        ],
        &[
            "certificate sent: 0",
            "the peer gave no certificate and one is required",
            "alert sent: certificate_required (116)",
            "the peer refused with certificate_required (116)",
            "alert received: certificate_required (116)",
            "The client was told",
        ],
        &[
            "it is not valid for \"other.test\"",
            "alert sent: bad_certificate (42)",
            "chosen by default, for the name is unknown",
            "alert received: bad_certificate (42)",
            "The client was told",
        ],
    ];
    assert_eq!(parts.len(), wanted.len(), "{said}");
    for (part, wanted) in parts.into_iter().zip(wanted) {
        for text in wanted {
            assert!(part.contains(text), "no {text:?} in\n{part}");
        }
    }
}

#[test]
fn a_trace_of_a_foreign_server_says_how_the_handshake_went() {
    let dual = Dual::start(&[]);
    let ca = dual.file("ca.pem");
    let url = format!("wss://127.0.0.1:{}/", dual.port);
    let traced = example("tls_trace").args([&url, "--ca", &ca]).output();
    let traced = traced.unwrap();
    assert!(traced.status.success(), "{traced:?}");
    assert!(String::from_utf8_lossy(&traced.stdout).contains("certificate verified"));
    let stranger = dual.file("client.pem");
    let traced = example("tls_trace")
        .args([&url, "--ca", &stranger])
        .output();
    assert_eq!(traced.unwrap().status.code(), Some(1));
}

#[test]
fn our_client_shows_its_certificate_to_a_server_that_demands_it() {
    let mut dual = Dual::start(&["--client-auth", "required"]);
    let url = dual.url("wss", "localhost");
    let (ca, cert, key) = (
        dual.file("ca.pem"),
        dual.file("client.pem"),
        dual.file("client.key"),
    );
    let target = ["--once", "--connect", &url, "--ca", &ca];
    let shown = example("mtls_client")
        .args(target)
        .args(["--cert", &cert, "--key", &key])
        .output()
        .unwrap();
    assert!(shown.status.success(), "{shown:?}");
    assert!(String::from_utf8_lossy(&shown.stdout).contains(": hello\n"));
    let kept_back = example("mtls_client").args(target).output().unwrap();
    assert_eq!(kept_back.status.code(), Some(1));
    let error = String::from_utf8_lossy(&kept_back.stderr);
    assert!(error.contains("certificate_required (116)"), "{error}");
    assert_eq!(
        dual.refusal(),
        "TLS: the peer gave no certificate and one is required; alert sent: certificate_required \
         (116)"
    );
}

#[test]
fn a_revoked_certificate_is_called_revoked_on_both_sides_whoever_shows_it() {
    let (pki, dir) = (Pki::new("ca"), TempDir::new("revoked"));
    let (good, revoked) = (
        pki.leaf(&["localhost"]).issue(),
        pki.leaf(&["localhost"]).issue(),
    );
    let file = |name: &str, text: String| dir.write(name, &text).display().to_string();
    let ca = file("ca.pem", pki.ca_pem());
    let crl = file("crl.pem", pki.crl_pem(&[&revoked]));
    let good = [
        file("good.pem", good.chain_pem()),
        file("good.key", good.key_pem()),
    ];
    let revoked = [
        file("revoked.pem", revoked.chain_pem()),
        file("revoked.key", revoked.key_pem()),
    ];
    for (server, client) in [(&good, &revoked), (&revoked, &good)] {
        let mut dual = Dual::start(
            &[
                &["--cert", &server[0], "--key", &server[1]][..],
                &[
                    "--client-auth",
                    "required",
                    "--client-ca",
                    &ca,
                    "--crl",
                    &crl,
                ],
            ]
            .concat(),
        );
        let refused = example("mtls_client")
            .args(["--once", "--connect", &dual.url("wss", "localhost")])
            .args([
                "--ca", &ca, "--crl", &crl, "--cert", &client[0], "--key", &client[1],
            ])
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(1));
        let by_client = String::from_utf8_lossy(&refused.stderr);
        let by_server = dual.refusal();
        let reason = "the peer's certificate is not accepted: it is revoked";
        let alert = "the peer refused with certificate_revoked (44): our certificate is revoked, it \
                     says";
        if client == &revoked {
            assert!(by_client.trim_end().ends_with(alert), "{by_client}");
            let sent = "; alert sent: certificate_revoked (44)";
            assert_eq!(by_server, format!("TLS: {reason}{sent}"));
        } else {
            assert!(by_client.trim_end().ends_with(reason), "{by_client}");
            assert_eq!(by_server, format!("TLS: {alert}"));
        }
    }
}

#[test]
fn curl_is_greeted_over_https_and_http_on_one_port() {
    if !is_there("curl") {
        return;
    }
    let dual = Dual::start(&[]);
    let ca = dual.file("ca.pem");
    for host in ["localhost", "127.0.0.1"] {
        for scheme in ["https", "http"] {
            let answer = curl(&dual.url(scheme, host), &["--cacert", &ca]);
            assert!(answer.status.success(), "{answer:?}");
            assert!(answer.stdout.starts_with(b"Hello"), "{answer:?}");
        }
    }
    let untrusting = curl(&dual.url("https", "localhost"), &[]);
    // curl: the peer's certificate cannot be verified.
    assert_eq!(untrusting.status.code(), Some(60));
}

#[test]
fn client_authentication_decides_whom_curl_can_reach() {
    if !is_there("curl") {
        return;
    }
    for (auth, bare_https, http) in [
        ("none", true, true),
        ("optional", true, true),
        ("browsers", true, true),
        ("required", false, false),
    ] {
        let dual = Dual::start(&["--client-auth", auth]);
        let ca = dual.file("ca.pem");
        let (cert, key) = (dual.file("client.pem"), dual.file("client.key"));
        let url = dual.url("https", "localhost");
        let greeted = |answer: Output| answer.stdout.starts_with(b"Hello");
        let shown = curl(&url, &["--cacert", &ca, "--cert", &cert, "--key", &key]);
        assert!(greeted(shown), "{auth}, with a certificate");
        let bare = curl(&url, &["--cacert", &ca]);
        assert_eq!(greeted(bare), bare_https, "{auth}, without");
        let clear = curl(&dual.url("http", "localhost"), &[]);
        assert_eq!(greeted(clear), http, "{auth}, in the clear");
    }
}

#[test]
fn openssl_is_asked_for_a_certificate_and_refused_without_in_both_versions() {
    if !is_there("openssl") {
        return;
    }
    let dual = Dual::start(&["--client-auth", "required"]);
    let (cert, key) = (dual.file("client.pem"), dual.file("client.key"));
    for version in ["-tls1_2", "-tls1_3"] {
        let shown = s_client(&dual, &[version, "-cert", &cert, "-key", &key]);
        assert!(
            shown.stdout.windows(5).any(|window| window == b"Hello"),
            "{shown:?}"
        );
        let bare = s_client(&dual, &[version]);
        let error = String::from_utf8_lossy(&bare.stderr);
        assert!(error.contains("SSL alert number 116"), "{error}");
    }
}

#[test]
fn wrong_arguments_are_one_line_and_status_1() {
    let missing = "/nonexistent.pem";
    for (name, args) in [
        ("dual_ws_wss_server", &["nonsense"][..]),
        ("dual_ws_wss_server", &["--cert", missing]),
        ("dual_ws_wss_server", &["--cert", missing, "--key", missing]),
        ("dual_ws_wss_server", &["--client-auth", "perhaps"]),
        ("dual_ws_wss_server", &["--nonsense", "value"]),
        ("mtls_client", &["--connect"]),
        ("mtls_client", &["--ca", missing]),
        ("mtls_client", &["--connect", "wss://localhost/"]),
        ("tls_trace", &["wss://localhost/"]),
        ("echo_client", &["wss://localhost/"]),
        ("https_client", &["https://localhost/"]),
        ("https_client", &["http://localhost/", "--times", "x"]),
    ] {
        let output = example(name).args(args).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name} {args:?}: {error}");
        assert!(error.starts_with(name), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

/// A server whose log has no room any more serves on.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_for_what_it_logs_ends_no_server() {
    let full = || std::fs::File::options().write(true).open("/dev/full");
    let mut server = Dual::start_with(&[], full().unwrap().into());
    for _ in 0..2 {
        let mut stranger = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stranger.write_all(b"nonsense\r\n\r\n").unwrap();
        let mut answer = String::new();
        stranger.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    assert!(server.process.try_wait().unwrap().is_none(), "it is gone");
}

/// What an example that ends by itself says, if it ends well.
fn run(name: &str) -> String {
    let output = example(name).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn example(name: &str) -> Command {
    let here = std::env::current_exe().unwrap();
    let target = here.parent().unwrap().parent().unwrap();
    let path = target.join("examples").join(name);
    assert!(
        path.exists(),
        "{} is missing: run cargo build --examples",
        path.display()
    );
    Command::new(path)
}

/// A program that not every machine has. Without it a test shows nothing, and says so.
fn is_there(program: &str) -> bool {
    let version = Command::new(program)
        .arg(if program == "curl" { "-V" } else { "version" })
        .output();
    if version.is_err() {
        println!("skipped: there is no {program} on this machine");
    }
    version.is_ok()
}

fn curl(url: &str, options: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command.args(["-q", "--silent", "--noproxy", "*", "--max-time", "20"]);
    command.args(options).arg(url).output().unwrap()
}

fn s_client(dual: &Dual, options: &[&str]) -> Output {
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-verify_return_error"])
        .args(["-servername", "localhost", "-connect"])
        .arg(format!("127.0.0.1:{}", dual.port))
        .args(["-CAfile", &dual.file("ca.pem")])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    // One that was refused has stopped reading.
    let _ = input.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    drop(input);
    client.wait_with_output().unwrap()
}

/// A running server with throw-away certificates.
struct Dual {
    process: Child,
    /// Held open for what it says later.
    _said: Lines<BufReader<ChildStdout>>,
    /// Unless they go elsewhere.
    refusals: Option<Lines<BufReader<ChildStderr>>>,
    /// Of what it has made.
    directory: Option<PathBuf>,
    port: u16,
}

impl Dual {
    fn start(options: &[&str]) -> Self {
        Self::start_with(options, Stdio::piped())
    }

    fn start_with(options: &[&str], stderr: Stdio) -> Self {
        let mut command = example("dual_ws_wss_server");
        let spawned = command
            .arg("127.0.0.1:0")
            .args(options)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn();
        let mut process = spawned.unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        let mut said = said.lines();
        let mut line = said.next().unwrap().unwrap();
        let directory = line
            .rsplit_once(" in ")
            .map(|(_, directory)| directory.into());
        if directory.is_some() {
            line = said.next().unwrap().unwrap();
        }
        let (_, port) = line.trim_end_matches('/').rsplit_once(':').unwrap();
        let refusals = process.stderr.take();
        let refusals = refusals.map(|stderr| BufReader::new(stderr).lines());
        Self {
            directory,
            port: port.parse().unwrap(),
            process,
            _said: said,
            refusals,
        }
    }

    /// Why it refused the next connection that it refused.
    fn refusal(&mut self) -> String {
        let refusals = self.refusals.as_mut().unwrap();
        let line = refusals.next().unwrap().unwrap();
        let (peer, reason) = line.split_once(": ").unwrap();
        assert!(peer.starts_with("refused 127.0.0.1:"), "{line}");
        reason.to_owned()
    }

    fn file(&self, name: &str) -> String {
        let directory = self.directory.as_ref().unwrap();
        directory.join(name).display().to_string()
    }

    fn url(&self, scheme: &str, host: &str) -> String {
        format!("{scheme}://{host}:{}/", self.port)
    }
}

impl Drop for Dual {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(directory) = &self.directory {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}
