//! Frame headers (RFC 6455 section 5.2).

use super::error::ProtocolError;

/// The longest frame header in bytes: two, a 64-bit length, and a mask key.
pub const MAX_HEADER_LEN: usize = FrameHeader::MAX_LEN;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2: u8 = 0x20;
const RSV3: u8 = 0x10;
const MASKED: u8 = 0x80;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the opcodes that RFC 6455 defines; others are refused"
)]
pub enum Opcode {
    /// 0: the next part of a fragmented message.
    Continuation,
    /// 1: a text message, or its first part.
    Text,
    /// 2: a binary message, or its first part.
    Binary,
    /// 8: the sender closes.
    Close,
    /// 9: a request for a Pong.
    Ping,
    /// 10: the answer to a Ping, or unsolicited.
    Pong,
}

impl Opcode {
    /// The opcode with these four bits; `None` if RFC 6455 reserves them.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Continuation),
            1 => Some(Self::Text),
            2 => Some(Self::Binary),
            8 => Some(Self::Close),
            9 => Some(Self::Ping),
            10 => Some(Self::Pong),
            _ => None,
        }
    }

    /// The four bits on the wire.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    /// Whether this is Close, Ping or Pong: at most 125 bytes, never fragmented, allowed between
    /// the fragments of a message.
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The header of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FrameHeader {
    /// Whether the frame ends its message.
    pub fin: bool,
    /// The first reserved bit, which an extension may give a meaning (RFC 7692: "compressed").
    pub rsv1: bool,
    /// What the frame carries.
    pub opcode: Opcode,
    /// The key its payload is masked with, if it is.
    pub mask: Option<[u8; 4]>,
    /// Length of the payload in bytes; below 2^63.
    pub len: u64,
}

impl FrameHeader {
    /// See [`MAX_HEADER_LEN`].
    pub const MAX_LEN: usize = 14;

    /// The header of an unmasked frame that is a whole message by itself. Change its fields for
    /// anything else.
    pub const fn new(opcode: Opcode, len: u64) -> Self {
        Self {
            fin: true,
            rsv1: false,
            opcode,
            mask: None,
            len,
        }
    }

