//! What can be wrong with certificates, keys, roots and names, told before a connection is made.

use std::fmt::{self, Write};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::der::UtcTime;
use super::hello::TlsVersion;

/// Why an identity, a set of roots, or the TLS settings of a vhost cannot be used.
///
/// Found when the thing is made, never in the middle of a handshake. The text names the file, where
/// there is one, and says what to do about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// An ALPN protocol name is empty or longer than the 255 bytes of RFC 7301 section 3.1.
    #[error("an ALPN protocol name has 1 to 255 bytes, this one has {len}")]
    Alpn {
        /// Its length in bytes.
        len: usize,
    },
    /// The clock gives no time, so certificates cannot be judged.
    #[error("the clock gives no time, and certificates cannot be judged without it")]
    Clock,
    /// Something is wrong with what a file or a piece of memory holds.
    #[error("{input}: {problem}")]
    Input {
        /// Where it came from.
        input: PemSource,
        /// What is wrong with it.
        #[source]
        problem: InputProblem,
    },
    /// The private key belongs to none of the certificates.
    #[error(
        "{key}: this private key does not belong to the certificate in {certificate}; was one of \
         them replaced without the other?"
    )]
    KeyMismatch {
        /// Where the certificate came from.
        certificate: PemSource,
        /// Where the key came from.
        key: PemSource,
    },
    /// The TLS library refuses the settings, for a reason that no other variant has.
    #[error("the TLS settings are refused: {0}")]
    Library(String),
    /// A server name, for SNI or for verification, is neither a host name nor an IP address.
    #[error("{name:?} is neither a host name nor an IP address{}", if *.unicode {
        "; write an international name in its ASCII form, xn--..."
    } else {
        ""
    })]
    Name {
        /// The name as it was given.
        name: String,
        /// Whether it has characters outside ASCII.
        unicode: bool,
    },
    /// No crypto provider is compiled in.
    #[error(
        "no crypto provider: enable the feature `aws-lc-rs` or `ring`, or install a process-wide \
         default provider before the first vhost with TLS is made"
    )]
    NoProvider,
    /// Peers are to be verified, but there is no root certificate to verify them against.
    #[error("{0}")]
    NoRoots(RootsNeededBy),
    /// A session was asked to send an IP address as SNI.
    #[error(
        "{name} is an IP address, which RFC 6066 section 3 does not allow as SNI; use Sni::None, \
         and verify_name to verify the address"
    )]
    SniIsAddress {
        /// The address as it was given.
        name: String,
    },
    /// A connection of a vhost whose settings are a configuration of rustls was to verify another
    /// name than it sends.
    #[error(
        "a client that was made from a configuration of rustls verifies the name that it sends as \
         SNI; use the settings of ClientTls, or a verifier in that configuration"
    )]
    VerifyNameOfRustls,
    /// A version of TLS that is not implemented.
    #[error("{0} is not implemented; TLS 1.2 and TLS 1.3 are")]
    Version(TlsVersion),
    /// The highest version is below the lowest.
    #[error("the highest version, {max}, is below the lowest, {min}; set one of them to the other")]
    VersionRange {
        /// The lowest version.
        min: TlsVersion,
        /// The highest version.
        max: TlsVersion,
    },
}

impl TlsConfigError {
    /// The file that is to blame, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Input { input, .. } => input.path(),
            Self::KeyMismatch { key, .. } => key.path(),
            Self::Alpn { .. }
            | Self::Clock
            | Self::Library(_)
            | Self::Name { .. }
            | Self::NoProvider
            | Self::NoRoots(_)
            | Self::SniIsAddress { .. }
            | Self::VerifyNameOfRustls
            | Self::Version(_)
            | Self::VersionRange { .. } => None,
        }
    }

    pub(crate) fn input(input: &PemSource, problem: InputProblem) -> Self {
        Self::Input {
            input: input.clone(),
            problem,
        }
    }

    pub(crate) fn name(name: &str) -> Self {
        Self::Name {
            name: name.to_owned(),
            unicode: !name.is_ascii(),
        }
    }
}

/// Where certificates or a key came from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PemSource {
    /// A file.
    File(PathBuf),
    /// Bytes that the application gave.
    Memory,
    /// Bytes that the application gave as a certificate, beside a key.
    MemoryCertificate,
    /// Bytes that the application gave as a private key.
    MemoryKey,
    /// The certificates of the operating system.
    System,
}

impl PemSource {
    /// The path, if it is a file.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Memory | Self::MemoryCertificate | Self::MemoryKey | Self::System => None,
        }
    }
}

impl fmt::Display for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // On one line, and without what a terminal takes for a command.
            Self::File(path) => path.to_string_lossy().chars().try_for_each(|c| {
                if c.is_control() {
                    c.escape_default().fmt(f)
                } else {
                    f.write_char(c)
                }
            }),
            Self::Memory => f.write_str("PEM text from memory"),
            Self::MemoryCertificate => f.write_str("the certificate's PEM text from memory"),
            Self::MemoryKey => f.write_str("the key's PEM text from memory"),
            Self::System => f.write_str("the system's root certificates"),
        }
    }
}

