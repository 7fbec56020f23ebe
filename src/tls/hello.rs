//! The ClientHello, read before any configuration is chosen (RFC 8446 section 4.1.2).
//!
//! rustls can show a ClientHello too, but neither its list of extensions nor a hello that it would
//! refuse; and what a peer says that speaks no TLS is worth a better answer than "invalid message".

use std::fmt;
use std::net::IpAddr;

use thiserror::Error;

use super::alert::Alert;
use super::tap::{
    ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE, MAX_FRAGMENT_LEN, MESSAGE_HEADER_LEN,
    RECORD_HEADER_LEN, u24,
};

/// What a client says first: read by the server before it chooses a vhost, and whether to ask for
/// a certificate.
///
/// Everything in it is the client's claim, not yet authenticated by anything, and can be made up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    server_name: ServerNameIndication,
    alpn: Box<[Box<[u8]>]>,
    cipher_suites: Box<[u16]>,
    extensions: Box<[u16]>,
    versions: Box<[TlsVersion]>,
}

impl ClientHello {
    /// The host name that the client asks for: lower case, without trailing dot. `None` if it
    /// named none, or an IP address, which RFC 6066 section 3 does not permit there;
    /// [`server_name_indication`](Self::server_name_indication) tells the two apart.
    pub fn server_name(&self) -> Option<&str> {
        match &self.server_name {
            ServerNameIndication::Name(name) => Some(name),
            ServerNameIndication::Absent | ServerNameIndication::IpLiteral(_) => None,
        }
    }

    /// The server name extension, as it was used.
    pub fn server_name_indication(&self) -> &ServerNameIndication {
        &self.server_name
    }

    /// The application protocols that the client offers, best first (RFC 7301). Empty without
    /// ALPN.
    pub fn alpn(&self) -> impl ExactSizeIterator<Item = &[u8]> + '_ {
        self.alpn.iter().map(AsRef::as_ref)
    }

    /// The cipher suites on offer, by number, best first.
    pub fn cipher_suites(&self) -> &[u16] {
        &self.cipher_suites
    }

    /// The types of the extensions, in their order.
    pub fn extensions(&self) -> &[u16] {
        &self.extensions
    }

    /// The versions on offer, best first. Reserved values (GREASE) are left out.
    pub fn versions(&self) -> &[TlsVersion] {
        &self.versions
    }

    /// Whether an extension of this type is there.
    pub fn has_extension(&self, extension: u16) -> bool {
        self.extensions.contains(&extension)
    }

    /// Whether a cipher suite on offer is a reserved value (GREASE, RFC 8701), as Chromium sends.
    pub fn has_grease_cipher(&self) -> bool {
        self.cipher_suites.iter().copied().any(is_grease)
    }

    /// Whether the hello looks like that of a browser: it has a reserved cipher suite (GREASE, as
    /// Chromium) or the extension for an encrypted ClientHello (65037, as Firefox and Chromium).
    ///
    /// Chromium gives up a `wss://` connection whose server asks for a certificate, so a vhost for
    /// browsers and machines asks only those that do not look like a browser. A machine can look
    /// like one if it wants to: this may decide *whether to ask*, never what somebody without a
    /// certificate is allowed to do.
    pub fn looks_like_browser(&self) -> bool {
        self.has_grease_cipher() || self.has_extension(ENCRYPTED_CLIENT_HELLO)
    }
}

/// The server name extension of a ClientHello (RFC 6066 section 3).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerNameIndication {
    /// There is none.
    Absent,
    /// An IP address. "Literal IPv4 and IPv6 addresses are not permitted"; it is ignored, since
    /// clients in the field send it.
    IpLiteral(Box<str>),
    /// A host name: lower case, without trailing dot.
    Name(Box<str>),
}

/// A version of TLS, as two bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TlsVersion(u16);

impl TlsVersion {
    /// TLS 1.2 (RFC 5246).
    pub const TLS_1_2: Self = Self(0x0303);
    /// TLS 1.3 (RFC 8446).
    pub const TLS_1_3: Self = Self(0x0304);

    /// The version with this number on the wire.
    pub const fn new(value: u16) -> Self {
        Self(value)
    }

