//! The library on the system's own sockets, over the loopback interface: what only they tell.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod real;

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use real::{Host, Peer, REQUEST, in_child, loopback, masked, plain};
use socket2::{Domain, Socket, Type};
use wsloop::{
    ClientConnectInfo, Close, ConnectFailure, Context, ContextConfig, Established, Limits,
    ListenConfig, Message, Protocol, VhostConfig, VhostError, Wsi,
};

#[test]
fn echo_with_both_contexts_in_one_thread() {
    let mut server = Host::server();
    let mut client = Host::client();
    client.dial(server.addr());
    let mut said = false;
    client.until(|client| {
        server.turn();
        if !said && client.log.count("established") == 1 {
            broadcast(client, Message::Text("hello"));
            said = true;
        }
        // The client's probe answers the echo, so this goes on.
        client.log.count("text hello") == 3
    });
    assert!(server.log.count("text hello") >= 3);
}

#[test]
fn echo_with_the_contexts_in_two_threads() {
    let mut server = Host::server();
    let addr = server.addr();
    let wake = server.context.cancel_service_handle();
    let thread = thread::spawn(move || {
        while server.log.count("closed") == 0 {
            server.context.service(None).unwrap();
        }
        drop(wake);
        server.log.lines()
    });
    let mut client = Host::client();
    let id = client.dial(addr);
    client.until_logged("established", 1);
    for text in ["one", "two"] {
        broadcast(&mut client, Message::Text(text));
        client.until_logged(&format!("text {text}"), 2);
    }
    let closed = client
        .context
        .with_protocol(client.probe, |_, cx| cx.close(id, Close::normal()));
    closed.unwrap().unwrap();
    client.until_logged("closed Local", 1);
    let lines = thread.join().unwrap();
    assert_eq!(
        lines.last().unwrap(),
        "closed Peer: closed by the peer, code 1000, clean"
    );
}

/// A read ends at urgent data, however much follows it, and so comes back short without having
/// emptied the socket.
#[test]
fn what_follows_urgent_data_is_not_left_lying() {
    let mut server = Host::server();
    let mut peer = server.open();
    for round in 1..=10 {
        peer.write(&masked(0x81, b"before"));
        let socket = socket2::SockRef::from(&peer.stream);
        assert_eq!(socket.send_out_of_band(b"!").unwrap(), 1);
        peer.write(&masked(0x81, b"after"));
        let echo = server.read(&mut peer, 15);
        let both = [plain(0x81, b"before"), plain(0x81, b"after")].concat();
        assert_eq!(echo, both, "round {round}");
    }
}

fn broadcast(host: &mut Host, message: Message<'_>) {
    let sent = host
        .context
        .with_protocol(host.probe, |_, cx| cx.broadcast(message, |_| true));
    assert_eq!(sent.unwrap().queued, 1);
}

#[test]
fn one_vhost_listens_on_both_families() {
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    if TcpListener::bind(v6).is_err() {
        return eprintln!("this machine has no IPv6: nothing to see");
    }
    let vhost = VhostConfig::new("localhost").listen(loopback()).listen(v6);
    let mut server = Host::made(ContextConfig::new(), vhost, |_| {});
    let addrs = server.context.listen_addrs(server.vhost);
    assert!(addrs[0].is_ipv4() && addrs[1].is_ipv6());
    for addr in addrs {
        assert_ne!(addr.port(), 0);
        let peer = Peer::connect(addr);
        let mut peer = server.upgrade(peer);
        peer.write(&masked(0x81, b"hello"));
        assert_eq!(server.read(&mut peer, 7), plain(0x81, b"hello"));
    }
}

#[test]
fn an_address_in_use_is_an_error_at_once_and_leaves_nothing_behind() {
    let server = Host::server();
    let mut second = Context::new(ContextConfig::new()).unwrap();
    let free = TcpListener::bind(loopback()).unwrap().local_addr().unwrap();
    let config = || VhostConfig::new("localhost").listen(free);
    let error = second
        .create_vhost(config().listen(server.addr()))
        .unwrap_err();
    let VhostError::Bind { address, source } = error else {
        panic!("{error}");
    };
    assert_eq!(address, server.addr());
    assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
    // The first of the two addresses was given back.
    second.create_vhost(config()).unwrap();
}

