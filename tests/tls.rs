//! TLS through a whole context, on the simulated network: both sides, one port for ws and wss,
//! client certificates, names, rotation, traces.
#![cfg(all(feature = "sim", any(feature = "aws-lc-rs", feature = "ring")))]

mod support;
#[path = "support/testpki.rs"]
mod testpki;

#[path = "tls/lab.rs"]
mod lab;
#[path = "tls/matrix.rs"]
mod matrix;
#[path = "tls/names.rs"]
mod names;

use std::net::IpAddr;

use support::{Log, Recorder, World, addr, masked, plain, request};
use testpki::Pki;
use wsloop::tls::{ClientTls, Identity, Roots, ServerTls};
use wsloop::{ClientConnectInfo, ListenConfig, PlaintextPolicy, VhostConfig, VhostId};

fn identity(pki: &Pki, names: &[&str]) -> Identity {
    let leaf = pki.leaf(names).issue();
    Identity::from_pem(leaf.chain_pem(), leaf.key_pem()).unwrap()
}

fn roots(pki: &Pki) -> Roots {
    Roots::from_pem(pki.ca_pem()).unwrap()
}

/// A server that echoes over TLS, and a vhost that trusts its authority.
struct Site {
    world: World,
    pki: Pki,
    client: VhostId,
    client_log: Log,
}

impl Site {
    fn new(policy: PlaintextPolicy) -> Self {
        let pki = Pki::new("ca");
        let tls = ServerTls::new(identity(&pki, &["a.test"]));
        let mut world = World::with(|log| {
            VhostConfig::new("a.test")
                .listen(ListenConfig::new(addr()).tls(policy))
                .server_tls(tls)
                .protocol("p", Recorder::echo(log))
        });
        let ip: IpAddr = addr().ip();
        world.net.name("a.test", [ip]);
        let client_log = Log::default();
        let config = VhostConfig::new("client")
            .client_tls(ClientTls::new(roots(&pki)))
            .protocol(
                "c",
                Recorder {
                    established: Some(Box::new(|wsi| {
                        assert!(wsi.is_tls());
                        wsi.send_text("hello")?;
                        Ok(())
                    })),
                    ..Recorder::new(&client_log)
                },
            );
        let client = world.context.create_vhost(config).unwrap();
        Self {
            world,
            pki,
            client,
            client_log,
        }
    }

    fn dial(&mut self, url: &str) {
        let info = ClientConnectInfo::from_url(url).unwrap();
        self.world
            .context
            .client_connect(self.client, info)
            .unwrap();
        self.world.turn();
    }
}

#[test]
fn a_message_comes_back_over_tls() {
    let mut site = Site::new(PlaintextPolicy::Reject);
    site.dial("wss://a.test:80/");
    assert_eq!(
        site.client_log.take(),
        ["established 101 None", "text \"hello\""]
    );
}

#[test]
fn one_port_serves_ws_and_wss() {
    let mut site = Site::new(PlaintextPolicy::Serve);
    site.dial("wss://a.test:80/");
    assert_eq!(site.client_log.count("text"), 1);
    let peer = site.world.open();
    peer.write(&masked(0x81, b"in the clear")).unwrap();
    site.world.turn();
    assert_eq!(peer.read(), plain(0x81, b"in the clear"));
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused_with_the_reason_at_both_ends() {
    let mut site = Site::new(PlaintextPolicy::Reject);
    let other = Pki::new("other");
    site.world
        .context
        .set_client_tls(site.client, ClientTls::new(roots(&other)))
        .unwrap();
    site.world.log.take();
    site.dial("wss://a.test:80/");
    println!(
        "{:#?} {:#?}",
        site.client_log.lines(),
        site.world.log.lines()
    );
    assert_eq!(
        site.client_log.count("connect_error a.test:80: tls stage"),
        1
    );
    assert_eq!(site.world.log.count("refused TLS"), 1);
    let _ = (&site.pki, request("/"));
}
