//! Bytes that were changed, and noise.

use super::*;

/// Changes, drops, repeats and inserts bytes of a good connection.
fn damage(rng: &mut Rng, wire: &mut Vec<u8>) {
    for _ in 0..=rng.below(3) {
        if wire.is_empty() {
            return;
        }
        let at = rng.below(wire.len());
        match rng.below(5) {
            0 => wire[at] ^= 1 << rng.below(8),
            1 => wire[at] = rng.next() as u8,
            2 => drop(wire.drain(at..(at + rng.below(40)).min(wire.len()))),
            3 => {
                let copy = wire[at..(at + 40).min(wire.len())].to_vec();
                wire.splice(at..at, copy);
            }
            _ => {
                let noise: Vec<u8> = (0..rng.below(40)).map(|_| rng.next() as u8).collect();
                wire.splice(at..at, noise);
            }
        }
    }
}

#[test]
fn damaged_connections_fail_cleanly_on_both_sides() {
    let pki = Pki::new();
    let mut failed = 0;
    for seed in 1..=400 {
        eprintln!("seed {seed}");
        let mut rng = Rng::new(seed * 0x9E37_79B9);
        let version = VERSIONS[rng.below(2)];
        let asks = [Asks::No, Asks::Optional, Asks::Required][rng.below(3)];
        let server_config = Arc::new(pki.server_config(&[version], asks));
        let client_config = Arc::new(pki.client_config_with(&[version], &pki.client));
        let mut client = Ours::client(&client_config);
        let mut server = Ours::asking(&server_config);
        let victim = rng.below(8);
        for turn in 0..8 {
            let (from, to) = match turn % 2 {
                0 => (&mut client, &mut server),
                _ => (&mut server, &mut client),
            };
            if from.session.can_send() {
                from.send(&text(rng.below(3000)));
            }
            let mut wire = from.take_out();
            if turn == victim {
                damage(&mut rng, &mut wire);
            }
            let size = 1 + rng.below(2000);
            wire.chunks(size).for_each(|piece| to.feed(piece));
            assert!(to.session.stash().len() <= MAX_HANDSHAKE_STASH);
            let _ = to.session.seal(b"x", &mut to.out);
        }
        for end in [&mut client, &mut server] {
            failed += usize::from(end.failure.is_some());
            let _ = end.eof();
        }
    }
    assert!(failed > 100, "{failed}");
}

#[test]
fn noise_is_refused_or_waited_on() {
    let pki = Pki::new();
    let server_config = Arc::new(pki.server_config(&VERSIONS, Asks::No));
    let client_config = Arc::new(pki.client_config(&VERSIONS));
    for seed in 1..=2000 {
        let mut rng = Rng::new(seed);
        let mut wire: Vec<u8> = (0..1 + rng.below(200)).map(|_| rng.next() as u8).collect();
        // Most noise should look like records.
        if rng.below(4) > 0 {
            let kind = 20 + rng.below(5) as u8;
            wire.splice(..0, [kind, 3, rng.below(5) as u8, 0, rng.below(100) as u8]);
        }
        let size = 1 + rng.below(20);
        for mut end in [Ours::server(&server_config), Ours::client(&client_config)] {
            wire.chunks(size).for_each(|piece| end.feed(piece));
            assert!(!end.was_established() && end.plain.is_empty());
            assert!(end.session.stash().len() <= wire.len(), "seed {seed}");
            assert!(end.eof().is_err());
        }
    }
}

#[test]
fn the_same_bytes_fail_the_same_way_at_every_split() {
    let pki = Pki::new();
    let server_config = Arc::new(pki.server_config(&[&TLS12], Asks::No));
    let hello = Theirs::client(&Arc::new(pki.client_config(&[&TLS12]))).take_out();
    for seed in 1..=300 {
        let mut rng = Rng::new(seed);
        let mut wire = hello.clone();
        damage(&mut rng, &mut wire);
        let outcome = |size| {
            let mut server = Ours::server(&server_config);
            wire.chunks(size).for_each(|piece| server.feed(piece));
            (server.failure.take(), server.hellos)
        };
        let whole = outcome(usize::MAX);
        for size in [1, 3, 50] {
            let cut = outcome(size);
            assert_eq!(cut, whole, "seed {seed}, size {size}: {wire:?}");
        }
    }
}
