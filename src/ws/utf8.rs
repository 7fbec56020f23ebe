//! UTF-8 validation that takes text in pieces (RFC 6455 section 8.1, RFC 3629).

use super::error::ProtocolError;

/// An incremental UTF-8 validator: it remembers the unfinished character at the end of a piece.
///
/// It fails at the first byte that no continuation can make valid, also when that byte lies
/// inside an unfinished character at the end of a piece. After a failure the state is
/// meaningless: drop it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Utf8 {
    pending: [u8; 3],
    pending_len: u8,
}

impl Utf8 {
    /// A validator at the start of a text.
    pub const fn new() -> Self {
        Self {
            pending: [0; 3],
            pending_len: 0,
        }
    }

    /// Validates `piece` as the next part of the text and appends every finished character to
    /// `out`, without validating anything twice.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::InvalidUtf8`]; `out` may hold a part of the piece then.
    pub fn push(&mut self, piece: &[u8], out: &mut String) -> Result<(), ProtocolError> {
        let (carried, body) = self.advance(piece)?;
        out.extend(carried);
        out.push_str(body);
        Ok(())
    }

    /// Validates `piece` as the next part of the text.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::InvalidUtf8`].
    pub fn check(&mut self, piece: &[u8]) -> Result<(), ProtocolError> {
        self.advance(piece).map(|_| ())
    }

    /// Ends the text and makes the validator ready for the next one.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::InvalidUtf8`] if the text ended inside a character.
    pub fn finish(&mut self) -> Result<(), ProtocolError> {
        if self.pending_len == 0 {
            Ok(())
        } else {
            Err(ProtocolError::InvalidUtf8)
        }
    }

    /// Gives the character that `piece` finished, if there was one to finish, and the whole
    /// characters behind it; keeps what is left.
    fn advance<'p>(&mut self, piece: &'p [u8]) -> Result<(Option<char>, &'p str), ProtocolError> {
        if self.pending_len == 0 {
            return Ok((None, self.body(piece)?));
        }
        let (carried, rest) = self.carry(piece)?;
        Ok((carried, self.body(rest)?))
    }

    /// Feeds the unfinished character byte by byte until it is whole or `piece` is used up.
    #[cold]
    fn carry<'p>(&mut self, piece: &'p [u8]) -> Result<(Option<char>, &'p [u8]), ProtocolError> {
        let mut sequence = [0; 4];
        let mut len = usize::from(self.pending_len);
        for (place, byte) in sequence.iter_mut().zip(self.pending.iter().take(len)) {
            *place = *byte;
        }
        let mut rest = piece;
        while let Some((&byte, behind)) = rest.split_first() {
            rest = behind;
            if let Some(place) = sequence.get_mut(len) {
                *place = byte;
            }
            len += 1;
            let Some(so_far) = sequence.get(..len) else {
                return Err(ProtocolError::InvalidUtf8);
            };
            match std::str::from_utf8(so_far) {
                Ok(whole) => {
                    self.pending_len = 0;
                    return Ok((whole.chars().next(), rest));
                }
                Err(error) if error.error_len().is_none() => self.keep(so_far)?,
                Err(_) => return Err(ProtocolError::InvalidUtf8),
            }
        }
        Ok((None, rest))
    }

    /// Validates a piece that begins at a character's start; keeps an unfinished character at its
    /// end.
    #[inline]
    fn body<'p>(&mut self, piece: &'p [u8]) -> Result<&'p str, ProtocolError> {
        let (whole, unfinished) = split_unfinished(piece);
        if !unfinished.is_empty() {
            self.keep(unfinished)?;
        }
        validate(whole)
    }

    /// Remembers the start of a character, if it can still become one.
    #[cold]
    fn keep(&mut self, unfinished: &[u8]) -> Result<(), ProtocolError> {
        match std::str::from_utf8(unfinished) {
            Err(error) if error.valid_up_to() == 0 && error.error_len().is_none() => {}
            _ => return Err(ProtocolError::InvalidUtf8),
        }
        self.pending_len = 0;
        for (place, byte) in self.pending.iter_mut().zip(unfinished) {
            *place = *byte;
            self.pending_len += 1;
        }
        Ok(())
    }
}

/// Validates a whole text.
///
/// # Errors
///
/// [`ProtocolError::InvalidUtf8`].
#[inline]
pub fn validate(text: &[u8]) -> Result<&str, ProtocolError> {
    simdutf8::basic::from_utf8(text).map_err(|_| ProtocolError::InvalidUtf8)
}

