//! Heads, bodies and messages that trickle in, thousands at a time.

use wsloop::sim::{Call, Net, SimPeer};
use wsloop::{ClientConnectInfo, Context, ContextConfig, VhostConfig};

use super::common::{Echo, Site, Tally, batches, millis, secs};
use crate::support::{addr, masked, plain, request};

const CROWD: usize = 5000;

/// What a connection may cost while its head is not complete, in bytes.
const HALF_A_HEAD: usize = 1024;

#[test]
fn tm_01_five_thousand_heads_of_a_byte_in_nine_seconds_end_at_the_deadline_and_others_are_served() {
    let mut site = Site::new();
    let well = site.open(10);
    let idle = site.context.memory();
    let mut most = Vec::new();
    // Whoever is thrown out comes back at once, three times.
    for round in 1..=3 {
        let begin = site.net.elapsed();
        let slow = site.dial(CROWD);
        assert_eq!(site.context.connections(), CROWD + well.len());
        for at in [0, 9] {
            site.net.advance(begin + secs(at) - site.net.elapsed());
            trickle(&mut site, &slow, b'G', &well);
        }
        let each = (site.context.memory() - idle) / CROWD;
        assert!(each <= HALF_A_HEAD, "{each} bytes for half a head");
        most.push(each);
        site.net.advance(millis(999));
        site.settle();
        assert_eq!(site.tally.told().ended(), (round - 1) * CROWD, "not early");

        site.net.advance(millis(1));
        let turns = site.round(&well);
        assert!(
            turns <= 1 + batches(CROWD),
            "{turns} turns, at the deadline"
        );
        site.settle();
        let told = site.tally.told();
        let (reason, end) = told.only_end();
        assert_eq!((reason, end.count), ("timeout Head", round * CROWD));
        assert_eq!(end.last, begin + secs(10), "all of them, and then");
        drop(told);
        for peer in &slow {
            assert!(peer.read().starts_with(b"HTTP/1.1 408 "));
            assert!(peer.ended());
        }
        drop(slow);
        site.settle();
        assert_eq!(site.context.connections(), well.len());
        assert_eq!(site.context.memory(), idle);
    }
    assert!(most.iter().all(|each| *each == most[0]), "{most:?}");
    println!("half a head costs {} bytes", most[0]);
}

/// Each of the slow ones sends one byte. Who is well is served as if they were not there, and what
/// the library does about it is in proportion to what came.
fn trickle(site: &mut Site, slow: &[SimPeer], byte: u8, well: &[SimPeer]) {
    let before = site.calls();
    for peer in slow {
        peer.write(&[byte]).unwrap();
    }
    let ready = slow.len() + well.len();
    let turns = site.round(well);
    assert!(turns <= batches(ready), "{turns} turns for {ready} peers");
    site.settle();
    // One read for the byte, one that finds no more, one write for an answer.
    let calls = site.calls() - before;
    assert!(calls <= 3 * ready as u64, "{calls} calls for {ready} peers");
}

#[test]
fn tm_01_a_head_as_long_as_it_may_be_costs_no_more_than_that_while_it_trickles() {
    let mut site = Site::new();
    let slow = site.dial(500);
    let line = format!("X-Padding: {}\r\n", "p".repeat(180));
    let mut head = b"GET / HTTP/1.1\r\nHost: a.test\r\n".to_vec();
    while head.len() + line.len() < 16 * 1024 {
        head.extend_from_slice(line.as_bytes());
    }
    for peer in &slow {
        // In three pieces, as that would make a buffer grow.
        for piece in head.chunks(head.len() / 3 + 1) {
            peer.write(piece).unwrap();
            site.turn();
        }
    }
    site.settle();
    let each = site.context.memory() / slow.len();
    assert!(
        (head.len()..=2 * 16 * 1024 + 1024).contains(&each),
        "{each}"
    );
    site.pass(secs(9), secs(9));
    for peer in &slow {
        peer.write(b"X").unwrap();
    }
    site.pass(secs(1), secs(1));
    let told = site.tally.told();
    let (reason, end) = told.only_end();
    assert_eq!((reason, end.count), ("timeout Head", slow.len()));
    assert_eq!(end.last, secs(10));
}