#[test]
fn a_shared_port_serves_through_both_contexts() {
    let shared = |addr| {
        let vhost = VhostConfig::new("localhost").listen(ListenConfig::new(addr).reuse_port());
        Host::made(ContextConfig::new(), vhost, |_| {})
    };
    let mut first = shared(loopback());
    let mut second = shared(first.addr());
    let mut peers: Vec<Peer> = (0..64).map(|_| Peer::connect(first.addr())).collect();
    for peer in &mut peers {
        peer.write(REQUEST);
    }
    for peer in &mut peers {
        first.until(|_| {
            second.turn();
            peer.take_head().is_some()
        });
    }
    let (one, two) = (
        first.log.count("established"),
        second.log.count("established"),
    );
    assert_eq!(one + two, 64);
    // That the system sends 64 connections all to one of two has a chance of 2 to the -63.
    #[cfg(target_os = "linux")]
    assert!(one > 0 && two > 0);
}

#[test]
fn a_peer_that_only_ends_its_sending_is_closed_as_end_of_stream() {
    let mut server = Host::server();
    let mut peer = server.open();
    peer.write(&masked(0x81, b"last"));
    peer.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(server.read_to_end(&mut peer), plain(0x81, b"last"));
    server.until_logged("closed", 1);
    let lines = server.log.lines();
    assert_eq!(
        lines[1..],
        [
            "text last",
            "closed Peer: the peer ended the stream without a Close frame, code 1006, not clean"
        ]
    );
    server.until(|server| server.context.connections() == 0);
}

#[test]
fn a_peer_that_ends_its_sending_behind_its_close_gets_the_answer() {
    let mut server = Host::server();
    let mut peer = server.open();
    peer.write(&masked(0x88, b"\x03\xe8"));
    peer.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(server.read_to_end(&mut peer), plain(0x88, b"\x03\xe8"));
    server.until_logged("closed", 1);
    let lines = server.log.lines();
    assert_eq!(
        lines[1..],
        ["closed Peer: closed by the peer, code 1000, clean"]
    );
    server.until(|server| server.context.connections() == 0);
}

#[test]
fn a_peer_that_ends_inside_its_request_is_refused() {
    let mut server = Host::server();
    let mut peer = Peer::connect(server.addr());
    peer.write(&REQUEST[..40]);
    peer.stream.shutdown(std::net::Shutdown::Write).unwrap();
    server.until_logged("refused the peer closed", 1);
    server.until(|server| server.context.connections() == 0);
}

#[test]
fn a_reset_ends_a_server_connection_with_the_systems_error() {
    let mut server = Host::server();
    server.open().reset();
    server.until_logged("closed", 1);
    assert_reset(&server);
    let peer = Peer::connect(server.addr());
    server.until(|server| server.context.connections() == 1);
    peer.reset();
    server.until_logged("refused Connection reset", 1);
    server.until(|server| server.context.connections() == 0);
}

/// Pauses reading at the first message of each connection.
fn pausing() -> Host {
    Host::with(ContextConfig::new(), |probe| {
        let mut first = true;
        probe.message = Some(Box::new(move |wsi, _| {
            if std::mem::take(&mut first) {
                wsi.pause_reading();
            }
            Ok(())
        }));
    })
}

#[test]
fn a_reset_is_told_although_reading_is_paused() {
    let mut server = pausing();
    let mut peer = server.open();
    peer.write(&masked(0x81, b"pause"));
    server.until_logged("text", 1);
    peer.reset();
    server.until_logged("closed", 1);
    assert_reset(&server);
    server.until(|server| server.context.connections() == 0);
}

#[test]
fn half_a_close_is_no_end_while_reading_is_paused() {
    let mut server = pausing();
    let mut peer = server.open();
    peer.write(&masked(0x81, b"pause"));
    server.until_logged("text", 1);
    peer.stream.shutdown(std::net::Shutdown::Write).unwrap();
    for _ in 0..20 {
        server.turn();
    }
    assert_eq!(server.log.count("closed"), 0);
    let acted = server.context.with_protocol(server.probe, |probe, cx| {
        let mut peer = cx.peer(probe.open[0]).unwrap();
        peer.send_text("you can still read").unwrap();
        peer.resume_reading();
    });
    acted.unwrap();
    let said = plain(0x81, b"you can still read");
    assert_eq!(server.read_to_end(&mut peer), said);
    server.until_logged("closed", 1);
    assert_eq!(server.log.count("closed Peer: the peer ended"), 1);
}