    /// Reads the header at the start of `bytes`. Gives it with its own length in bytes, or `None`
    /// if `bytes` ends inside the header.
    ///
    /// What depends on the connection is for the caller to check: RSV1, the mask, the order of
    /// fragments, and limits on the length.
    ///
    /// # Errors
    ///
    /// A header that is wrong on every connection is refused with the first byte that shows it,
    /// so that any prefix of a header gives the same verdict or none yet.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, ProtocolError> {
        let Some((&first, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let opcode = check_first(first)?;
        let Some((&second, rest)) = rest.split_first() else {
            return Ok(None);
        };
        let Some((len, rest)) = decode_len(opcode, second & !MASKED, rest)? else {
            return Ok(None);
        };
        let (mask, rest) = if second & MASKED == 0 {
            (None, rest)
        } else if let Some((key, rest)) = rest.split_first_chunk() {
            (Some(*key), rest)
        } else {
            return Ok(None);
        };
        let header = Self {
            fin: first & FIN != 0,
            rsv1: first & RSV1 != 0,
            opcode,
            mask,
            len,
        };
        Ok(Some((header, bytes.len() - rest.len())))
    }

    /// Writes the header to the start of `out` and returns its length in bytes. The length of the
    /// payload takes the fewest bytes possible.
    #[inline]
    pub fn encode(&self, out: &mut [u8; MAX_HEADER_LEN]) -> usize {
        let fin = if self.fin { FIN } else { 0 };
        let rsv1 = if self.rsv1 { RSV1 } else { 0 };
        let masked = if self.mask.is_some() { MASKED } else { 0 };
        out[0] = fin | rsv1 | self.opcode.bits();
        let len_end = match (u8::try_from(self.len), u16::try_from(self.len)) {
            (Ok(len @ ..=125), _) => {
                out[1] = masked | len;
                2
            }
            (_, Ok(len)) => {
                out[1] = masked | 126;
                out[2..4].copy_from_slice(&len.to_be_bytes());
                4
            }
            _ => {
                out[1] = masked | 127;
                out[2..10].copy_from_slice(&self.len.to_be_bytes());
                10
            }
        };
        let Some(key) = self.mask else {
            return len_end;
        };
        if let Some(place) = out.get_mut(len_end..len_end + 4) {
            place.copy_from_slice(&key);
        }
        len_end + 4
    }
}

/// Checks what the first byte shows by itself.
#[inline]
fn check_first(first: u8) -> Result<Opcode, ProtocolError> {
    // Section 5.2: "MUST be 0 unless an extension is negotiated that defines meanings for
    // non-zero values." RSV1 is the caller's to judge; no known extension has RSV2 or RSV3.
    if first & (RSV2 | RSV3) != 0 {
        return Err(ProtocolError::ReservedBit(if first & RSV2 != 0 {
            2
        } else {
            3
        }));
    }
    let bits = first & 0x0f;
    // Section 5.2: "If an unknown opcode is received, the receiving endpoint MUST _Fail the
    // WebSocket Connection_."
    let opcode = Opcode::from_bits(bits).ok_or(ProtocolError::ReservedOpcode(bits))?;
    // Section 5.5: "All control frames MUST have a payload length of 125 bytes or less and MUST
    // NOT be fragmented."
    if opcode.is_control() && first & FIN == 0 {
        return Err(ProtocolError::ControlFragmented);
    }
    Ok(opcode)
}

/// Reads the payload length: `short` is the seven bits of the second byte, `rest` what follows it.
#[inline]
fn decode_len(
    opcode: Opcode,
    short: u8,
    rest: &[u8],
) -> Result<Option<(u64, &[u8])>, ProtocolError> {
    if short < 126 {
        return Ok(Some((u64::from(short), rest)));
    }
    if opcode.is_control() {
        return Err(ProtocolError::ControlTooLong);
    }
    let (len, min, rest) = if short == 126 {
        let Some((bytes, rest)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        (u64::from(u16::from_be_bytes(*bytes)), 126, rest)
    } else {
        // Section 5.2: "the most significant bit MUST be 0".
        if rest.first().is_some_and(|top| top & 0x80 != 0) {
            return Err(ProtocolError::LengthTopBitSet);
        }
        let Some((bytes, rest)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        (u64::from_be_bytes(*bytes), 0x1_0000, rest)
    };
    // Section 5.2: "in all cases, the minimal number of bytes MUST be used to encode the length".
    if len < min {
        return Err(ProtocolError::LengthNotMinimal);
    }
    Ok(Some((len, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPCODES: [Opcode; 6] = [
        Opcode::Continuation,
        Opcode::Text,
        Opcode::Binary,
        Opcode::Close,
        Opcode::Ping,
        Opcode::Pong,
    ];

    fn encoded(header: FrameHeader) -> Vec<u8> {
        let mut out = [0xaa; MAX_HEADER_LEN];
        let len = header.encode(&mut out);
        out[..len].to_vec()
    }

    #[test]
    fn headers_of_rfc_6455_section_5_7() {
        let key = Some([0x37, 0xfa, 0x21, 0x3d]);
        let cases: [(&[u8], FrameHeader); 7] = [
            (b"\x81\x05", FrameHeader::new(Opcode::Text, 5)),
            (
                b"\x81\x85\x37\xfa\x21\x3d",
                FrameHeader {
                    mask: key,
                    ..FrameHeader::new(Opcode::Text, 5)
                },
            ),
            (
                b"\x01\x03",
                FrameHeader {
                    fin: false,
                    ..FrameHeader::new(Opcode::Text, 3)
                },
            ),
            (b"\x80\x02", FrameHeader::new(Opcode::Continuation, 2)),
            (b"\x89\x05", FrameHeader::new(Opcode::Ping, 5)),
            (b"\x82\x7e\x01\x00", FrameHeader::new(Opcode::Binary, 256)),
            (
                b"\x82\x7f\0\0\0\0\0\x01\0\0",
                FrameHeader::new(Opcode::Binary, 65536),
            ),
        ];
        for (bytes, header) in cases {
            assert_eq!(encoded(header), bytes);
            assert_eq!(FrameHeader::decode(bytes), Ok(Some((header, bytes.len()))));
        }
    }

    #[test]
    fn fr_18_lengths_take_the_fewest_bytes_and_read_back() {
        for (len, header_len) in [
            (0, 2),
            (125, 2),
            (126, 4),
            (255, 4),
            (256, 4),
            (65535, 4),
            (65536, 10),
            ((1 << 63) - 1, 10),
        ] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let header = FrameHeader {
                    mask,
                    ..FrameHeader::new(Opcode::Binary, len)
                };
                let bytes = encoded(header);
                assert_eq!(bytes.len(), header_len + if mask.is_some() { 4 } else { 0 });
                assert_eq!(FrameHeader::decode(&bytes), Ok(Some((header, bytes.len()))));
            }
        }
    }

    #[test]
    fn fr_13_a_cut_header_asks_for_more_at_every_byte() {
        let header = FrameHeader {
            mask: Some([9; 4]),
            ..FrameHeader::new(Opcode::Text, 70_000)
        };
        let bytes = encoded(header);
        assert_eq!(bytes.len(), MAX_HEADER_LEN);
        for end in 0..bytes.len() {
            assert_eq!(FrameHeader::decode(&bytes[..end]), Ok(None));
        }
        let longer = [bytes.as_slice(), b"payload"].concat();
        assert_eq!(
            FrameHeader::decode(&longer),
            Ok(Some((header, MAX_HEADER_LEN)))
        );
    }

    #[test]
    fn every_first_byte_is_judged_by_itself() {
        for first in 0..=u8::MAX {
            let opcode = OPCODES
                .into_iter()
                .find(|opcode| opcode.bits() == first & 0x0f);
            let verdict = FrameHeader::decode(&[first]);
            match opcode {
                _ if first & RSV2 != 0 => assert_eq!(verdict, Err(ProtocolError::ReservedBit(2))),
                _ if first & RSV3 != 0 => assert_eq!(verdict, Err(ProtocolError::ReservedBit(3))),
                None => assert_eq!(verdict, Err(ProtocolError::ReservedOpcode(first & 0x0f))),
                Some(opcode) if opcode.is_control() && first & FIN == 0 => {
                    assert_eq!(verdict, Err(ProtocolError::ControlFragmented));
                }
                Some(_) => assert_eq!(verdict, Ok(None)),
            }
        }
    }

    #[test]
    fn fr_07_a_long_control_frame_is_refused_at_its_second_byte() {
        for (first, short) in [(0x88, 126), (0x89, 127), (0x8a, 0xfe), (0x8a, 0xff)] {
            let verdict = FrameHeader::decode(&[first, short]);
            assert_eq!(verdict, Err(ProtocolError::ControlTooLong));
        }
        assert!(FrameHeader::decode(&[0x89, 125]).unwrap().is_some());
    }

    #[test]
    fn fr_04_the_top_bit_of_a_length_is_refused_at_its_first_byte() {
        assert_eq!(
            FrameHeader::decode(b"\x82\x7f\x80"),
            Err(ProtocolError::LengthTopBitSet)
        );
        assert_eq!(FrameHeader::decode(b"\x82\x7f\x7f"), Ok(None));
    }

    #[test]
    fn fr_18_a_longer_length_than_needed_is_refused() {
        assert_eq!(
            FrameHeader::decode(b"\x82\x7e\0\x7d"),
            Err(ProtocolError::LengthNotMinimal)
        );
        assert!(FrameHeader::decode(b"\x82\x7e\0\x7e").unwrap().is_some());
        let verdict = FrameHeader::decode(b"\x82\xff\0\0\0\0\0\0\xff\xff");
        assert_eq!(verdict, Err(ProtocolError::LengthNotMinimal));
    }

    #[test]
    fn opcodes_read_back() {
        for opcode in OPCODES {
            assert_eq!(Opcode::from_bits(opcode.bits()), Some(opcode));
        }
        assert_eq!(
            (0..=15).filter_map(Opcode::from_bits).count(),
            OPCODES.len()
        );
    }
}