/// What is wrong with a PEM file, or with a certificate in it.
///
/// Certificates are counted from 1, in the order of the file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InputProblem {
    /// The certificate cannot be parsed, or holds something that no verifier could accept.
    #[error("certificate {position} cannot be used: {reason}")]
    BadCertificate {
        /// Which certificate of the file.
        position: usize,
        /// What its parser said.
        reason: String,
    },
    /// The revocation list cannot be parsed.
    #[error("revocation list {position} cannot be used: {reason}")]
    BadRevocationList {
        /// Which list of the file.
        position: usize,
        /// What its parser said.
        reason: String,
    },
    /// The private key cannot be used.
    #[error(
        "the private key cannot be used: {reason}; RSA of 2048 bits and more, ECDSA with P-256 or \
         P-384, and Ed25519 can"
    )]
    BadKey {
        /// What its parser said.
        reason: String,
    },
    /// The leaf certificate has a critical extension that is not known here, so that every
    /// conforming peer has to refuse it (RFC 5280 section 4.2).
    #[error(
        "certificate {position} has a critical extension that is not understood, and peers would \
         refuse it (RFC 5280 section 4.2); have it issued without that extension, or with the \
         extension not critical"
    )]
    CriticalExtension {
        /// Which certificate of the file.
        position: usize,
    },
    /// A block begins and does not end: usually a file that is being written.
    #[error(
        "the block {label:?} that begins in line {line} does not end; is the file half written?"
    )]
    Cut {
        /// The words behind BEGIN.
        label: String,
        /// The line of its BEGIN, counted from 1.
        line: usize,
    },
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// The private key is encrypted.
    #[error(
        "the private key is encrypted, and there is no way to ask for a passphrase here; decrypt \
         it first, for instance with `openssl pkey -in KEY -out PLAIN_KEY`"
    )]
    EncryptedKey,
    /// The certificate's time is over.
    #[error("certificate {position} expired on {not_after}")]
    Expired {
        /// Which certificate of the file.
        position: usize,
        /// The end of its validity.
        not_after: UtcTime,
    },
    /// The private key belongs to a later certificate of the file: the chain is in a wrong order.
    #[error(
        "the private key belongs to certificate {position}; the chain is in a wrong order: the \
         leaf certificate comes first, then each certificate's issuer"
    )]
    LeafNotFirst {
        /// Which certificate of the file the key belongs to.
        position: usize,
    },
    /// A line that begins or ends a block is broken, or what is between is not base64.
    #[error("the PEM block {label:?} in line {line} is malformed: {reason}")]
    Malformed {
        /// The words behind BEGIN.
        label: String,
        /// The line of its BEGIN, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such file.
    #[error("there is no such file")]
    Missing,
    /// There is PEM text, but no certificate in it.
    #[error("there is no certificate in it, only {found}")]
    NoCertificate {
        /// What there is instead.
        found: String,
    },
    /// There is PEM text, but no private key in it.
    #[error("there is no private key in it, only {found}")]
    NoKey {
        /// What there is instead.
        found: String,
    },
    /// There is PEM text, but no revocation list in it.
    #[error("there is no certificate revocation list in it, only {found}")]
    NoRevocationList {
        /// What there is instead.
        found: String,
    },
    /// The operating system has no root certificate that could be used.
    #[error("none can be used: {reason}")]
    NoSystemRoots {
        /// Why.
        reason: String,
    },
    /// It is not PEM text.
    #[error("{}", if *.der {
        "this is binary DER; PEM text is needed, for instance from \
         `openssl x509 -inform der -in FILE -out FILE.pem`"
    } else {
        "this is not PEM text: no line begins with \"-----BEGIN \""
    })]
    NotPem {
        /// Whether it looks like DER, the binary form.
        der: bool,
    },
    /// The certificate's time has not come.
    #[error("certificate {position} is not valid before {not_before}; is the clock right?")]
    NotYetValid {
        /// Which certificate of the file.
        position: usize,
        /// The begin of its validity.
        not_before: UtcTime,
    },
    /// There is more than one private key.
    #[error("there are {keys} private keys in it; exactly one is needed")]
    SeveralKeys {
        /// How many.
        keys: usize,
    },
    /// The file is longer than any such file is.
    #[error("the file is longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: u64,
    },
    /// The file exists and cannot be read.
    #[error("the file cannot be read: {0}")]
    Unreadable(#[source] io::Error),
}

impl From<io::Error> for InputProblem {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            _ => Self::Unreadable(error),
        }
    }
}

/// Who was to verify peers and had no root certificates for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootsNeededBy {
    /// A client, for the certificates of servers.
    Client,
    /// A server, for the certificates of clients.
    Server,
}

impl fmt::Display for RootsNeededBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => {
                "there are no root certificates to verify servers against; give ClientTls its \
                 roots: Roots::from_pem_file for a CA of your own, Roots::system (feature \
                 `native-certs`) or Roots::bundled (feature `webpki-roots`) for the public ones"
            }
            Self::Server => {
                "there are no root certificates to verify clients against; give ClientTrust the \
                 CA that issues their certificates: Roots::from_pem_file"
            }
        })
    }
}