#[test]
fn a_reset_is_told_although_a_verdict_is_open() {
    let mut server = Host::with(ContextConfig::new(), |probe| probe.defers = true);
    let mut peer = Peer::connect(server.addr());
    peer.write(REQUEST);
    server.until_logged("deferred", 1);
    peer.reset();
    server.until_logged("refused Connection reset", 1);
    server.until(|server| server.context.connections() == 0);
}

/// Other systems throw away what was not read when a reset comes.
#[cfg(target_os = "linux")]
#[test]
fn what_was_said_before_a_reset_waits_until_reading_is_resumed() {
    let mut server = pausing();
    let mut peer = server.open();
    peer.write(&masked(0x81, b"pause"));
    server.until_logged("text", 1);
    // Else it would not leave before the reset.
    peer.stream.set_nodelay(true).unwrap();
    peer.write(&masked(0x81, b"last"));
    peer.write(&masked(0x88, b"\x0b\xb8bye"));
    peer.reset();
    for _ in 0..20 {
        server.turn();
    }
    assert_eq!(server.log.lines()[1..], ["text pause"]);
    let acted = server.context.with_protocol(server.probe, |probe, cx| {
        cx.peer(probe.open[0]).unwrap().resume_reading();
    });
    acted.unwrap();
    server.until_logged("closed", 1);
    let lines = server.log.lines();
    assert_eq!(lines[2], "text last");
    let end = "closed Peer: closed by the peer, code 3000 \"bye\"";
    assert!(lines[3].starts_with(end), "{lines:?}");
    server.until(|server| server.context.connections() == 0);
}

fn assert_reset(host: &Host) {
    let lines = host.log.lines();
    let last = lines.last().unwrap();
    assert!(
        last.starts_with("closed Peer: transport error: Connection reset"),
        "{last}"
    );
    assert!(last.ends_with("code 1006, not clean"), "{last}");
}

#[test]
fn a_reset_ends_a_client_connection_or_its_attempt() {
    let listener = TcpListener::bind(loopback()).unwrap();
    let mut client = Host::client();
    client.dial(listener.local_addr().unwrap());
    client.turn();
    let mut peer = Peer::new(listener.accept().unwrap().0);
    client.until(|_| peer.take_head().is_some());
    peer.reset();
    client.until_logged("no connection", 1);
    let lines = client.log.lines();
    assert!(
        lines[0].contains("response stage: Connection reset"),
        "{lines:?}"
    );

    client.dial(listener.local_addr().unwrap());
    client.turn();
    let mut peer = Peer::new(listener.accept().unwrap().0);
    accept_upgrade(&mut client, &mut peer);
    peer.reset();
    client.until_logged("closed", 1);
    assert_reset(&client);
}

/// Plays the server to our client.
fn accept_upgrade(client: &mut Host, peer: &mut Peer) {
    let mut request = None;
    client.until(|_| {
        request = peer.take_head();
        request.is_some()
    });
    let request = request.unwrap();
    peer.write(&real::response_to(&request));
    client.until_logged("established", 1);
}

#[test]
fn nobody_listening_is_a_refused_connection() {
    let gone = TcpListener::bind(loopback()).unwrap().local_addr().unwrap();
    let mut client = Host::client();
    client.dial(gone);
    client.until_logged("no connection", 1);
    let lines = client.log.lines();
    assert!(
        lines[0].contains("tcp stage: no address answered: Connection refused"),
        "{lines:?}"
    );
}