    /// The number on the wire.
    pub const fn value(self) -> u16 {
        self.0
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0x0300 => f.write_str("SSL 3.0"),
            0x0301..=0x0304 => write!(f, "TLS 1.{}", self.0 - 0x0301),
            other => write!(f, "version {other:#06x}"),
        }
    }
}

/// What the first byte of a connection says about what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstByte {
    /// The first byte of a TLS handshake.
    Tls,
    /// A letter, as every HTTP request begins with (or the empty line that RFC 9112 section 2.2
    /// lets a server ignore).
    MaybeHttp,
    /// The two-byte header of SSL 2.0, or anything else with the top bit set.
    MaybeSslV2,
    /// Nothing we know.
    Other,
}

/// Sorts a connection by its first byte, on a port that serves ws and wss.
pub(crate) const fn first_byte(byte: u8) -> FirstByte {
    match byte {
        HANDSHAKE => FirstByte::Tls,
        b'A'..=b'Z' | b'a'..=b'z' | b'\r' | b'\n' => FirstByte::MaybeHttp,
        0x80..=0xFF => FirstByte::MaybeSslV2,
        _ => FirstByte::Other,
    }
}

/// What a peer seems to speak that does not speak TLS. A guess, from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForeignProtocol {
    /// A TLS alert in place of a handshake: the peer had given up already.
    Alert(Alert),
    /// HTTP/2 without TLS.
    Http2,
    /// Version 1 of the PROXY protocol, which load balancers put in front of a connection.
    Proxy,
    /// HTTP/1 without TLS: `ws://` or `http://` where `wss://` or `https://` belongs.
    PlainHttp,
    /// SSL 2.0, or the hello that could ask for SSL 2.0 and TLS at once.
    SslV2,
    /// SSH.
    Ssh,
    /// Other text, such as SMTP sends.
    Text,
    /// TLS, but not from its beginning: a record of this type where a handshake belongs.
    TlsRecord(u8),
    /// Nothing that we know.
    Unknown,
}

impl fmt::Display for ForeignProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alert(alert) => write!(f, "the TLS alert {alert}"),
            Self::Http2 => f.write_str("HTTP/2 without TLS; use wss:// or https:// on this port"),
            Self::PlainHttp => f.write_str(
                "HTTP without TLS; use wss:// or https:// with a port that speaks TLS, and ws:// or \
                 http:// with one that does not",
            ),
            Self::Proxy => {
                f.write_str("the PROXY protocol; turn it off in the load balancer in front")
            }
            Self::Ssh => f.write_str("SSH; is it the right port?"),
            Self::SslV2 => f.write_str("SSL 2.0; the oldest version that is spoken here is TLS 1.2"),
            Self::Text => {
                f.write_str("some protocol in plain text, as SMTP is; is it the right port?")
            }
            Self::TlsRecord(kind) => write!(
                f,
                "TLS from its middle: it begins with a record of type {kind}; was the begin of the \
                 connection lost?"
            ),
            Self::Unknown => f.write_str("nothing known; is it the right port?"),
        }
    }
}

/// What the first bytes of a peer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sniffed {
    /// More bytes are needed to tell.
    Undecided,
    /// TLS records.
    Tls,
    /// Something else.
    Foreign(ForeignProtocol),
}

/// Tells whether a client's bytes can be TLS. The answer for a prefix of the same bytes is the
/// same or `Undecided`, and at most 24 bytes are needed.
pub(crate) fn sniff_client(wire: &[u8]) -> Sniffed {
    let (Some(&first), second) = (wire.first(), wire.get(1)) else {
        return Sniffed::Undecided;
    };
    match (first, second) {
        (CHANGE_CIPHER_SPEC..=APPLICATION_DATA, None) => Sniffed::Undecided,
        (HANDSHAKE, Some(3)) => Sniffed::Tls,
        (ALERT, Some(3)) => match wire.get(..RECORD_HEADER_LEN + 2) {
            Some(&[_, _, _, 0, 2, _, code]) => {
                Sniffed::Foreign(ForeignProtocol::Alert(Alert::new(code)))
            }
            Some(_) => Sniffed::Foreign(ForeignProtocol::TlsRecord(first)),
            None => Sniffed::Undecided,
        },
        (CHANGE_CIPHER_SPEC..=APPLICATION_DATA, Some(3)) => {
            Sniffed::Foreign(ForeignProtocol::TlsRecord(first))
        }
        _ => sniff_foreign(wire, first),
    }
}

