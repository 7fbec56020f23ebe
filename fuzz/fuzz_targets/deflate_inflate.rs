//! Compressed messages: whatever the pieces, the chunks and the allowance, they are what the
//! backend makes of the whole payload in one call, or an error where it gives none.
//!
//! The first byte chooses context takeover and how frames are cut; the rest is cut at `ff 00 ff`
//! into the payloads of a connection.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wsloop::ws::{
    Delivery, FrameHeader, Item, MAX_HEADER_LEN, Opcode, ProtocolError, Recv, RecvLimits, RecvPool,
    Side,
};
use wsloop::{DeflateConfig, DeflateParams};
use zlib_rs::{Inflate, InflateFlush, Status};

const LIMIT: usize = 1 << 18;

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, bytes)) = bytes.split_first() else {
        return;
    };
    let takeover = choice & 1 != 0;
    let payloads = payloads(bytes);
    let (expected, fails) = reference(&payloads, takeover);
    let mut stream = Vec::new();
    for payload in &payloads {
        frames(payload, usize::from(choice >> 1), &mut stream);
    }
    let mut whole = None;
    for delivery in [Delivery::Messages, Delivery::Chunks] {
        for (piece, allowance) in [
            (stream.len().max(1), usize::MAX),
            (1, usize::MAX),
            (7, 1),
            (stream.len().max(1), 1000),
        ] {
            let got = receive(&stream, takeover, delivery, piece, allowance);
            assert_eq!(got.0, expected);
            assert_eq!(got.1.is_some(), fails, "{:?}", got.1);
            assert_eq!(*whole.get_or_insert(got.1), got.1);
        }
    }
});

fn payloads(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(&[0xff, 0, 0xff]) {
            rest = tail;
            all.push(Vec::new());
            continue;
        }
        if let Some(last) = all.last_mut() {
            last.push(byte);
        }
        rest = tail;
    }
    all
}

/// Each payload in one call; what they inflate to, and whether one is not to be accepted.
fn reference(payloads: &[Vec<u8>], takeover: bool) -> (Vec<Vec<u8>>, bool) {
    let mut inflate = Inflate::new(false, 15);
    let mut messages = Vec::new();
    let mut out = vec![0; LIMIT + 1];
    for payload in payloads {
        if payload.is_empty() {
            messages.push(Vec::new());
            continue;
        }
        if !takeover {
            inflate.reset(false);
        }
        let before = (inflate.total_in(), inflate.total_out());
        let status = inflate.decompress(payload, &mut out, InflateFlush::SyncFlush);
        let used = (inflate.total_in() - before.0) as usize;
        let mut len = (inflate.total_out() - before.1) as usize;
        let fine = match status {
            Err(_) => false,
            _ if len > LIMIT => false,
            Ok(Status::StreamEnd) => {
                inflate.reset(false);
                matches!(payload[used..], [] | [0])
            }
            Ok(_) => {
                // At the end of a block the inflater leaves the byte behind it alone.
                let before = (inflate.total_in(), inflate.total_out());
                let tail = [0, 0, 0xff, 0xff, 0];
                let status = inflate.decompress(&tail, &mut out[len..], InflateFlush::Block);
                len += (inflate.total_out() - before.1) as usize;
                let at_end = inflate.total_in() - before.0 == 4;
                at_end && matches!(status, Ok(Status::Ok)) && len <= LIMIT
            }
        };
        if !fine {
            return (messages, true);
        }
        messages.push(out[..len].to_vec());
    }
    (messages, false)
}

/// A message in one frame or several.
fn frames(payload: &[u8], cut: usize, stream: &mut Vec<u8>) {
    let (first, rest) = payload.split_at(cut.min(payload.len()));
    let parts = if cut == 0 {
        vec![payload]
    } else {
        vec![first, rest]
    };
    for (at, part) in parts.iter().enumerate() {
        let opcode = if at == 0 {
            Opcode::Binary
        } else {
            Opcode::Continuation
        };
        let mut header = FrameHeader::new(opcode, part.len() as u64);
        header.rsv1 = at == 0;
        header.fin = at + 1 == parts.len();
        let mut bytes = [0; MAX_HEADER_LEN];
        let len = header.encode(&mut bytes);
        stream.extend_from_slice(&bytes[..len]);
        stream.extend_from_slice(part);
    }
}

fn receive(
    stream: &[u8],
    takeover: bool,
    delivery: Delivery,
    piece: usize,
    allowance: usize,
) -> (Vec<Vec<u8>>, Option<ProtocolError>) {
    let mut params = DeflateParams::new();
    params.server_no_context_takeover = !takeover;
    let mut recv = Recv::with_deflate(Side::Client, &params, &DeflateConfig::new());
    let limits = RecvLimits::default()
        .with_message_bytes(LIMIT)
        .with_frame_bytes(LIMIT as u64);
    let mut pool = RecvPool::default();
    let (mut messages, mut open, mut spill) = (Vec::new(), Vec::new(), Vec::new());
    for piece in stream.chunks(piece) {
        let mut input: Vec<u8> = std::mem::take(&mut spill);
        input.extend_from_slice(piece);
        loop {
            pool.inflaters.allow(allowance);
            let mut feed = recv.feed(Side::Client, delivery, &limits, &mut pool, &mut input);
            loop {
                match feed.next() {
                    Ok(Some(Item::Message(message))) => messages.push(message.as_bytes().to_vec()),
                    Ok(Some(Item::Chunk(chunk))) => {
                        open.extend_from_slice(chunk.data);
                        if chunk.last {
                            messages.push(std::mem::take(&mut open));
                        }
                    }
                    Ok(Some(other)) => panic!("{other:?}"),
                    Ok(None) => break,
                    Err(error) => return (messages, Some(error)),
                }
            }
            let used = feed.finish();
            input.drain(..used);
            if !recv.is_suspended() {
                break;
            }
            assert!(!input.is_empty());
        }
        spill = input;
    }
    (messages, None)
}