/// A server connection whose peer says goodbye and goes away inside a callback of another
/// connection, so that the server first learns of it by a write that fails.
fn goodbye_before_a_write(leave: fn(Peer), sends: u32) -> Vec<String> {
    let leaving = Arc::new(Mutex::new(None::<Peer>));
    let mut server = Host::with(ContextConfig::new(), |probe| {
        let leaving = Arc::clone(&leaving);
        probe.message = Some(Box::new(move |wsi, _| {
            let Some(mut peer) = leaving.lock().unwrap().take() else {
                return Ok(());
            };
            peer.write(&masked(0x88, b"\x0b\xb8bye"));
            leave(peer);
            let id = wsi.id();
            wsi.cx().for_each_peer(|mut other| {
                if other.id() != id {
                    other.send_text("are you there").unwrap();
                    other.request_writable();
                }
            });
            Ok(())
        }));
        let mut left = sends - 1;
        probe.writable = Some(Box::new(move |wsi| {
            if left > 0 {
                left -= 1;
                wsi.send_text("still there?")?;
            }
            Ok(())
        }));
    });
    *leaving.lock().unwrap() = Some(server.open());
    let mut other = server.open();
    other.write(&masked(0x81, b"now"));
    server.until_logged("closed", 1);
    server.until(|server| server.context.connections() == 1);
    server.log.lines()
}

#[test]
fn a_peers_close_is_the_cause_although_a_write_met_its_reset_first() {
    let lines = goodbye_before_a_write(Peer::reset, 1);
    let last = lines.last().unwrap();
    assert!(
        last.starts_with("closed Peer: closed by the peer, code 3000 \"bye\""),
        "{last}"
    );
}

#[test]
fn a_peers_close_is_the_cause_although_a_write_met_its_broken_pipe_first() {
    // The first write goes into the void and is answered with a reset, the second one fails.
    let lines = goodbye_before_a_write(drop, 2);
    let last = lines.last().unwrap();
    assert!(
        last.starts_with("closed Peer: closed by the peer, code 3000 \"bye\""),
        "{last}"
    );
}

#[test]
fn a_peers_close_is_the_cause_while_a_stream_of_ours_fills_its_window() {
    let mut server = Host::with(ContextConfig::new(), |probe| {
        probe.established = Some(Box::new(|wsi| {
            wsi.request_writable();
            Ok(())
        }));
        probe.writable = Some(Box::new(|wsi| {
            wsi.send_bytes(Bytes::from(vec![0; 256 * 1024]))?;
            wsi.request_writable();
            Ok(())
        }));
    });
    let mut peer = server.open();
    for _ in 0..50 {
        server.turn();
    }
    // Much of what we sent lies unread at the peer, so this is a reset behind the Close frame.
    peer.write(&masked(0x88, b"\x03\xe9bye"));
    drop(peer);
    server.until_logged("closed", 1);
    let lines = server.log.lines();
    let last = lines.last().unwrap();
    assert!(
        last.starts_with("closed Peer: closed by the peer, code 1001 \"bye\""),
        "{last}"
    );
    assert!(last.contains("bytes not delivered"), "{last}");
}

#[test]
fn rs_05_the_cap_on_connections_counts_upgraded_ones_and_frees_with_them() {
    let mut server = Host::with(ContextConfig::new().max_connections(3), |_| {});
    let mut open: Vec<Peer> = (0..3).map(|_| server.open()).collect();
    let mut waiting = Peer::connect(server.addr());
    waiting.write(REQUEST);
    #[cfg(target_os = "linux")]
    real::await_queued(server.addr(), 1);
    for _ in 0..20 {
        server.turn();
    }
    assert_eq!(waiting.fill(), 0, "served above the cap");
    assert!(!waiting.ended, "those above the cap wait");
    assert_eq!(server.context.connections(), 3);
    let info = ClientConnectInfo::from_url("ws://127.0.0.1:1/").unwrap();
    let error = server
        .context
        .client_connect(server.vhost, info)
        .unwrap_err();
    assert!(
        matches!(error.failure(), ConnectFailure::TooManyConnections(3)),
        "{error}"
    );
    drop(open.pop());
    server.until(|_| waiting.take_head().is_some());
    assert_eq!(server.log.count("established"), 4);
}

#[test]
fn rs_05_a_connection_that_ends_late_in_a_turn_lets_a_waiting_one_in() {
    let mut server = Host::with(ContextConfig::new().max_connections(1), |_| {});
    let _open = server.open();
    let mut waiting = Peer::connect(server.addr());
    waiting.write(REQUEST);
    #[cfg(target_os = "linux")]
    real::await_queued(server.addr(), 1);
    for _ in 0..20 {
        server.turn();
    }
    server.context.with_protocol(server.probe, |probe, cx| {
        cx.abort(probe.open[0]).unwrap();
    });
    server.context.service(Some(Duration::ZERO)).unwrap();
    assert_eq!(server.context.connections(), 0);
    // No event will come: the one that waits has announced itself already.
    let deadline = server.context.next_deadline();
    assert!(
        deadline.is_some(),
        "the loop would sleep although somebody waits"
    );
    server.until(|_| waiting.take_head().is_some());
}