/// The second head of a connection has no more time than the first, and begins with its first byte.
#[test]
fn tm_01_the_head_after_an_answered_request_has_its_deadline_too() {
    let page = |vhost: VhostConfig| vhost.page("/", "text/plain", "hello");
    let mut site = Site::with(Default::default(), page);
    let slow = site.dial(1000);
    for peer in &slow {
        peer.write(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .unwrap();
    }
    site.settle();
    for peer in &slow {
        assert!(peer.read().starts_with(b"HTTP/1.1 200 "));
    }
    // Nearly as long as a kept connection may be silent.
    site.pass(secs(29), secs(29));
    assert_eq!(site.context.connections(), slow.len());
    for _ in 0..3 {
        for peer in &slow {
            let _ = peer.write(b"G");
        }
        site.pass(secs(9), secs(1));
    }
    site.pass(secs(5), secs(1));
    assert_eq!(site.context.connections(), 0, "{:?}", site.tally.told());
    for peer in &slow {
        assert!(peer.ended() || peer.was_reset() || peer.read().starts_with(b"HTTP/1.1 408 "));
    }
}

#[test]
fn tm_02_messages_of_a_byte_now_and_then_end_at_the_messages_deadline_and_cost_what_has_come() {
    let mut site = Site::new();
    let well = site.open(10);
    let slow = site.open(1000);
    let idle = site.context.memory();
    let message = masked(0x82, &vec![1; 1_000_000]);
    let begin = site.net.elapsed();
    let mut sent = 0;
    // The header, and then ten bytes every six seconds, until the server has had enough.
    for at in 0..11 {
        let len = if at == 0 { 14 } else { 10 };
        for peer in &slow {
            let _ = peer.write(&message[sent..sent + len]);
        }
        sent += len;
        let turns = site.round(&well);
        assert!(turns <= batches(slow.len() + well.len()), "{turns}");
        site.settle();
        let grown = site.context.memory().saturating_sub(idle) / slow.len();
        assert!(
            grown <= 8 * 1024,
            "{grown} bytes for {sent} of a declared million"
        );
        site.pass(secs(6), secs(1));
    }
    let told = site.tally.told();
    let (reason, end) = told.only_end();
    assert_eq!((reason, end.count), ("timeout Message", slow.len()));
    let limit = begin + secs(60);
    // The Close frame has its own time to be answered in, unless the peer ends.
    assert!(end.first >= limit && end.last <= limit + secs(6), "{end:?}");
    drop(told);
    let close = [0x88, 26];
    for peer in &slow {
        let said = peer.read();
        assert!(
            said.starts_with(&close) || said.starts_with(&[0x88]),
            "{said:02x?}"
        );
    }
    site.pass(secs(6), secs(1));
    assert_eq!(site.context.connections(), well.len());
}

/// The other side: servers whose answer to our handshake comes byte by byte, or not at all.
#[test]
fn tm_01_a_thousand_servers_that_answer_by_the_byte_are_given_up_at_the_deadline() {
    let net = Net::new(11);
    let tally = Tally::new(&net);
    let mut context = Context::simulated(&net, ContextConfig::new()).unwrap();
    let vhost = VhostConfig::new("c.test").protocol("p", Echo(tally.clone()));
    let vhost = context.create_vhost(vhost).unwrap();
    let listener = net.listen(addr()).unwrap();
    let mut servers = Vec::new();
    let turn = |context: &mut Context| {
        for _ in 0..20 {
            context.service(Some(millis(0))).unwrap();
        }
    };
    for _ in 0..1000 {
        let info = ClientConnectInfo::new("10.0.0.1", 80).unwrap();
        context.client_connect(vhost, info).unwrap();
        turn(&mut context);
        servers.push(listener.accept().unwrap());
    }
    let mut most = 0;
    for byte in b"HT" {
        for (n, server) in servers.iter().enumerate() {
            // Half of them say nothing at all.
            if n % 2 == 0 {
                server.write(&[*byte]).unwrap();
            }
        }
        turn(&mut context);
        most = most.max(context.memory() / servers.len());
        net.advance(millis(7400));
        turn(&mut context);
    }
    assert!(most <= 2048, "{most} bytes each");
    assert_eq!(tally.told().ended(), 0, "not early");
    net.advance(millis(200));
    turn(&mut context);
    let told = tally.told();
    let (reason, end) = told.only_end();
    assert_eq!((reason, end.count), ("timeout Response", servers.len()));
    assert_eq!(end.last, secs(15));
    assert_eq!(context.connections(), 0);
    println!("half an answer costs {most} bytes");
}

/// One read more than there were bytes, whatever the pieces: work goes by bytes, not by time.
#[test]
fn io_05_a_request_and_its_messages_byte_by_byte_cost_two_reads_a_byte_at_most() {
    let mut site = Site::new();
    let peers = site.dial(100);
    let before = site.net.calls(Call::Read);
    let bytes = [request("/"), masked(0x81, b"hello")].concat();
    for byte in &bytes {
        for peer in &peers {
            peer.write(&[*byte]).unwrap();
        }
        site.settle();
    }
    let reads = site.net.calls(Call::Read) - before;
    let came = (bytes.len() * peers.len()) as u64;
    assert!(reads <= 2 * came, "{reads} reads for {came} bytes");
    for peer in &peers {
        assert!(peer.read().ends_with(&plain(0x81, b"hello")));
    }
}
