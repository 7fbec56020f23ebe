//! What can be seen of the wire without keys: record boundaries, and the types of handshake
//! messages until encryption starts.

/// Follows one direction of a connection, record by record (RFC 8446 section 5.1), through any
/// split of its bytes: where it is between the records.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Boundary {
    /// The begin of a record header that is not complete yet.
    header: [u8; RECORD_HEADER_LEN],
    header_len: u8,
    /// Payload that is missing from the current record.
    left: u16,
}

impl Boundary {
    /// Takes the next bytes of this direction.
    #[inline]
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if let (0, 0, &[_, _, _, high, low, ref rest @ ..]) =
                (self.left, self.header_len, bytes)
            {
                let len = u16::from_be_bytes([high, low]);
                match rest.get(usize::from(len)..) {
                    Some(later) => bytes = later,
                    None => {
                        self.left = len - u16::try_from(rest.len()).unwrap_or(len);
                        return;
                    }
                }
                continue;
            }
            bytes = match self.left {
                0 => self.header(bytes).1,
                _ => self.payload(bytes).1,
            };
        }
    }

    /// Bytes that the record, or record header, which has begun still lacks. 0 between records.
    pub(crate) const fn missing(&self) -> usize {
        match (self.left, self.header_len) {
            (0, 0) => 0,
            (0, len) => RECORD_HEADER_LEN - len as usize,
            (left, _) => left as usize,
        }
    }

    /// Takes what there is of a header; its record's type once it is complete, and what follows.
    fn header<'b>(&mut self, bytes: &'b [u8]) -> (Option<u8>, &'b [u8]) {
        let Some(free) = self.header.get_mut(usize::from(self.header_len)..) else {
            return (None, &[]);
        };
        let (now, later) = bytes.split_at(free.len().min(bytes.len()));
        for (to, from) in free.iter_mut().zip(now) {
            *to = *from;
            self.header_len += 1;
        }
        if usize::from(self.header_len) < RECORD_HEADER_LEN {
            return (None, later);
        }
        self.header_len = 0;
        let [kind, _, _, high, low] = self.header;
        self.left = u16::from_be_bytes([high, low]);
        (Some(kind), later)
    }

    /// Takes what there is of a record's payload; that, and what follows.
    fn payload<'b>(&mut self, bytes: &'b [u8]) -> (&'b [u8], &'b [u8]) {
        let (now, later) = bytes.split_at(bytes.len().min(usize::from(self.left)));
        self.left -= u16::try_from(now.len()).unwrap_or(self.left);
        (now, later)
    }
}

/// A [`Boundary`] that also looks at what is in the clear.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    boundary: Boundary,
    /// The type of the current record.
    kind: u8,
    /// Everything seen so far.
    bytes: u64,
    messages: Messages,
    seen: Seen,
}

/// What has been seen in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// A CertificateRequest in the clear; TLS 1.3 encrypts it.
    pub(crate) certificate_request: bool,
    /// A Certificate in the clear; TLS 1.3 encrypts it.
    pub(crate) certificate: bool,
    /// A ChangeCipherSpec record.
    pub(crate) change_cipher_spec: bool,
    /// A record of type `application_data`: in TLS 1.3 that is whatever is encrypted.
    pub(crate) ciphertext: bool,
    /// The last message of a TLS 1.2 server's first flight.
    pub(crate) server_hello_done: bool,
}

impl Tap {
    /// Takes the next bytes of this direction.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            bytes = match self.boundary.left {
                0 => self.header(bytes),
                _ => self.payload(bytes),
            };
        }
    }

    /// Where it is between the records.
    pub(crate) const fn boundary(&self) -> Boundary {
        self.boundary
    }

    /// See [`Boundary::missing`].
    pub(crate) const fn missing(&self) -> usize {
        self.boundary.missing()
    }

    /// All bytes so far.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What has been seen.
    pub(crate) const fn seen(&self) -> Seen {
        self.seen
    }

    fn header<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let (kind, later) = self.boundary.header(bytes);
        if let Some(kind) = kind {
            self.kind = kind;
            self.seen.change_cipher_spec |= kind == CHANGE_CIPHER_SPEC;
            self.seen.ciphertext |= kind == APPLICATION_DATA;
        }
        later
    }

    fn payload<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let (now, later) = self.boundary.payload(bytes);
        let in_the_clear = !self.seen.change_cipher_spec && !self.seen.ciphertext;
        if self.kind == HANDSHAKE && in_the_clear {
            self.messages.feed(now, &mut self.seen);
        }
        later
    }
}