#[test]
#[cfg(target_os = "linux")] // All of 127.0.0.0/8 is the loopback interface there.
fn rs_05_the_cap_per_address_leaves_other_addresses_alone_and_frees() {
    let mut server = Host::with(ContextConfig::new().max_connections_per_ip(2), |_| {});
    let addr = server.addr();
    let mut open = vec![server.open(), server.open()];
    let mut third = Peer::connect(addr);
    assert_eq!(server.read_to_end(&mut third), b"");
    let other = Peer::new(connect_from("127.0.0.2:0", addr));
    open.push(server.upgrade(other));
    drop(open.remove(0));
    server.until(|server| server.context.connections() == 2);
    let again = server.open();
    let mut third = Peer::connect(addr);
    assert_eq!(server.read_to_end(&mut third), b"");
    drop((again, open));
}

fn connect_from(source: &str, addr: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&source.parse::<SocketAddr>().unwrap().into())
        .unwrap();
    socket.connect(&addr.into()).unwrap();
    socket.into()
}

#[test]
fn rs_05_an_upgrade_above_the_cap_of_the_vhost_is_answered_503() {
    let mut limits = Limits::default();
    limits.connections = 1;
    let vhost = VhostConfig::new("localhost")
        .listen(loopback())
        .limits(limits);
    let mut server = Host::made(ContextConfig::new(), vhost, |_| {});
    let first = server.open();
    let mut second = Peer::connect(server.addr());
    second.write(REQUEST);
    let answer = String::from_utf8(server.read_to_end(&mut second)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    drop((first, second));
    server.until(|server| server.context.connections() == 0);
    server.open();
}

#[test]
#[cfg(target_os = "linux")]
#[allow(
    clippy::disallowed_methods,
    reason = "compared with a deadline, not with another reading"
)]
fn rs_01_without_descriptors_the_listener_rests_sheds_and_recovers() {
    in_child(
        "rs_01_without_descriptors_the_listener_rests_sheds_and_recovers",
        || {
            let mut server = Host::server();
            let addr = server.addr();
            let mut peers: Vec<Peer> = (0..100).map(|_| Peer::connect(addr)).collect();
            real::await_queued(addr, 100);
            let (_, hard) = rlimit::Resource::NOFILE.get().unwrap();
            let taken = real::descriptors();
            // The first number with 20 free ones below it.
            let mut free = (0..).filter(|number| !taken.contains(number));
            let limit = free.nth(20).unwrap();
            rlimit::Resource::NOFILE
                .set(u64::from(limit), hard)
                .unwrap();

            let (mut turns, mut troubles) = (0, 0);
            let log = server.log.clone();
            while peers.iter().filter(|peer| peer.ended).count() < 80 {
                let before = Instant::now();
                let wait = Some(Duration::from_secs(1));
                server.context.service(wait).unwrap();
                for peer in &mut peers {
                    peer.fill();
                }
                turns += 1;
                assert!(turns < 100, "turns go by: {:?}", log.lines());
                if log.count("trouble") > troubles {
                    troubles += 1;
                    let next = server.context.next_deadline().unwrap();
                    assert!(
                        next >= before + Duration::from_millis(100),
                        "it does not rest"
                    );
                }
            }
            // 20 were accepted; 80 shed, 16 with each rest, and each rest was one event and few turns.
            assert_eq!(server.context.connections(), 20);
            assert_eq!(troubles, 5, "{:?}", log.lines());
            assert_eq!(log.count("trouble Too many open files"), troubles);
            assert!(turns <= 4 * troubles, "{turns} turns for {troubles} rests");

            server.dial(addr);
            server.until_logged("no connection", 1);
            assert!(
                log.lines()
                    .iter()
                    .any(|line| line.contains("tcp stage: Too many open files")
                        || line.contains("answered: Too many open files")),
                "{:?}",
                log.lines()
            );

            drop(peers);
            let mut peer = server.open();
            peer.write(&masked(0x81, b"hello"));
            assert_eq!(server.read(&mut peer, 7), plain(0x81, b"hello"));
        },
    );
}