/// Splits off a character at the end that lacks bytes, going by its first byte alone.
#[inline]
fn split_unfinished(piece: &[u8]) -> (&[u8], &[u8]) {
    let ends_whole = piece.last().is_none_or(u8::is_ascii);
    if ends_whole {
        return (piece, &[]);
    }
    let unfinished = piece
        .iter()
        .rev()
        .take(3)
        .zip(1..)
        .find_map(|(&byte, len)| {
            let needs = match byte {
                0xc0..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xff => 4,
                _ => 0,
            };
            (byte >= 0xc0).then_some(if needs > len { len } else { 0 })
        });
    let at = piece.len() - unfinished.unwrap_or(0);
    piece.split_at_checked(at).unwrap_or((piece, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both sides of every border in RFC 3629's table of legal sequences.
    const BORDERS: [u8; 26] = [
        0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1,
        0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf8, 0xff,
    ];

    /// Where the first byte lies that no continuation can make valid, according to std.
    fn first_bad(text: &[u8]) -> Option<usize> {
        (0..text.len()).find(|&at| {
            std::str::from_utf8(&text[..=at]).is_err_and(|error| error.error_len().is_some())
        })
    }

    /// Pushes `text` in pieces that end at `cuts` (a bit for each inner border).
    fn push_pieces(text: &[u8], cuts: u32) -> Result<String, ProtocolError> {
        let (mut pushed, mut checked) = (Utf8::new(), Utf8::new());
        let mut out = String::new();
        let mut start = 0;
        for end in 1..=text.len() {
            if end < text.len() && cuts & 1 << (end - 1) == 0 {
                continue;
            }
            let piece = &text[start..end];
            let verdict = pushed.push(piece, &mut out);
            assert_eq!(checked.check(piece), verdict);
            assert_eq!(
                verdict.is_err(),
                first_bad(&text[..end]).is_some(),
                "{text:x?} to {end}"
            );
            verdict?;
            start = end;
        }
        assert_eq!(checked.finish(), pushed.finish());
        pushed.finish().map(|()| out)
    }

    fn compare_with_std(text: &[u8]) {
        let expected = std::str::from_utf8(text).ok();
        for cuts in 0..1 << (text.len() - 1) {
            assert_eq!(
                push_pieces(text, cuts).ok().as_deref(),
                expected,
                "{text:x?} cut {cuts:b}"
            );
        }
        assert_eq!(validate(text).ok(), expected);
    }

    #[test]
    fn u8_01_all_short_sequences_are_judged_as_by_std_in_every_split() {
        for a in BORDERS {
            compare_with_std(&[a]);
            for b in BORDERS {
                compare_with_std(&[a, b]);
                for c in BORDERS {
                    compare_with_std(&[a, b, c]);
                }
            }
        }
    }

    #[test]
    fn u8_01_four_byte_sequences_are_judged_as_by_std_in_every_split() {
        let leads = [0x41, 0x80, 0xc2, 0xe0, 0xed, 0xef, 0xf0, 0xf1, 0xf4, 0xf5];
        let tails = [0x41, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc2, 0xf4];
        for a in leads {
            for b in tails {
                for c in tails {
                    for d in tails {
                        compare_with_std(&[a, b, c, d]);
                    }
                }
            }
        }
    }

    #[test]
    fn u8_01_the_first_bad_byte_fails_inside_an_unfinished_character() {
        for (good, bad) in [
            (b"\xed".as_slice(), 0xa0),
            (b"\xf4", 0x90),
            (b"\xe0", 0x80),
            (b"\xf0", 0x8f),
            (b"\xf0\x90\x80", 0xc0),
            (b"", 0xc0),
            (b"", 0xf5),
            (b"", 0x80),
        ] {
            let mut utf8 = Utf8::new();
            assert_eq!(utf8.check(good), Ok(()));
            assert_eq!(utf8.check(&[]), Ok(()));
            assert_eq!(utf8.check(&[bad]), Err(ProtocolError::InvalidUtf8));
            let piece = [b"text", good, &[bad]].concat();
            assert_eq!(Utf8::new().check(&piece), Err(ProtocolError::InvalidUtf8));
        }
    }

    #[test]
    fn u8_02_long_text_is_assembled_in_every_two_way_split() {
        let text = "K\u{f6}\u{3a3} \u{1d11e}\u{ffff}\0".repeat(9);
        for cut in 0..=text.len() {
            let (head, tail) = text.as_bytes().split_at(cut);
            let mut utf8 = Utf8::new();
            let mut out = String::new();
            utf8.push(head, &mut out).unwrap();
            utf8.push(tail, &mut out).unwrap();
            assert_eq!(utf8.finish(), Ok(()));
            assert_eq!(out, text);
        }
    }

    #[test]
    fn u8_03_an_unfinished_character_fails_at_the_end() {
        for cut in ["\u{e9}", "\u{20ac}", "\u{1f600}"] {
            for len in 1..cut.len() {
                let mut utf8 = Utf8::new();
                utf8.check(&cut.as_bytes()[..len]).unwrap();
                assert_eq!(utf8.finish(), Err(ProtocolError::InvalidUtf8));
            }
        }
    }

    #[test]
    fn u8_08_noncharacters_bom_and_nul_are_text() {
        let text = "\u{feff}\0\u{fffe}\u{ffff}\u{10ffff}";
        compare_with_std(&text.as_bytes()[..8]);
        assert_eq!(validate(text.as_bytes()), Ok(text));
    }
}