/// Follows the handshake messages inside the records (RFC 8446 section 4).
#[derive(Debug, Default)]
struct Messages {
    header: [u8; MESSAGE_HEADER_LEN],
    header_len: usize,
    left: usize,
}

impl Messages {
    fn feed(&mut self, mut bytes: &[u8], seen: &mut Seen) {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let now = self.left.min(bytes.len());
                self.left -= now;
                bytes = bytes.get(now..).unwrap_or_default();
                continue;
            }
            if let Some(slot) = self.header.get_mut(self.header_len) {
                *slot = first;
            }
            self.header_len += 1;
            bytes = rest;
            if self.header_len == MESSAGE_HEADER_LEN {
                self.header_len = 0;
                let [kind, high, middle, low] = self.header;
                self.left = u24(high, middle, low);
                seen.certificate |= kind == CERTIFICATE;
                seen.certificate_request |= kind == CERTIFICATE_REQUEST;
                seen.server_hello_done |= kind == SERVER_HELLO_DONE;
            }
        }
    }
}

/// A 24-bit length, most significant byte first.
pub(crate) fn u24(high: u8, middle: u8, low: u8) -> usize {
    usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)
}

/// Type, version and length of a record (RFC 8446 section 5.1).
pub(crate) const RECORD_HEADER_LEN: usize = 5;
/// Type and length of a handshake message (RFC 8446 section 4).
pub(crate) const MESSAGE_HEADER_LEN: usize = 4;
/// The most that a record may carry in the clear (RFC 8446 section 5.1).
pub(crate) const MAX_FRAGMENT_LEN: usize = 1 << 14;

/// Record types (RFC 8446 section 5.1).
pub(crate) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const APPLICATION_DATA: u8 = 23;

/// Handshake types (RFC 8446 section 4, RFC 5246 section 7.4).
const CERTIFICATE: u8 = 11;
const CERTIFICATE_REQUEST: u8 = 13;
const SERVER_HELLO_DONE: u8 = 14;

#[cfg(test)]
mod tests {
    #![allow(
        clippy::cast_possible_truncation,
        reason = "the lengths of test records are small"
    )]

    use super::*;

    /// A handshake record with these messages, given as type and length.
    fn record(messages: &[(u8, usize)]) -> Vec<u8> {
        let mut payload = Vec::new();
        for &(kind, len) in messages {
            payload.extend([kind, 0, (len >> 8) as u8, len as u8]);
            payload.extend(vec![kind; len]);
        }
        let mut record = vec![HANDSHAKE, 3, 3];
        record.extend((payload.len() as u16).to_be_bytes());
        record.extend(payload);
        record
    }

    #[test]
    fn messages_are_seen_at_every_split_until_encryption() {
        let mut wire = record(&[(2, 80), (11, 700), (CERTIFICATE_REQUEST, 30)]);
        wire.extend(record(&[(SERVER_HELLO_DONE, 0)]));
        for size in [1, 2, 3, 7, 100, wire.len()] {
            let mut tap = Tap::default();
            for piece in wire.chunks(size) {
                tap.feed(piece);
            }
            let expected = Seen {
                certificate: true,
                certificate_request: true,
                server_hello_done: true,
                ..Seen::default()
            };
            assert_eq!(tap.seen(), expected, "{size}");
            assert_eq!((tap.missing(), tap.bytes()), (0, wire.len() as u64));
        }
    }

    #[test]
    fn nothing_is_read_into_ciphertext() {
        let mut tap = Tap::default();
        tap.feed(&[CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1]);
        tap.feed(&record(&[(CERTIFICATE_REQUEST, 3)]));
        assert!(tap.seen().change_cipher_spec);
        assert!(!tap.seen().certificate_request);
    }

    #[test]
    fn missing_counts_to_the_end_of_the_header_then_of_the_record() {
        let mut tap = Tap::default();
        assert_eq!(tap.missing(), 0);
        tap.feed(&[APPLICATION_DATA, 3]);
        assert_eq!(tap.missing(), 3);
        tap.feed(&[3, 1, 4]);
        assert_eq!(tap.missing(), 0x104);
        tap.feed(&[0; 0x103]);
        assert_eq!(tap.missing(), 1);
        tap.feed(&[0]);
        assert_eq!(tap.missing(), 0);
        tap.feed(&[HANDSHAKE, 3, 3, 0, 0]);
        assert_eq!(tap.missing(), 0, "an empty record ends with its header");
    }
}