#[test]
#[cfg(target_os = "linux")]
fn rs_09_no_write_raises_sigpipe() {
    in_child("rs_09_no_write_raises_sigpipe", || {
        sigpipe::reset();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let ignored = status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:\t"))
            .unwrap();
        let ignored = u64::from_str_radix(ignored, 16).unwrap();
        assert_eq!(
            ignored & 1 << (13 - 1),
            0,
            "SIGPIPE is ignored, so this shows nothing"
        );
        if std::env::var_os("WSLOOP_TEST_CONTROL").is_some() {
            let (mut one, _) = std::os::unix::net::UnixStream::pair().unwrap();
            let slices = [io::IoSlice::new(b"a"), io::IoSlice::new(b"b")];
            let outcome = io::Write::write_vectored(&mut one, &slices);
            panic!("still alive after {outcome:?}");
        }
        // Small messages go by send(2), shared large ones by sendmsg(2).
        for size in [20, 64 * 1024] {
            assert_eq!(broken_pipes(size), 1);
        }
    });
    // And a signal would have been seen.
    let mut control = real::child("rs_09_no_write_raises_sigpipe");
    let status = control
        .env("WSLOOP_TEST_CONTROL", "1")
        .output()
        .unwrap()
        .status;
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(13)
    );
}

/// Writes to a connection whose peer has gone and does not read why.
#[cfg(target_os = "linux")]
fn broken_pipes(size: usize) -> usize {
    let payload = Bytes::from(vec![0; size]);
    let more = payload.clone();
    let mut server = Host::with(ContextConfig::new(), |probe| {
        probe.established = Some(Box::new(|wsi| {
            wsi.pause_reading();
            Ok(())
        }));
        // The first write is answered by a reset, and the second one comes in the same turn, before
        // an event tells of that.
        probe.writable = Some(Box::new(move |wsi| {
            wsi.send_bytes(more.clone())?;
            Ok(())
        }));
    });
    drop(server.open());
    broadcast(&mut server, Message::Binary(&payload));
    let asked = server.context.with_protocol(server.probe, |_, cx| {
        cx.for_each_peer(|mut peer| peer.request_writable());
    });
    asked.unwrap();
    server.until_logged("closed", 1);
    server
        .log
        .count("closed Peer: transport error: Broken pipe")
}

#[test]
fn rs_10_an_event_of_a_connection_that_another_one_ended_in_its_batch_is_about_nobody() {
    let mut server = Host::with(ContextConfig::new(), |probe| {
        probe.message = Some(Box::new(|wsi, _| {
            let id = wsi.id();
            wsi.cx().for_each_peer(|mut peer| {
                if peer.id() != id {
                    peer.abort();
                }
            });
            Ok(())
        }));
    });
    let mut peers: Vec<Peer> = (0..8).map(|_| server.open()).collect();
    for round in 1..=20 {
        for peer in &mut peers {
            peer.write(&masked(0x81, b"only me"));
        }
        // One that comes in the same batch, and takes a descriptor or a slot that becomes free.
        let newcomer = Peer::connect(server.addr());
        let closed = server.log.count("closed");
        server.until(|server| server.log.count("closed") == closed + 7);
        assert_eq!(
            server.log.count("text"),
            round,
            "an ended connection was served: {:#?}",
            server.log.lines()
        );
        // The resets are on their way: on a busy machine they arrive after the close has returned.
        server.until(|_| {
            peers.retain_mut(|peer| {
                peer.fill();
                !peer.ended
            });
            peers.len() <= 1
        });
        assert_eq!(peers.len(), 1);
        peers.push(server.upgrade(newcomer));
        peers.extend((0..6).map(|_| server.open()));
    }
    let lines = server.log.lines();
    let aborted = lines
        .iter()
        .filter(|line| line.starts_with("closed Local: aborted"))
        .count();
    assert_eq!(aborted, 20 * 7);
    assert_eq!(server.log.count("established"), 8 + 20 * 7);
}