/// Tells whether a server's bytes can be TLS; like [`sniff_client`], but leaves every record to
/// the TLS library, which knows what to make of a server's alert.
pub(crate) fn sniff_server(wire: &[u8]) -> Sniffed {
    match wire {
        [] | [CHANGE_CIPHER_SPEC..=APPLICATION_DATA] => Sniffed::Undecided,
        [CHANGE_CIPHER_SPEC..=APPLICATION_DATA, 3, ..] => Sniffed::Tls,
        [first, ..] => sniff_foreign(wire, *first),
    }
}

fn sniff_foreign(wire: &[u8], first: u8) -> Sniffed {
    let guess = match first {
        // RFC 5246 appendix E.2: the length with the top bit set, then the message type 1.
        0x80..=0xFF => match wire.get(2) {
            None => return Sniffed::Undecided,
            Some(1) => ForeignProtocol::SslV2,
            Some(_) => ForeignProtocol::Unknown,
        },
        b' '..=b'~' | b'\r' | b'\n' => match first_word(wire) {
            Some(guess) => guess,
            None => return Sniffed::Undecided,
        },
        _ => ForeignProtocol::Unknown,
    };
    Sniffed::Foreign(guess)
}

/// Sorts text by its first word; `None` while that is incomplete.
fn first_word(wire: &[u8]) -> Option<ForeignProtocol> {
    let in_word = |byte: &u8| byte.is_ascii_graphic();
    let word = wire.iter().take_while(|byte| in_word(byte)).count();
    let (word, rest) = wire.split_at(word.min(MAX_WORD_LEN));
    let guess = match rest.first() {
        None => return None,
        _ if word.starts_with(b"SSH-") => ForeignProtocol::Ssh,
        Some(b' ') if word == b"PRI" => ForeignProtocol::Http2,
        Some(b' ') if word == b"PROXY" => ForeignProtocol::Proxy,
        Some(b' ') if word.starts_with(b"HTTP/") || is_method(word) => ForeignProtocol::PlainHttp,
        Some(b' '..=b'~' | b'\r' | b'\n' | b'\t') => ForeignProtocol::Text,
        Some(_) => ForeignProtocol::Unknown,
    };
    Some(guess)
}

/// Whether it is a method of RFC 9110 section 9 or RFC 5789: other protocols in plain text begin
/// with words in upper case, too.
fn is_method(word: &[u8]) -> bool {
    METHODS.iter().any(|method| method.as_bytes() == word)
}

const METHODS: [&str; 9] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
];

/// Why the first bytes of a client are no ClientHello for us.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum HelloError {
    /// A length in the hello leads out of it, or a mandatory part is missing.
    #[error("the ClientHello is malformed in its {0}")]
    Malformed(&'static str),
    /// RFC 8446 section 4.2: "There MUST NOT be more than one extension of the same type".
    #[error("the ClientHello has extension {0} twice")]
    DuplicateExtension(u16),
    /// RFC 8446 section 5.1: handshake fragments must not be empty.
    #[error("the ClientHello comes with an empty record")]
    EmptyRecord,
    /// Another record came before the hello was complete.
    #[error("a record of type {0} came in the middle of the ClientHello")]
    Interrupted(u8),
    /// Another handshake message came in place of the hello.
    #[error("the handshake begins with a message of type {0} in place of a ClientHello")]
    NotAClientHello(u8),
    /// The peer does not speak TLS.
    #[error("the peer does not speak TLS, but {0}")]
    NotTls(ForeignProtocol),
    /// RFC 8446 section 5.1: "The length MUST NOT exceed 2^14 bytes".
    #[error("a record of {0} bytes is longer than the 16384 allowed")]
    RecordTooLong(usize),
    /// RFC 6066 section 3: the server name extension has one name, and it is a host name.
    #[error("the server name extension does not hold one valid host name")]
    ServerName,
    /// The hello, or the records that carry it, is longer than what we accept.
    #[error("the ClientHello takes more than {limit} bytes")]
    TooLarge {
        /// The limit that it is over, in bytes.
        limit: usize,
    },
}

