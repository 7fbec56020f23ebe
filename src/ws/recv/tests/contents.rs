//! UTF-8 in text messages, and Close frames.

use super::*;

#[test]
fn u8_01_invalid_text_is_refused() {
    for bad in [
        b"\xc0\x80".as_slice(),
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\x80",
        b"\xfe",
        b"\xff",
    ] {
        let error = Some(ProtocolError::InvalidUtf8);
        let within = [b"ok ".as_slice(), bad, b" not"].concat();
        expect_frames(
            &[(0x89, b"p"), (0x81, &within)],
            &[Got::Ping(b"p".to_vec())],
            error,
        );
        expect_frames(
            &[(0x01, b"ok "), (0x00, &within), (0x89, b"late")],
            &[],
            error,
        );
    }
}

#[test]
fn u8_01_the_first_bad_byte_fails_in_the_middle_of_a_frame() {
    for delivery in DELIVERIES {
        for (good, bad) in [
            (b"\xce\xba\xf4".as_slice(), 0x90),
            (b"a\xed", 0xa0),
            (b"", 0xc0),
        ] {
            let mut peer = Peer::new(Side::Client, delivery);
            peer.receive(&header(Side::Client, 0x01, 100));
            peer.receive(good);
            assert_eq!(peer.error, None);
            peer.receive(&[bad]);
            assert_eq!(peer.error, Some(ProtocolError::InvalidUtf8));
        }
    }
}

#[test]
fn u8_02_code_points_split_over_fragments_and_reads_are_accepted() {
    let whole = "\u{e9}\u{20ac}\u{1f600}";
    for cut in 0..=whole.len() {
        let (head, tail) = whole.as_bytes().split_at(cut);
        expect_frames(&[(0x01, head), (0x80, tail)], &[text(whole)], None);
    }
    let bytes: Vec<&[u8]> = whole.as_bytes().chunks(1).collect();
    let mut list = vec![(0x01, bytes[0])];
    list.extend(bytes[1..].iter().map(|byte| (0x00, *byte)));
    list.push((0x80, b""));
    expect_frames(&list, &[text(whole)], None);
}

#[test]
fn u8_03_a_text_that_ends_inside_a_code_point_is_refused() {
    let error = Some(ProtocolError::InvalidUtf8);
    for cut in [b"a\xc3".as_slice(), b"\xe2\x82", b"\xf0\x9f\x98"] {
        expect_frames(&[(0x81, cut)], &[], error);
        expect_frames(&[(0x01, cut), (0x80, b"")], &[], error);
        expect_frames(&[(0x01, b"a"), (0x80, cut)], &[], error);
    }
}

#[test]
fn u8_05_an_invalid_close_reason_is_refused() {
    let error = Some(ProtocolError::InvalidUtf8);
    expect_frames(&[(0x88, b"\x03\xe8\xff")], &[], error);
    expect_frames(&[(0x88, b"\x03\xe8cut \xe2\x82")], &[], error);
}

#[test]
fn u8_07_binary_and_ping_payloads_are_untouched_bytes() {
    let bytes = b"\xc0\x80\xed\xa0\x80\xff";
    expect_frames(
        &[
            (0x82, bytes),
            (0x89, bytes),
            (0x02, bytes),
            (0x8a, bytes),
            (0x80, bytes),
        ],
        &[
            binary(bytes),
            Got::Ping(bytes.to_vec()),
            Got::Pong(bytes.to_vec()),
            binary(&[bytes.as_slice(), bytes].concat()),
        ],
        None,
    );
}

#[test]
fn u8_08_noncharacters_bom_and_nul_are_delivered_unchanged() {
    let odd = "\u{feff}\0\u{fffe}\u{10ffff}";
    expect_frames(&[(0x81, odd.as_bytes())], &[text(odd)], None);
}

#[test]
fn cl_01_close_payload_lengths() {
    expect_frames(&[(0x88, b"")], &[Got::Close(None)], None);
    expect_frames(
        &[(0x88, b"\x03")],
        &[],
        Some(ProtocolError::InvalidCloseLength),
    );
    expect_frames(
        &[(0x88, b"\x03\xe8")],
        &[Got::Close(Some((1000, String::new())))],
        None,
    );
    let longest = [b"\x0f\xa0".as_slice(), &[b'r'; 123]].concat();
    expect_frames(
        &[(0x88, &longest)],
        &[Got::Close(Some((4000, "r".repeat(123))))],
        None,
    );
}

#[test]
fn cl_02_close_codes_that_must_not_be_sent_are_refused() {
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        let error = ProtocolError::InvalidCloseCode(code);
        expect_frames(&[(0x88, &code.to_be_bytes())], &[], Some(error));
        assert_eq!(error.close_code().value(), 1002);
    }
    for code in [1000_u16, 1003, 1007, 1014, 3000, 4999] {
        expect_frames(
            &[(0x88, &code.to_be_bytes())],
            &[Got::Close(Some((code, String::new())))],
            None,
        );
    }
}

#[test]
fn a_close_inside_a_message_gives_its_memory_back() {
    let mut peer = Peer::new(Side::Client, Delivery::Messages);
    peer.receive(&frame(Side::Client, 0x02, &[0; 50_000]));
    peer.receive(&frame(Side::Client, 0x88, b""));
    assert!(!peer.recv.is_inside_message());
    assert!(peer.recv.memory() <= size_of::<More>());
}