/// A panic leaves the rest of its batch to the next turn, each event once.
#[test]
fn a_panic_in_a_batch_of_events_costs_nobody_else_an_event() {
    let mut server = Host::with(ContextConfig::new(), |probe| {
        probe.message = Some(Box::new(|wsi, message| {
            let Message::Text(text) = message else {
                return Ok(());
            };
            assert_ne!(text, "panic", "as the test wants it");
            Ok(wsi.send(message).map(drop)?)
        }));
    });
    let mut peers: Vec<Peer> = (0..9).map(|_| server.open()).collect();
    for (n, peer) in peers.iter_mut().enumerate() {
        let text: &[u8] = if n % 3 == 1 { b"panic" } else { b"hello" };
        peer.write(&masked(0x81, text));
    }
    let mut panics = 0;
    while panics < 3 {
        let turn = std::panic::AssertUnwindSafe(|| server.turn());
        panics += usize::from(std::panic::catch_unwind(turn).is_err());
    }
    for (n, peer) in peers.iter_mut().enumerate().filter(|(n, _)| n % 3 != 1) {
        assert_eq!(server.read(peer, 7), plain(0x81, b"hello"), "{n}");
    }
    assert_eq!(server.log.count("text hello"), 6);
    // Those whose callbacks panicked are gone, and nobody is called for them.
    assert_eq!(server.context.connections(), 6);
    for peer in peers.iter_mut().skip(1).step_by(3) {
        assert_eq!(server.read_to_end(peer), b"");
    }
}

/// Says everything twice.
struct Twice;

impl Protocol for Twice {
    type Session = ();

    fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        Ok(())
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        wsi.send(message)?;
        Ok(wsi.send(message).map(drop)?)
    }
}

/// A batch is dealt with in runs of one protocol each, which end at what is out of the ordinary.
#[test]
fn connections_of_two_protocols_in_one_batch_are_all_served() {
    let mut server = Host::server();
    let other = VhostConfig::new("other").listen(loopback());
    let other = server.context.create_vhost(other.protocol("twice", Twice));
    let other = server.context.listen_addrs(other.unwrap())[0];
    let mut peers = [1, 2, 2, 1, 1, 2, 1, 2, 1, 1].map(|times| match times {
        1 => (1, server.open()),
        _ => (2, server.upgrade(Peer::connect(other))),
    });
    let large = [b'x'; 5000];
    for round in 0..6 {
        for (n, (_, peer)) in peers.iter_mut().enumerate() {
            match (n + round) % 5 {
                0 => peer.write(&[masked(0x01, b"in "), masked(0x80, b"parts")].concat()),
                1 => peer.write(&[masked(0x89, b"!"), masked(0x81, b"ping")].concat()),
                2 => peer.write(&masked(0x82, &large)),
                _ => peer.write(&masked(0x81, b"whole")),
            }
        }
        for (n, (times, peer)) in peers.iter_mut().enumerate() {
            let (pong, frame) = match (n + round) % 5 {
                0 => (vec![], plain(0x81, b"in parts")),
                1 => (plain(0x8a, b"!"), plain(0x81, b"ping")),
                2 => (vec![], plain(0x82, &large)),
                _ => (vec![], plain(0x81, b"whole")),
            };
            let answer = [pong, frame.repeat(*times)].concat();
            assert_eq!(server.read(peer, answer.len()), answer, "{n} in {round}");
        }
    }
    assert_eq!(server.context.connections(), peers.len());
}

#[test]
#[cfg(target_os = "linux")]
fn re_14_every_descriptor_is_closed_on_exec() {
    in_child("re_14_every_descriptor_is_closed_on_exec", || {
        let before = real::descriptors();
        let mut server = Host::server();
        server.dial(SocketAddr::from(([127, 0, 0, 1], server.addr().port())));
        let inherited = TcpListener::bind(loopback()).unwrap();
        let vhost = VhostConfig::new("second").listener(inherited);
        server.context.create_vhost(vhost).unwrap();
        // Also what a look-up of a name opens.
        let unknown = ClientConnectInfo::from_url("ws://name.invalid:1/").unwrap();
        server
            .context
            .client_connect(server.vhost, unknown)
            .unwrap();
        server.until_logged("established", 2);
        let mut seen = 0;
        for number in real::descriptors() {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"));
            let Ok(info) = info else { continue };
            if before.contains(&number) {
                continue;
            }
            let flags = info
                .lines()
                .find_map(|line| line.strip_prefix("flags:\t"))
                .unwrap();
            let flags = u64::from_str_radix(flags.trim(), 8).unwrap();
            let what = std::fs::read_link(format!("/proc/self/fd/{number}"));
            assert_ne!(
                flags & 0o2_000_000,
                0,
                "descriptor {number} is inherited: {what:?}"
            );
            seen += 1;
        }
        // The waker, the spare one, two listeners, both ends of one connection; with most back
        // ends also the poller.
        assert!(seen >= 6, "{seen}");
    });
}

