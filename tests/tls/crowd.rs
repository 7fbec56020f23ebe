//! Many identities in one context: nobody is ever taken for somebody else.

use std::collections::BTreeMap;
use std::time::Duration;

use wsloop::tls::{ClientAuth, ClientTls, ClientTrust, Roots};
use wsloop::{
    ClientConnectInfo, ListenConfig, PlaintextPolicy, ProtocolHandle, VhostConfig, VhostId, WsiId,
};

use crate::lab::{Event, Lab, Probe, identity, roots, server_tls, socket};
use crate::testpki::Pki;

const VHOSTS: usize = 200;
const ROTATED: usize = 50;

/// One server for each authority: it admits exactly the clients of that one.
struct Crowd {
    lab: Lab,
    authorities: Vec<Pki>,
    clients: Vec<(VhostId, ProtocolHandle<Probe>, usize)>,
}

impl Crowd {
    fn new() -> Self {
        let mut lab = Lab::new();
        let authorities: Vec<Pki> = (0..3).map(|n| Pki::new(&format!("ca {n}"))).collect();
        let servers = Pki::new("servers");
        for (n, authority) in authorities.iter().enumerate() {
            let name = format!("s{n}.test");
            let trust = ClientTrust::new(roots(authority));
            let tls = server_tls(&servers, &[&name]).client_auth(ClientAuth::Required(trust));
            let listen = ListenConfig::new(Self::address(n)).tls(PlaintextPolicy::Reject);
            let mut config = VhostConfig::new(&name).listen(listen).server_tls(tls);
            let probe = Probe::echo(&name, &lab.journal);
            config = config.protocol("p", probe);
            lab.add(config);
            lab.net.name(&name, [Self::address(n).ip()]);
        }
        let trust = roots(&servers);
        let clients = (0..VHOSTS)
            .map(|n| Self::client(&mut lab, &authorities, &trust, n))
            .collect();
        Self {
            lab,
            authorities,
            clients,
        }
    }

    fn address(server: usize) -> std::net::SocketAddr {
        socket(&format!("10.0.0.{}:443", server + 1))
    }

    fn client(
        lab: &mut Lab,
        authorities: &[Pki],
        trust: &Roots,
        n: usize,
    ) -> (VhostId, ProtocolHandle<Probe>, usize) {
        let authority = n % authorities.len();
        let name = format!("client-{n}");
        let leaf = authorities[authority].leaf(&[&name]).issue();
        let tls = ClientTls::new(trust.clone()).identity(identity(&leaf));
        let mut config = VhostConfig::new(&name).client_tls(tls);
        // What it says must come from whom its certificate is of.
        let probe = Probe::greeting(&name, &lab.journal, &name);
        let handle = config.add_protocol("c", probe);
        (lab.add(config), handle, authority)
    }

    fn dial(&mut self, n: usize, server: usize) -> WsiId {
        let (vhost, ..) = self.clients[n];
        let url = format!("wss://s{server}.test/");
        let info = ClientConnectInfo::from_url(&url).unwrap();
        self.lab.context.client_connect(vhost, info).unwrap()
    }

    fn turn(&mut self) {
        for _ in 0..30 {
            self.lab.context.service(Some(Duration::ZERO)).unwrap();
        }
    }
}

#[test]
fn two_hundred_vhosts_each_show_their_own_certificate_and_then_fifty_change_it() {
    let mut crowd = Crowd::new();
    let mut ids = Vec::new();
    for n in 0..VHOSTS {
        let server = crowd.clients[n].2;
        ids.push(crowd.dial(n, server));
    }
    crowd.turn();
    for server in 0..3 {
        let expected: Vec<_> = (0..VHOSTS)
            .filter(|n| n % 3 == server)
            .map(|n| Some(format!("client-{n}")))
            .collect();
        let mut found = crowd.lab.journal.peers(&format!("s{server}.test"));
        found.sort_by_key(|name| number(name.as_deref().unwrap()));
        assert_eq!(found, expected);
    }
    for n in 0..VHOSTS {
        let name = format!("client-{n}");
        assert_eq!(crowd.lab.journal.texts(&name), [name.as_str()]);
    }
    crowd.lab.journal.take();
    rotate_under_load(&mut crowd, &mut ids);

    // Nobody gets in where another authority is demanded.
    for n in 0..9 {
        let wrong = (crowd.clients[n].2 + 1) % 3;
        crowd.dial(n, wrong);
    }
    crowd.turn();
    let refused = crowd
        .lab
        .journal
        .count(|event| matches!(event, Event::Refused(_)));
    assert_eq!(refused, 9);
    let opened = crowd
        .lab
        .journal
        .count(|event| matches!(event, Event::Open(_)));
    assert_eq!(opened, 0);
}

/// Every round some vhosts get a new certificate while all the others talk, hang up and dial.
fn rotate_under_load(crowd: &mut Crowd, ids: &mut [WsiId]) {
    let mut current: BTreeMap<usize, String> =
        (0..VHOSTS).map(|n| (n, format!("client-{n}"))).collect();
    for round in 0..10 {
        let rotated: Vec<usize> = (0..ROTATED / 10)
            .map(|k| (round * 5 + k) * 4 % VHOSTS)
            .collect();
        for &n in &rotated {
            let (vhost, _, authority) = crowd.clients[n];
            let name = format!("rotated-{n}");
            let leaf = crowd.authorities[authority].leaf(&[&name]).issue();
            crowd
                .lab
                .context
                .set_client_identity(vhost, identity(&leaf))
                .unwrap();
            current.insert(n, name);
        }
        let redial: Vec<usize> = (0..VHOSTS)
            .filter(|n| n % 10 == round || rotated.contains(n))
            .collect();
        for &n in &redial {
            let (_, handle, server) = crowd.clients[n];
            crowd
                .lab
                .context
                .with_protocol(handle, |_, cx| cx.abort(ids[n]).unwrap())
                .unwrap();
            ids[n] = crowd.dial(n, server);
        }
        // The rest is at work meanwhile.
        for n in (0..VHOSTS).filter(|n| !redial.contains(n)) {
            let (_, handle, _) = crowd.clients[n];
            let sent = crowd.lab.context.with_protocol(handle, |_, cx| {
                cx.peer(ids[n]).unwrap().send_text("at work")
            });
            sent.unwrap().unwrap();
        }
        crowd.turn();
        check_round(crowd, &redial, &current);
    }
    assert_eq!(
        current
            .values()
            .filter(|name| name.starts_with("rotated"))
            .count(),
        ROTATED
    );
}

fn check_round(crowd: &Crowd, redialled: &[usize], current: &BTreeMap<usize, String>) {
    let journal = &crowd.lab.journal;
    let failed = journal.count(|event| matches!(event, Event::Refused(_) | Event::ConnectError(_)));
    assert_eq!(failed, 0);
    let mut found: Vec<String> = (0..3)
        .flat_map(|server| journal.peers(&format!("s{server}.test")))
        .flatten()
        .collect();
    let mut expected: Vec<String> = redialled.iter().map(|n| current[n].clone()).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    for n in 0..VHOSTS {
        let texts = journal.texts(&format!("client-{n}"));
        match redialled.contains(&n) {
            true => assert_eq!(texts, [format!("client-{n}")]),
            false => assert_eq!(texts, ["at work"]),
        }
    }
    journal.take();
}

fn number(name: &str) -> usize {
    name.rsplit('-').next().unwrap().parse().unwrap()
}