impl HelloError {
    /// The alert that answers it. A peer that does not speak TLS gets one only where it would
    /// understand it.
    pub const fn alert(&self) -> Option<Alert> {
        Some(match self {
            Self::Malformed(_) | Self::EmptyRecord => Alert::DECODE_ERROR,
            Self::DuplicateExtension(_) | Self::ServerName | Self::TooLarge { .. } => {
                Alert::ILLEGAL_PARAMETER
            }
            Self::Interrupted(_)
            | Self::NotAClientHello(_)
            | Self::NotTls(ForeignProtocol::TlsRecord(_)) => Alert::UNEXPECTED_MESSAGE,
            Self::NotTls(ForeignProtocol::SslV2) => Alert::PROTOCOL_VERSION,
            Self::NotTls(_) => return None,
            Self::RecordTooLong(_) => Alert::RECORD_OVERFLOW,
        })
    }
}

/// Waits for a complete ClientHello in bytes that somebody else keeps.
#[derive(Debug, Default)]
pub(crate) struct HelloScan {
    /// Where the next record begins.
    next: usize,
    /// Handshake bytes in the records before that.
    joined: usize,
    records: usize,
    header: [u8; MESSAGE_HEADER_LEN],
}

impl HelloScan {
    /// Looks at `wire`, which holds everything since the connection began: what the last call saw,
    /// and more behind it. `None` asks for more.
    ///
    /// # Errors
    ///
    /// The first thing that shows that no acceptable hello will come. Every split of the same
    /// bytes gives the same answer.
    pub(crate) fn scan(&mut self, wire: &[u8]) -> Result<Option<ClientHello>, HelloError> {
        if self.next == 0 {
            match sniff_client(wire) {
                Sniffed::Undecided => return Ok(None),
                Sniffed::Foreign(guess) => return Err(HelloError::NotTls(guess)),
                Sniffed::Tls => {}
            }
        }
        loop {
            if let Some(len) = self.message_len()? {
                if self.joined >= len {
                    return self.message(wire, len).map(Some);
                }
            }
            if !self.record(wire)? {
                return Ok(None);
            }
        }
    }

    /// The length of the hello with its header, once that is known.
    fn message_len(&self) -> Result<Option<usize>, HelloError> {
        let [kind, high, middle, low] = self.header;
        if self.joined > 0 && kind != CLIENT_HELLO {
            return Err(HelloError::NotAClientHello(kind));
        }
        if self.joined < MESSAGE_HEADER_LEN {
            return Ok(None);
        }
        let len = MESSAGE_HEADER_LEN + u24(high, middle, low);
        if len > MAX_HELLO_LEN {
            return Err(HelloError::TooLarge {
                limit: MAX_HELLO_LEN,
            });
        }
        Ok(Some(len))
    }

    /// Steps over the next record, if it is complete.
    fn record(&mut self, wire: &[u8]) -> Result<bool, HelloError> {
        let over = |bytes: usize| match bytes > MAX_HELLO_WIRE_LEN {
            true => Err(HelloError::TooLarge {
                limit: MAX_HELLO_WIRE_LEN,
            }),
            false => Ok(()),
        };
        let rest = wire.get(self.next..).unwrap_or_default();
        let Some((header, rest)) = rest.split_at_checked(RECORD_HEADER_LEN) else {
            return over(self.next + RECORD_HEADER_LEN).map(|()| false);
        };
        let len = record_len(header)?;
        over(self.next + RECORD_HEADER_LEN + len)?;
        let Some(payload) = rest.get(..len) else {
            return Ok(false);
        };
        let missing = self.header.iter_mut().skip(self.joined);
        for (to, from) in missing.zip(payload) {
            *to = *from;
        }
        self.joined += len;
        self.records += 1;
        self.next += RECORD_HEADER_LEN + len;
        Ok(true)
    }