/// The context is made while the table of descriptors is small; then it grows, and what is opened
/// gets numbers far above.
#[test]
#[cfg(target_os = "linux")]
fn rs_04_descriptors_of_any_number_are_served() {
    in_child("rs_04_descriptors_of_any_number_are_served", || {
        let (_, hard) = rlimit::Resource::NOFILE.get().unwrap();
        let few = 256.min(hard);
        rlimit::Resource::NOFILE.set(few, hard).unwrap();
        let mut server = Host::server();
        rlimit::Resource::NOFILE.set(hard, hard).unwrap();
        let highest = hard.min(100_000) - 1;
        // Beyond select(2)'s 1024, where the limit allows it.
        let (floor, room) = (highest.min(5000), 20);
        let mut hoard = Vec::new();
        while hoard.len() as u64 + room < floor {
            hoard.push(std::fs::File::open("/dev/null").unwrap());
        }
        let mut peers: Vec<Peer> = (0..10).map(|_| server.open()).collect();
        server.dial(SocketAddr::from(([127, 0, 0, 1], server.addr().port())));
        server.until_logged("established", 12);
        let above = real::descriptors();
        let above = above.iter().filter(|number| u64::from(**number) >= few);
        assert!(above.count() >= hoard.len() - few as usize + 20);
        for peer in &mut peers {
            peer.write(&masked(0x81, b"hello"));
            assert_eq!(server.read(peer, 7), plain(0x81, b"hello"));
        }

        // A listener that was handed in with the last number there is.
        let low = TcpListener::bind(loopback()).unwrap();
        let top = rustix::io::fcntl_dupfd_cloexec(&low, highest.try_into().unwrap()).unwrap();
        assert_eq!(u64::try_from(top.as_raw_fd()).unwrap(), highest);
        drop(low);
        let config = VhostConfig::new("localhost").listener(TcpListener::from(top));
        let config = config.protocol("p", real::Probe::new(&server.log));
        let vhost = server.context.create_vhost(config).unwrap();
        let addr = server.context.listen_addrs(vhost)[0];
        let mut peer = server.upgrade(Peer::connect(addr));
        peer.write(&masked(0x81, b"hello"));
        assert_eq!(server.read(&mut peer, 7), plain(0x81, b"hello"));
    });
}

#[test]
#[cfg(target_os = "linux")]
fn rs_14_connections_that_come_and_go_leave_no_descriptor() {
    in_child(
        "rs_14_connections_that_come_and_go_leave_no_descriptor",
        || {
            let mut server = Host::server();
            drop(server.open());
            server.until(|server| server.context.connections() == 0);
            let before = real::descriptors();
            for round in 0..100 {
                let peers: Vec<Peer> = (0..10).map(|_| server.open()).collect();
                for (n, mut peer) in peers.into_iter().enumerate() {
                    match n % 3 {
                        0 => peer.reset(),
                        1 => peer.write(&masked(0x88, b"\x03\xe8")),
                        _ => drop(peer),
                    }
                }
                server.until(|server| server.context.connections() == 0);
                assert_eq!(real::descriptors(), before, "round {round}");
            }
            assert_eq!(server.log.count("established"), 1001);
            assert_eq!(server.log.count("closed"), 1001);
        },
    );
}

#[test]
#[cfg(target_os = "linux")]
fn a_dropped_context_leaves_no_descriptor() {
    in_child("a_dropped_context_leaves_no_descriptor", || {
        let before = real::descriptors();
        let mut server = Host::server();
        let addr = server.addr();
        server.dial(addr);
        let peers = [server.open(), Peer::connect(addr)];
        server.until_logged("established", 3);
        drop(server);
        drop(peers);
        assert_eq!(real::descriptors(), before);
    });
}
