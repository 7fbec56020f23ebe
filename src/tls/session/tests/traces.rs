//! What a trace shows.

use std::time::Duration;

use rustls::SupportedProtocolVersion;

use super::*;
use crate::tls::trace::ChosenBy;

/// The lines of a trace without their times.
fn lines(end: &mut Ours) -> Vec<String> {
    let trace = end.session.take_trace().unwrap();
    trace.steps().map(|(_, step)| step.to_string()).collect()
}

fn versions_of(version: &'static SupportedProtocolVersion) -> &'static str {
    match version.version {
        ProtocolVersion::TLSv1_2 => "TLS 1.2",
        _ => "TLS 1.3",
    }
}

#[test]
fn tl_23_traces_of_full_and_resumed_handshakes() {
    let pki = Pki::new();
    for version in VERSIONS {
        let mut server_config = pki.server_config(&[version], Asks::Required);
        server_config.alpn_protocols = with_alpn(&["http/1.1"]);
        let server_config = Arc::new(server_config);
        let mut client_config = pki.client_config_with(&[version], &pki.client);
        client_config.alpn_protocols = with_alpn(&["h2", "http/1.1"]);
        client_config.resumption = Resumption::in_memory_sessions(8);
        let client_config = Arc::new(client_config);
        let name = versions_of(version);
        let hello = format!("SNI a.test, ALPN h2 http/1.1, {name}");
        for resumed in [false, true] {
            let mut client = Ours::client(&client_config);
            let mut server = Ours::asking(&server_config);
            exchange(&mut client, &mut server, 1777);
            let suite = client.session.suite().unwrap();
            let group = client.session.group();
            let group = group.map_or_else(String::new, |group| format!(", {group}"));
            let kind = if resumed { "resumed" } else { "full handshake" };
            let done = format!("established: {name}, {suite}, {kind}{group}, ALPN http/1.1");
            // The verifiers are rustls' own: what they have verified is not known.
            let certificates = ["certificate received: 1"];
            let asked = match (resumed, name) {
                (true, _) => vec![],
                (false, _) => [&["certificate requested"][..], &certificates].concat(),
            };
            let received = format!("ClientHello received: {hello}");
            let expected = [&[&*received][..], &asked, &[&done]].concat();
            assert_eq!(lines(&mut server), expected);
            let asked = match (resumed, name) {
                (true, _) => vec![],
                // Without hooks in its configuration, a client does not see what TLS 1.3 encrypts.
                (false, "TLS 1.3") => certificates.to_vec(),
                (false, _) => [&["certificate requested"][..], &certificates].concat(),
            };
            let sent = format!("ClientHello sent: {hello}");
            let expected = [&[&*sent][..], &asked, &[&done]].concat();
            assert_eq!(lines(&mut client), expected);
        }
    }
}

#[test]
fn tl_23_traces_of_failed_handshakes() {
    let pki = Pki::new();
    let stranger = Ca::new("stranger").leaf("client");
    let server_config = Arc::new(pki.server_config(&[&TLS13], Asks::Required));
    let mut client = Ours::client(&Arc::new(pki.client_config_with(&[&TLS13], &stranger)));
    let mut server = Ours::asking(&server_config);
    connect(&mut client, &mut server);
    let why = "no trusted root has issued it, or an intermediate certificate is missing";
    let expected = [
        "ClientHello received: SNI a.test, no ALPN, TLS 1.3".to_owned(),
        "certificate requested".into(),
        format!("certificate not accepted: {why}"),
        "alert sent: unknown_ca (48)".into(),
        format!("failed: the peer's certificate is not accepted: {why}"),
    ];
    assert_eq!(lines(&mut server), expected);
    let trace = lines(&mut client);
    assert!(trace[2].starts_with("established: TLS 1.3"), "{trace:?}");
    assert_eq!(trace[3], "alert received: unknown_ca (48)");
    assert!(trace[4].starts_with("failed: the peer refused with unknown_ca (48)"));
    assert_eq!(trace.len(), 5);
}

#[test]
fn tl_23_traces_of_a_retry_and_of_silence() {
    let pki = Pki::new();
    let (client_config, server_config) = retrying(&pki);
    let mut client = Ours::client(&client_config);
    let mut server = Ours::server(&server_config);
    connect(&mut client, &mut server);
    assert_eq!(lines(&mut server)[1], "HelloRetryRequest");
    assert_eq!(lines(&mut client)[1], "HelloRetryRequest");
    let mut server = Ours::server(&server_config);
    server.now += Duration::from_secs(5);
    assert!(server.eof().is_err());
    let trace = server.session.take_trace().unwrap();
    let steps: Vec<_> = trace.steps().collect();
    let text = "the peer closed the connection before its first byte";
    let failed = TlsStep::Failed(text.into());
    assert_eq!(steps, [(Duration::from_secs(5), &failed)]);
}

#[test]
fn whoever_chooses_the_vhost_writes_to_the_trace() {
    let pki = Pki::new();
    let config = Arc::new(pki.server_config(&VERSIONS, Asks::No));
    let mut client = Theirs::client(&Arc::new(pki.client_config(&VERSIONS)));
    let (start, mut session) = (now(), Session::server(now()));
    let mut select = |hello: &ClientHello| {
        trace::note(TlsStep::VhostChosen {
            vhost: hello.server_name().unwrap().into(),
            by: ChosenBy::ExactName,
        });
        let config = Arc::clone(&config);
        Ok(Chosen {
            config,
            requests_certificate: false,
        })
    };
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    let mut wire = client.take_out();
    session
        .receive(
            &mut wire,
            &mut Place::default(),
            &mut plain,
            &mut out,
            start,
            &mut select,
        )
        .unwrap();
    let trace = session.take_trace().unwrap().to_string();
    assert!(
        trace.contains("vhost \"a.test\" chosen by exact name"),
        "{trace}"
    );
}