    /// Parses the complete message, joining it if it came in several records.
    fn message(&self, wire: &[u8], len: usize) -> Result<ClientHello, HelloError> {
        let body = MESSAGE_HEADER_LEN..len;
        if self.records == 1 {
            let payload = wire.get(RECORD_HEADER_LEN..).unwrap_or_default();
            return parse(payload.get(body).unwrap_or_default());
        }
        let mut joined = Vec::with_capacity(self.joined);
        let mut rest = wire.get(..self.next).unwrap_or_default();
        while let Some((header, behind)) = rest.split_at_checked(RECORD_HEADER_LEN) {
            let (payload, behind) = behind
                .split_at_checked(record_len(header)?)
                .unwrap_or_default();
            joined.extend_from_slice(payload);
            rest = behind;
        }
        parse(joined.get(body).unwrap_or_default())
    }
}

/// The length in the header of a record that continues the hello.
fn record_len(header: &[u8]) -> Result<usize, HelloError> {
    match *header {
        [HANDSHAKE, 3, _, 0, 0] => Err(HelloError::EmptyRecord),
        [HANDSHAKE, 3, _, high, low] => match usize::from(u16::from_be_bytes([high, low])) {
            len if len > MAX_FRAGMENT_LEN => Err(HelloError::RecordTooLong(len)),
            len => Ok(len),
        },
        [kind, ..] => Err(HelloError::Interrupted(kind)),
        [] => Err(HelloError::Malformed("record header")),
    }
}

/// Parses the body of a ClientHello message.
fn parse(body: &[u8]) -> Result<ClientHello, HelloError> {
    let mut reader = Reader(body);
    let legacy_version = reader.u16().ok_or(HelloError::Malformed("version"))?;
    reader.take(32).ok_or(HelloError::Malformed("random"))?;
    reader.block8().ok_or(HelloError::Malformed("session id"))?;
    let suites = reader.block16().and_then(u16_list);
    let cipher_suites = suites.ok_or(HelloError::Malformed("cipher suites"))?;
    let compression = reader.block8().filter(|methods| !methods.is_empty());
    compression.ok_or(HelloError::Malformed("compression methods"))?;
    let mut hello = ClientHello {
        server_name: ServerNameIndication::Absent,
        alpn: Box::default(),
        cipher_suites,
        extensions: Box::default(),
        versions: Box::new([TlsVersion(legacy_version)]),
    };
    // RFC 5246 section 7.4.1.2: TLS 1.2 may leave the whole block out.
    if !reader.is_empty() {
        parse_extensions(&mut hello, reader)?;
    }
    Ok(hello)
}

fn parse_extensions(hello: &mut ClientHello, mut reader: Reader<'_>) -> Result<(), HelloError> {
    let malformed = HelloError::Malformed("extensions");
    let mut block = Reader(reader.block16().ok_or(malformed)?);
    if !reader.is_empty() {
        return Err(malformed);
    }
    let mut extensions = Vec::new();
    while !block.is_empty() {
        let kind = block.u16().ok_or(malformed)?;
        let data = block.block16().ok_or(malformed)?;
        extensions.push(kind);
        match kind {
            SERVER_NAME => hello.server_name = parse_server_name(data)?,
            ALPN => hello.alpn = parse_alpn(data).ok_or(HelloError::Malformed("ALPN"))?,
            SUPPORTED_VERSIONS => {
                let versions = parse_versions(data);
                hello.versions = versions.ok_or(HelloError::Malformed("supported versions"))?;
            }
            _ => {}
        }
    }
    refuse_duplicates(&extensions)?;
    hello.extensions = extensions.into();
    Ok(())
}

fn refuse_duplicates(extensions: &[u16]) -> Result<(), HelloError> {
    let mut sorted = extensions.to_vec();
    sorted.sort_unstable();
    let twice = sorted.windows(2).find_map(|pair| match pair {
        [one, other] if one == other => Some(*one),
        _ => None,
    });
    twice.map_or(Ok(()), |kind| Err(HelloError::DuplicateExtension(kind)))
}

