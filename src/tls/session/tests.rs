#![allow(
    clippy::cast_possible_truncation,
    reason = "a byte of a random number is what is meant"
)]

use rustls::client::Resumption;

use super::*;
use crate::tls::test_support::*;

mod damage;
mod ends;
mod handshakes;
mod records;
mod refusals;
mod traces;

const SIZES: [usize; 7] = [1, 2, 3, 7, 100, 1777, usize::MAX];

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// Both ways, in records that fill, end within and begin within what was read.
fn exchange(client: &mut dyn End, server: &mut dyn End, size: usize) {
    pump(client, server, size);
    client.send(&text(40_000));
    client.send(b"!");
    server.send(&text(20_000));
    server.send(b"?");
    pump(client, server, size);
}

fn assert_idle(end: &Ours) {
    assert_eq!(end.failure, None);
    assert!(end.session.can_send());
    assert_eq!(end.session.stash().len(), 0);
    assert!(!end.session.is_handshaking());
    // Until the trace is taken, it is what is left of the handshake.
    let rest = end.session.unsettled.as_ref();
    assert!(rest.is_none_or(|rest| rest.recorder.is_some()));
    let established = end.got.iter().filter(|got| got.established_now);
    assert_eq!(established.count(), 1);
}

#[test]
fn sessions_in_a_row_for_the_same_name_keep_it_once() {
    let pki = Pki::new();
    let config = Arc::new(pki.server_config(&[&TLS13], Asks::No));
    let mut last = None;
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let mut client = Theirs::client(&Arc::new(pki.client_config(&[&TLS13])));
        let mut server = Ours::server(&config);
        exchange(&mut client, &mut server, 100);
        server.session.share_name(&mut last);
        assert!(server.session.server_name().is_some());
        sessions.push(server.session);
    }
    let names = sessions.iter().filter_map(|it| it.server_name.as_ref());
    let last = last.as_ref().unwrap();
    assert_eq!(names.filter(|name| Arc::ptr_eq(name, last)).count(), 2);
    let mut nameless = Session::server(now());
    nameless.share_name(&mut None);
    assert_eq!(nameless.server_name(), None);
}

fn forth() -> Vec<u8> {
    [text(40_000), b"!".to_vec()].concat()
}

fn back() -> Vec<u8> {
    [text(20_000), b"?".to_vec()].concat()
}

/// A client whose first key share is of a group that the server lacks.
fn retrying(pki: &Pki) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let groups = provider().kx_groups.clone();
    let classic = |name| move |group: &&&dyn rustls::crypto::SupportedKxGroup| group.name() == name;
    let find = |name| *groups.iter().find(classic(name)).unwrap();
    let (first, second) = (
        find(rustls::NamedGroup::secp384r1),
        find(rustls::NamedGroup::X25519),
    );
    let mut both = (*provider()).clone();
    both.kx_groups = vec![first, second];
    let mut one = (*provider()).clone();
    one.kx_groups = vec![second];
    let client = ClientConfig::builder_with_provider(Arc::new(both));
    let client = client.with_protocol_versions(&[&TLS13]).unwrap();
    let client = client.with_root_certificates(pki.ca.roots());
    let mut client = client.with_no_client_auth();
    client.resumption = Resumption::disabled();
    let server = ServerConfig::builder_with_provider(Arc::new(one));
    let server = server
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth();
    let key = pki.server.key.clone_key();
    let server = server
        .with_single_cert(pki.server.chain.clone(), key)
        .unwrap();
    (Arc::new(client), Arc::new(server))
}

/// What the two sides report when one refuses the other's certificate.
fn refusals(server: &mut Ours, client: &mut Ours) -> (TlsFailure, TlsFailure) {
    connect(client, server);
    let [server, client] = [&server.failure, &client.failure];
    (server.clone().unwrap(), client.clone().unwrap())
}

fn with_alpn(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}