/// RFC 6066 section 3. "The ServerNameList MUST NOT contain more than one name of the same
/// name_type", and only one type has ever been defined; the length of others is not known, so
/// nothing behind one can be read.
fn parse_server_name(data: &[u8]) -> Result<ServerNameIndication, HelloError> {
    let malformed = HelloError::Malformed("server name");
    let mut reader = Reader(data);
    let mut list = Reader(reader.block16().ok_or(malformed)?);
    if !reader.is_empty() {
        return Err(malformed);
    }
    let mut found = None;
    while let Some(HOST_NAME) = list.u8() {
        let name = list.block16().ok_or(malformed)?;
        if found.replace(name).is_some() {
            return Err(HelloError::ServerName);
        }
    }
    let name = found.and_then(|name| std::str::from_utf8(name).ok());
    match name.ok_or(HelloError::ServerName)? {
        name if is_host_name(name) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            Ok(ServerNameIndication::Name(name.to_ascii_lowercase().into()))
        }
        name if name.parse::<IpAddr>().is_ok() => Ok(ServerNameIndication::IpLiteral(name.into())),
        _ => Err(HelloError::ServerName),
    }
}

/// Letters, digits, hyphens and underscores in labels of 1 to 63 (RFC 1035 section 2.3.1 with the
/// underscores that names in use have). The last label is not all digits, so that no IPv4 address
/// is a name.
fn is_host_name(name: &str) -> bool {
    let labels = name.strip_suffix('.').unwrap_or(name);
    let last = labels.rsplit('.').next().unwrap_or_default();
    (1..=253).contains(&name.len())
        && labels.split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_label(label: &str) -> bool {
    let in_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=63).contains(&label.len())
        && label.bytes().all(in_label)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// RFC 7301 section 3.1: names of 1 to 255 bytes.
fn parse_alpn(data: &[u8]) -> Option<Box<[Box<[u8]>]>> {
    let mut reader = Reader(data);
    let mut list = Reader(reader.block16()?);
    let mut names = Vec::new();
    while !list.is_empty() {
        let name = list.block8().filter(|name| !name.is_empty())?;
        names.push(name.into());
    }
    (reader.is_empty() && !names.is_empty()).then(|| names.into())
}

/// RFC 8446 section 4.2.1, without the reserved values.
fn parse_versions(data: &[u8]) -> Option<Box<[TlsVersion]>> {
    let mut reader = Reader(data);
    let values = u16_list(reader.block8()?)?;
    let real = values.iter().copied().filter(|&value| !is_grease(value));
    reader.is_empty().then(|| real.map(TlsVersion).collect())
}

/// A list of numbers, not empty.
fn u16_list(bytes: &[u8]) -> Option<Box<[u16]>> {
    if bytes.is_empty() || bytes.len() % 2 != 0 {
        return None;
    }
    let pairs = bytes.chunks_exact(2);
    Some(pairs.filter_map(|pair| Reader(pair).u16()).collect())
}

/// RFC 8701 section 2: 0x0A0A, 0x1A1A, up to 0xFAFA.
const fn is_grease(value: u16) -> bool {
    let [high, low] = value.to_be_bytes();
    high == low && low & 0x0F == 0x0A
}

/// Takes values off the front of a slice; `None` where it is too short.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?.try_into().ok()?;
        Some(u16::from_be_bytes(bytes))
    }

    /// Bytes behind their length of one byte.
    fn block8(&mut self) -> Option<&'a [u8]> {
        let len = self.u8()?;
        self.take(len.into())
    }

    /// Bytes behind their length of two bytes.
    fn block16(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(len.into())
    }
}

/// The longest ClientHello that is read, with its header. The longest in use (post-quantum key
/// shares, a ticket, an encrypted inner hello) take 4 KiB.
pub(crate) const MAX_HELLO_LEN: usize = 16 * 1024;

/// The most bytes of records that may carry it: a sender of tiny records has six for one.
pub(crate) const MAX_HELLO_WIRE_LEN: usize = 64 * 1024;

/// The longest first word of plain text that is waited for.
const MAX_WORD_LEN: usize = 23;

/// Handshake type (RFC 8446 section 4).
const CLIENT_HELLO: u8 = 1;

/// Extension types: RFC 6066, RFC 7301, RFC 8446, RFC 9849.
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
const ENCRYPTED_CLIENT_HELLO: u16 = 65037;

/// The one name type (RFC 6066 section 3).
const HOST_NAME: u8 = 0;

#[cfg(test)]
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod tests;
