//! Who we are: a certificate chain and its private key, checked when they are read.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use webpki::{EndEntityCert, KeyUsage};

use super::der::{Fields, UtcTime};
use super::error::{InputProblem, PemSource, TlsConfigError};
use super::pem::{FILE_BYTES_MAX, Pem, read_file};
use super::{TlsEnv, sha256};

/// A certificate chain and the private key of its first certificate: what a server shows to its
/// clients, or a client to servers that ask for it.
///
/// Whatever is wrong is found here, and not by the first peer: a file that is missing, cut or of
/// another kind, an encrypted key, a key that belongs to another certificate, a chain in a wrong
/// order, a certificate that is out of date. The error names the file. Peculiarities that some
/// peers object to are [`warnings`](Identity::warnings).
///
/// Cloning is cheap: clones share the key.
///
/// ```no_run
/// # fn main() -> Result<(), wsloop::tls::TlsConfigError> {
/// let identity = wsloop::tls::Identity::from_pem_files("chain.pem", "key.pem")?;
/// println!("for {:?} until {}", identity.names(), identity.not_after());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

struct Inner {
    certified: Arc<CertifiedKey>,
    files: Option<IdentityFiles>,
    names: Vec<String>,
    serial: Vec<u8>,
    not_before: UtcTime,
    not_after: UtcTime,
    warnings: Vec<IdentityWarning>,
    usable: Usable,
}

impl Identity {
    /// Reads a chain (PEM, the leaf certificate first, then each certificate's issuer; the root may
    /// be left out) and its key (PEM: PKCS#8, SEC1 or PKCS#1), from two files.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with either file, and [`TlsConfigError::NoProvider`].
    pub fn from_pem_files(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, TlsConfigError> {
        IdentityOptions::new().from_pem_files(certificate, key)
    }

    /// As [`from_pem_files`](Self::from_pem_files), with chain and key in one file, in any order.
    ///
    /// # Errors
    ///
    /// As of [`from_pem_files`](Self::from_pem_files).
    pub fn from_pem_bundle_file(bundle: impl Into<PathBuf>) -> Result<Self, TlsConfigError> {
        IdentityOptions::new().from_pem_bundle_file(bundle)
    }

    /// As [`from_pem_files`](Self::from_pem_files), from memory. For a bundle, give it twice.
    ///
    /// # Errors
    ///
    /// As of [`from_pem_files`](Self::from_pem_files).
    pub fn from_pem(
        certificate: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<Self, TlsConfigError> {
        IdentityOptions::new().from_pem(certificate, key)
    }

    /// The files it was read from, so that they can be watched.
    pub fn files(&self) -> Option<&IdentityFiles> {
        self.inner.files.as_ref()
    }

    /// The DNS names of the leaf certificate, wildcards as they are written (`*.a.test`).
    pub fn names(&self) -> &[String] {
        &self.inner.names
    }

    /// Whether the leaf certificate is good for this name: a host name, an IP address, or a whole
    /// domain (`*.a.test`), as a vhost may be named.
    pub fn covers(&self, name: &str) -> bool {
        if name.starts_with("*.") {
            return self
                .names()
                .iter()
                .any(|own| own.eq_ignore_ascii_case(name));
        }
        let Ok(name) = ServerName::try_from(name) else {
            return false;
        };
        EndEntityCert::try_from(&CertificateDer::from(self.leaf_der()))
            .is_ok_and(|leaf| leaf.verify_is_valid_for_subject_name(&name).is_ok())
    }

    /// When the leaf certificate begins to be valid.
    pub fn not_before(&self) -> UtcTime {
        self.inner.not_before
    }

    /// When the leaf certificate ceases to be valid.
    pub fn not_after(&self) -> UtcTime {
        self.inner.not_after
    }

    /// The serial number of the leaf certificate, big-endian.
    pub fn serial(&self) -> &[u8] {
        &self.inner.serial
    }

    /// The SHA-256 fingerprint of the leaf certificate, as `openssl x509 -fingerprint -sha256`
    /// prints it. `None` without a crypto provider that has SHA-256.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        sha256(self.leaf_der())
    }

    /// The chain, DER, leaf first.
    pub fn chain_der(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.inner.certified.cert.iter().map(|der| &**der)
    }

    /// What some peers may object to.
    pub fn warnings(&self) -> &[IdentityWarning] {
        &self.inner.warnings
    }

    /// As [`warnings`](Self::warnings), and what speaks against using it for a server of these
    /// vhost names.
    pub fn warnings_for_server<'a>(
        &self,
        vhost_names: impl IntoIterator<Item = &'a str>,
    ) -> Vec<IdentityWarning> {
        let mut warnings = self.inner.warnings.clone();
        if !self.inner.usable.by_servers {
            warnings.push(IdentityWarning::NotForServers);
        }
        let uncovered = vhost_names.into_iter().filter(|name| !self.covers(name));
        warnings.extend(uncovered.map(|name| IdentityWarning::DoesNotCover {
            name: name.to_owned(),
            covered: self.inner.names.clone(),
        }));
        warnings
    }

    /// As [`warnings`](Self::warnings), and what speaks against using it for a client.
    pub fn warnings_for_client(&self) -> Vec<IdentityWarning> {
        let mut warnings = self.inner.warnings.clone();
        if !self.inner.usable.by_clients {
            warnings.push(IdentityWarning::NotForClients);
        }
        warnings
    }

    /// Whether both show the same chain, and therefore have the same key.
    pub fn is_same(&self, other: &Self) -> bool {
        self.inner.certified.cert == other.inner.certified.cert
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.inner.certified
    }

    /// From the contents of files, however they were read.
    pub(crate) fn from_contents(
        files: &IdentityFiles,
        certificate: &[u8],
        key: &[u8],
        env: &TlsEnv,
    ) -> Result<Self, TlsConfigError> {
        let sources = Sources {
            certificate: PemSource::File(files.certificate.clone()),
            key: PemSource::File(files.key.clone()),
            files: Some(files.clone()),
        };
        assemble(certificate, key, sources, &env.provider, Some(env.now()?))
    }

    fn leaf_der(&self) -> &[u8] {
        self.inner.certified.cert.first().map_or(&[], |leaf| leaf)
    }
}

/// Says nothing of the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("names", &self.inner.names)
            .field("files", &self.inner.files)
            .field("not_after", &format_args!("{}", self.inner.not_after))
            .finish_non_exhaustive()
    }
}

/// The files that an identity is in. They may be one and the same, a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdentityFiles {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl IdentityFiles {
    /// Two files.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            certificate: certificate.into(),
            key: key.into(),
        }
    }

    /// One file with both.
    pub fn bundle(bundle: impl Into<PathBuf>) -> Self {
        let bundle = bundle.into();
        Self {
            certificate: bundle.clone(),
            key: bundle,
        }
    }
}

/// How an [`Identity`] is read, where the defaults will not do.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct IdentityOptions {
    at: Option<SystemTime>,
    accept_out_of_date: bool,
}

impl IdentityOptions {
    /// The defaults: a leaf certificate that is not valid at this moment is an error.
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges validity at that time, in place of now.
    pub const fn at(mut self, time: SystemTime) -> Self {
        self.at = Some(time);
        self
    }

    /// Accepts a leaf certificate that is out of date. Peers that check will refuse it.
    pub const fn accept_out_of_date(mut self) -> Self {
        self.accept_out_of_date = true;
        self
    }

    /// As [`Identity::from_pem_files`].
    ///
    /// # Errors
    ///
    /// As of [`Identity::from_pem_files`].
    pub fn from_pem_files(
        &self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Identity, TlsConfigError> {
        self.read(IdentityFiles::new(certificate, key))
    }

    /// As [`Identity::from_pem_bundle_file`].
    ///
    /// # Errors
    ///
    /// As of [`Identity::from_pem_files`].
    pub fn from_pem_bundle_file(
        &self,
        bundle: impl Into<PathBuf>,
    ) -> Result<Identity, TlsConfigError> {
        self.read(IdentityFiles::bundle(bundle))
    }

    /// As [`Identity::from_pem`].
    ///
    /// # Errors
    ///
    /// As of [`Identity::from_pem_files`].
    pub fn from_pem(
        &self,
        certificate: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<Identity, TlsConfigError> {
        let sources = Sources {
            certificate: PemSource::MemoryCertificate,
            key: PemSource::MemoryKey,
            files: None,
        };
        self.assemble(certificate.as_ref(), key.as_ref(), sources)
    }

    fn read(&self, files: IdentityFiles) -> Result<Identity, TlsConfigError> {
        let certificate = read_pem(&files.certificate)?;
        let key = read_pem(&files.key)?;
        let sources = Sources {
            certificate: PemSource::File(files.certificate.clone()),
            key: PemSource::File(files.key.clone()),
            files: Some(files),
        };
        self.assemble(&certificate, &key, sources)
    }

    fn assemble(
        &self,
        certificate: &[u8],
        key: &[u8],
        sources: Sources,
    ) -> Result<Identity, TlsConfigError> {
        let env = TlsEnv::system()?;
        let now = match (self.accept_out_of_date, self.at) {
            (true, _) => None,
            (false, Some(time)) => Some(time.into()),
            (false, None) => Some(env.now()?),
        };
        assemble(certificate, key, sources, &env.provider, now)
    }
}

/// Something about an identity that works with some peers and not with others.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdentityWarning {
    /// The leaf certificate is that of an authority (`CA:TRUE`), as `openssl req -x509` makes one.
    #[error(
        "the certificate is that of an authority (CA:TRUE), and many peers refuse it for a server \
         or client; issue it with basicConstraints=CA:FALSE"
    )]
    AuthorityAsLeaf,
    /// A certificate further up the chain is out of date.
    #[error("certificate {position} of the chain expired on {not_after}")]
    ChainExpired {
        /// Which, counted from 1.
        position: usize,
        /// The end of its validity.
        not_after: UtcTime,
    },
    /// A certificate of the chain was not issued by the one that follows it.
    #[error(
        "certificate {position} of the chain was not issued by the certificate that follows it; \
         some peers will not find their way to the root"
    )]
    ChainGap {
        /// Which, counted from 1.
        position: usize,
    },
    /// The leaf certificate is not good for a name of the vhost.
    #[error("the certificate does not cover {name:?}, only {covered:?}; clients will refuse it")]
    DoesNotCover {
        /// The vhost's name.
        name: String,
        /// The DNS names of the certificate.
        covered: Vec<String>,
    },
    /// The leaf certificate says that it is not for clients (its extended key usage).
    #[error(
        "the certificate is not for clients: its extended key usage lacks clientAuth, and servers \
         will refuse it"
    )]
    NotForClients,
    /// The leaf certificate says that it is not for servers (its extended key usage).
    #[error(
        "the certificate is not for servers: its extended key usage lacks serverAuth, and clients \
         will refuse it"
    )]
    NotForServers,
    /// The leaf certificate is of X.509 version 1, as `openssl x509 -req` makes one without an
    /// extension file.
    #[error(
        "the certificate is of X.509 version 1, which has no subject alternative names, and many \
         peers refuse it; issue it with extensions (`openssl x509 -req -extfile`)"
    )]
    OldVersion,
}

struct Sources {
    certificate: PemSource,
    key: PemSource,
    files: Option<IdentityFiles>,
}

#[derive(Clone, Copy)]
struct Usable {
    by_servers: bool,
    by_clients: bool,
}

fn read_pem(path: &Path) -> Result<Vec<u8>, TlsConfigError> {
    read_file(path, FILE_BYTES_MAX)
        .map_err(|problem| TlsConfigError::input(&PemSource::File(path.to_owned()), problem))
}

/// Puts together and checks; validity only where `now` is given.
fn assemble(
    certificate: &[u8],
    key: &[u8],
    sources: Sources,
    provider: &CryptoProvider,
    now: Option<UtcTime>,
) -> Result<Identity, TlsConfigError> {
    let chain = Pem::new(&sources.certificate, certificate)?.certificates()?;
    let key = Pem::new(&sources.key, key)?.private_key()?;
    let refused = |problem| TlsConfigError::input(&sources.certificate, problem);
    let fields = chain_fields(&chain).map_err(refused)?;
    let certified = certified(&chain, &fields, key, &sources, provider)?;
    let mut warnings = chain_warnings(&fields, now);
    let (leaf, names) = match (fields.first(), leaf_names(&chain)) {
        (Some(leaf), Ok(names)) => (leaf, names),
        (Some(leaf), Err(webpki::Error::UnsupportedCertVersion)) => {
            warnings.push(IdentityWarning::OldVersion);
            (leaf, Vec::new())
        }
        (None, _) => return Err(refused(bad_certificate(1, "there is none"))),
        (Some(_), Err(webpki::Error::UnsupportedCriticalExtension)) => {
            return Err(refused(InputProblem::CriticalExtension { position: 1 }));
        }
        (Some(_), Err(error)) => return Err(refused(bad_certificate(1, error))),
    };
    check_validity(leaf, now).map_err(refused)?;
    let usable = usable(&chain, leaf, provider, &mut warnings);
    let inner = Inner {
        names,
        serial: leaf.serial.to_vec(),
        not_before: leaf.not_before,
        not_after: leaf.not_after,
        certified: Arc::new(certified),
        files: sources.files,
        warnings,
        usable,
    };
    Ok(Identity {
        inner: Arc::new(inner),
    })
}

fn chain_fields<'a>(chain: &'a [CertificateDer<'_>]) -> Result<Vec<Fields<'a>>, InputProblem> {
    let read = |(position, der): (usize, &'a CertificateDer<'_>)| {
        Fields::read(der).ok_or_else(|| bad_certificate(position, "it is not an X.509 certificate"))
    };
    (1..).zip(chain).map(read).collect()
}

fn bad_certificate(position: usize, reason: impl fmt::Display) -> InputProblem {
    InputProblem::BadCertificate {
        position,
        reason: reason.to_string(),
    }
}

/// Joins chain and key, if the key is that of the first certificate.
fn certified(
    chain: &[CertificateDer<'static>],
    fields: &[Fields<'_>],
    key: PrivateKeyDer<'static>,
    sources: &Sources,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsConfigError> {
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(|error| {
        let reason = match error {
            rustls::Error::General(reason) => reason,
            other => other.to_string(),
        };
        TlsConfigError::input(&sources.key, InputProblem::BadKey { reason })
    })?;
    if let Some(public_key) = key.public_key() {
        match fields
            .iter()
            .position(|certificate| certificate.public_key == &public_key[..])
        {
            Some(0) => {}
            Some(index) => {
                let position = index + 1;
                let problem = InputProblem::LeafNotFirst { position };
                return Err(TlsConfigError::input(&sources.certificate, problem));
            }
            None => {
                return Err(TlsConfigError::KeyMismatch {
                    certificate: sources.certificate.clone(),
                    key: sources.key.clone(),
                });
            }
        }
    }
    Ok(CertifiedKey::new(chain.to_vec(), key))
}

fn leaf_names(chain: &[CertificateDer<'static>]) -> Result<Vec<String>, webpki::Error> {
    let leaf = chain.first().ok_or(webpki::Error::BadDer)?;
    let leaf = EndEntityCert::try_from(leaf)?;
    Ok(leaf.valid_dns_names().map(str::to_owned).collect())
}

fn check_validity(leaf: &Fields<'_>, now: Option<UtcTime>) -> Result<(), InputProblem> {
    let position = 1;
    let (not_before, not_after) = (leaf.not_before, leaf.not_after);
    match now {
        Some(now) if now > not_after => Err(InputProblem::Expired {
            position,
            not_after,
        }),
        Some(now) if now < not_before => Err(InputProblem::NotYetValid {
            position,
            not_before,
        }),
        _ => Ok(()),
    }
}

fn chain_warnings(fields: &[Fields<'_>], now: Option<UtcTime>) -> Vec<IdentityWarning> {
    let gap = |(position, pair): (usize, &[Fields<'_>])| match pair {
        [lower, upper] if lower.issuer != upper.subject => {
            Some(IdentityWarning::ChainGap { position })
        }
        _ => None,
    };
    let expired = |(position, certificate): (usize, &Fields<'_>)| {
        let not_after = certificate.not_after;
        (now? > not_after).then_some(IdentityWarning::ChainExpired {
            position,
            not_after,
        })
    };
    let mut warnings: Vec<_> = (1..).zip(fields.windows(2)).filter_map(gap).collect();
    warnings.extend((1..).zip(fields).skip(1).filter_map(expired));
    warnings
}

/// What the library that most Rust peers verify with has against the leaf. Without trust anchors
/// it gets as far as that, and no further than to miss the issuer.
fn usable(
    chain: &[CertificateDer<'static>],
    leaf: &Fields<'_>,
    provider: &CryptoProvider,
    warnings: &mut Vec<IdentityWarning>,
) -> Usable {
    let seconds = u64::try_from(leaf.not_before.unix()).unwrap_or(0);
    let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let algorithms = provider.signature_verification_algorithms.all;
    let objection = |usage: KeyUsage| {
        let leaf = EndEntityCert::try_from(chain.first()?).ok()?;
        leaf.verify_for_usage(algorithms, &[], &[], time, usage, None, None)
            .err()
    };
    let (server, client) = (
        objection(KeyUsage::server_auth()),
        objection(KeyUsage::client_auth()),
    );
    if matches!(server, Some(webpki::Error::CaUsedAsEndEntity)) {
        warnings.push(IdentityWarning::AuthorityAsLeaf);
    }
    let wrong_purpose = |objection: &Option<webpki::Error>| {
        use webpki::Error::{EmptyEkuExtension, RequiredEkuNotFoundContext};
        matches!(
            objection,
            Some(RequiredEkuNotFoundContext(_) | EmptyEkuExtension)
        )
    };
    Usable {
        by_servers: !wrong_purpose(&server),
        by_clients: !wrong_purpose(&client),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testpki::{self, Leaf, Pki, date};
    use super::*;

    fn identity(leaf: &Leaf) -> Result<Identity, String> {
        pem(&leaf.chain_pem(), &leaf.key_pem())
    }

    fn pem(certificate: &str, key: &str) -> Result<Identity, String> {
        Identity::from_pem(certificate, key).map_err(|error| error.to_string())
    }

    #[test]
    fn an_identity_knows_its_names_times_and_serial() {
        let pki = Pki::new("ca").intermediate("between");
        let leaf = pki
            .leaf(&["a.test", "*.b.test", "10.0.0.1"])
            .valid(date(2024, 1, 2), date(2080, 3, 4))
            .issue();
        let identity = identity(&leaf).unwrap();
        assert_eq!(identity.names(), ["a.test", "*.b.test"]);
        assert_eq!(identity.not_before().to_string(), "2024-01-02 00:00:00 UTC");
        assert_eq!(identity.not_after().to_string(), "2080-03-04 00:00:00 UTC");
        assert_eq!(identity.serial(), leaf.serial());
        assert!(identity.chain_der().eq(leaf.chain_der()));
        assert_eq!(identity.warnings(), []);
        assert_eq!(identity.warnings_for_client(), []);
        assert!(identity.files().is_none());
    }

    #[test]
    fn covered_names_are_those_that_a_client_would_accept() {
        let leaf = Pki::new("ca")
            .leaf(&["a.test", "*.b.test", "10.0.0.1", "::1"])
            .issue();
        let identity = identity(&leaf).unwrap();
        for name in [
            "a.test", "A.Test", "x.b.test", "*.b.test", "*.B.test", "10.0.0.1", "::1",
        ] {
            assert!(identity.covers(name), "{name}");
        }
        for name in [
            "b.test",
            "x.y.b.test",
            "c.test",
            "*.a.test",
            "10.0.0.2",
            "",
            "a test",
        ] {
            assert!(!identity.covers(name), "{name}");
        }
        let warnings = identity.warnings_for_server(["a.test", "c.test"]);
        let texts: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "the certificate does not cover \"c.test\", only [\"a.test\", \"*.b.test\"]; \
              clients will refuse it"
            ]
        );
    }

    #[test]
    fn keys_of_all_three_forms_fit_their_certificates() {
        for (certificate, key) in [
            (testpki::RSA_CERTIFICATE, testpki::RSA_PKCS1_KEY),
            (testpki::EC_CERTIFICATE, testpki::EC_SEC1_KEY),
        ] {
            assert_eq!(pem(certificate, key).unwrap().names(), ["a.test"]);
        }
    }

    #[test]
    fn a_bundle_is_read_in_either_order() {
        let leaf = Pki::new("ca").leaf(&["a.test"]).issue();
        for bundle in [
            leaf.chain_pem() + &leaf.key_pem(),
            leaf.key_pem() + &leaf.chain_pem(),
        ] {
            assert_eq!(pem(&bundle, &bundle).unwrap().names(), ["a.test"]);
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let pki = Pki::new("ca");
        let (one, two) = (pki.leaf(&["a.test"]).issue(), pki.leaf(&["a.test"]).issue());
        assert_eq!(
            pem(&one.chain_pem(), &two.key_pem()).unwrap_err(),
            "the key's PEM text from memory: this private key does not belong to the certificate in \
             the certificate's PEM text from memory; was one of them replaced without the other?"
        );
    }

    #[test]
    fn a_chain_with_the_leaf_not_first_is_refused() {
        let root = Pki::new("ca");
        let between = root.intermediate("between");
        let leaf = between.leaf(&["a.test"]).issue();
        let only_leaf = leaf.chain_pem().replace(&between.ca_pem(), "");
        assert_eq!(
            pem(&(between.ca_pem() + &only_leaf), &leaf.key_pem()).unwrap_err(),
            "the certificate's PEM text from memory: the private key belongs to certificate 2; the chain is in a \
             wrong order: the leaf certificate comes first, then each certificate's issuer"
        );
        // The rest in a wrong order works with many peers.
        let third = between.intermediate("third").leaf(&["a.test"]).issue();
        let [leaf, lower, upper] = <[String; 3]>::try_from(split(&third.chain_pem())).unwrap();
        let identity = pem(&(leaf + &upper + &lower), &third.key_pem()).unwrap();
        let gaps = [1, 2].map(|position| IdentityWarning::ChainGap { position });
        assert_eq!(identity.warnings(), gaps);
    }

    fn split(pem: &str) -> Vec<String> {
        let blocks = pem.split_inclusive("-----END CERTIFICATE-----\n");
        blocks.map(str::to_owned).collect()
    }

    #[test]
    fn a_certificate_out_of_date_is_refused_with_its_date() {
        let pki = Pki::new("ca");
        let old = pki
            .leaf(&["a.test"])
            .valid(date(2001, 1, 1), date(2002, 2, 3))
            .issue();
        let early = pki
            .leaf(&["a.test"])
            .valid(date(2089, 1, 2), date(2090, 1, 1))
            .issue();
        assert_eq!(
            identity(&old).unwrap_err(),
            "the certificate's PEM text from memory: certificate 1 expired on 2002-02-03 00:00:00 UTC"
        );
        assert_eq!(
            identity(&early).unwrap_err(),
            "the certificate's PEM text from memory: certificate 1 is not valid before 2089-01-02 00:00:00 UTC; is \
             the clock right?"
        );
        let options = IdentityOptions::new().at(UtcTime::from_unix(1_000_000_000).system_time());
        assert!(options.from_pem(old.chain_pem(), old.key_pem()).is_ok());
        let options = IdentityOptions::new().accept_out_of_date();
        assert!(options.from_pem(early.chain_pem(), early.key_pem()).is_ok());
    }

    #[test]
    fn the_last_second_of_validity_is_valid_and_the_next_is_not() {
        let pki = Pki::new("ca");
        let leaf = pki
            .leaf(&["a.test"])
            .valid(date(2001, 1, 1), date(2002, 1, 1))
            .issue();
        let at = |unix| {
            IdentityOptions::new()
                .at(UtcTime::from_unix(unix).system_time())
                .from_pem(leaf.chain_pem(), leaf.key_pem())
                .is_ok()
        };
        let (begin, end) = (978_307_200, 1_009_843_200);
        let valid = [begin - 1, begin, end, end + 1].map(at);
        assert_eq!(valid, [false, true, true, false]);
    }

    #[test]
    fn an_unknown_critical_extension_is_refused_with_advice() {
        let leaf = Pki::new("ca")
            .leaf(&["a.test"])
            .with_unknown_critical_extension()
            .issue();
        assert_eq!(
            identity(&leaf).unwrap_err(),
            "the certificate's PEM text from memory: certificate 1 has a critical extension that is not understood, \
             and peers would refuse it (RFC 5280 section 4.2); have it issued without that \
             extension, or with the extension not critical"
        );
    }

    #[test]
    fn what_only_some_peers_refuse_is_a_warning() {
        let pki = Pki::new("ca");
        let key = testpki::EC_SEC1_KEY;
        let authority = pem(testpki::EC_AUTHORITY_CERTIFICATE, key).unwrap();
        assert_eq!(authority.warnings(), [IdentityWarning::AuthorityAsLeaf]);
        let old = pem(testpki::EC_VERSION_1_CERTIFICATE, key).unwrap();
        assert_eq!(old.warnings(), [IdentityWarning::OldVersion]);
        assert!(!old.covers("old.test"));
        let client = identity(&pki.leaf(&["a.test"]).for_clients_only().issue()).unwrap();
        let none: [&str; 0] = [];
        assert_eq!(
            client.warnings_for_server(none),
            [IdentityWarning::NotForServers]
        );
        assert_eq!(client.warnings_for_client(), []);
        let server = identity(&pki.leaf(&["a.test"]).for_servers_only().issue()).unwrap();
        assert_eq!(
            server.warnings_for_client(),
            [IdentityWarning::NotForClients]
        );
        assert_eq!(server.warnings_for_server(none), []);
    }

    #[test]
    fn what_is_no_certificate_or_no_key_is_refused() {
        let leaf = Pki::new("ca").leaf(&["a.test"]).issue();
        let junk = "-----BEGIN CERTIFICATE-----\nMAMCAQA=\n-----END CERTIFICATE-----\n";
        assert_eq!(
            pem(&(leaf.chain_pem() + junk), &leaf.key_pem()).unwrap_err(),
            "the certificate's PEM text from memory: certificate 2 cannot be used: it is not an X.509 certificate"
        );
        let junk = "-----BEGIN PRIVATE KEY-----\nMAMCAQA=\n-----END PRIVATE KEY-----\n";
        let error = pem(&leaf.chain_pem(), junk).unwrap_err();
        let text = "the key's PEM text from memory: the private key cannot be used: ";
        assert!(error.starts_with(text), "{error}");
    }

    #[test]
    fn files_are_named_in_errors() {
        let dir = testpki::TempDir::new("identity");
        let leaf = Pki::new("ca").leaf(&["a.test"]).issue();
        let (chain, key) = (
            dir.write("chain.pem", &leaf.chain_pem()),
            dir.path("key.pem"),
        );
        let error = Identity::from_pem_files(&chain, &key).unwrap_err();
        assert_eq!(error.path(), Some(&*key));
        assert_eq!(
            error.to_string(),
            format!("{}: there is no such file", key.display())
        );
        dir.write("key.pem", "");
        let error = Identity::from_pem_files(&chain, &key).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{}: the file is empty", key.display())
        );
        let directory = dir.path("");
        let error = Identity::from_pem_files(&directory, &key).unwrap_err();
        let text = format!("{}: the file cannot be read: ", directory.display());
        assert!(error.to_string().starts_with(&text), "{error}");
        dir.write("key.pem", &leaf.key_pem());
        let identity = Identity::from_pem_files(&chain, &key).unwrap();
        assert_eq!(identity.files(), Some(&IdentityFiles::new(&chain, &key)));
        let bundle = dir.write("bundle.pem", &(leaf.key_pem() + &leaf.chain_pem()));
        let other = Identity::from_pem_bundle_file(&bundle).unwrap();
        assert!(identity.is_same(&other));
    }

    #[test]
    fn a_path_cannot_begin_a_line_of_a_log() {
        let error = Identity::from_pem_files("/no\nwhere/\u{1b}[2J\u{fc}.pem", "key").unwrap_err();
        assert_eq!(
            error.to_string(),
            "/no\\nwhere/\\u{1b}[2J\u{fc}.pem: there is no such file"
        );
    }

    #[test]
    fn a_key_that_cannot_be_used_is_told_with_those_that_can() {
        let key = "-----BEGIN PRIVATE KEY-----\nMAAC\n-----END PRIVATE KEY-----\n";
        let error = pem(testpki::RSA_CERTIFICATE, key).unwrap_err();
        assert!(error.contains("Ed25519"), "{error}");
        assert!(!error.contains("unexpected"), "{error}");
    }

    #[test]
    fn the_fingerprint_is_that_of_the_leaf_certificate() {
        let identity = pem(testpki::RSA_CERTIFICATE, testpki::RSA_PKCS1_KEY).unwrap();
        let hex: String = identity
            .sha256()
            .unwrap()
            .iter()
            .map(|b| format!("{b:02X}"))
            .collect();
        assert_eq!(hex, testpki::RSA_CERTIFICATE_SHA256);
    }

    #[test]
    fn the_key_is_not_in_the_debug_text() {
        let pki = Pki::new("ca");
        let leaf = pki
            .leaf(&["a.test"])
            .valid(date(2024, 1, 1), date(2080, 1, 1));
        let text = format!("{:?}", identity(&leaf.issue()).unwrap());
        let expected = "Identity { names: [\"a.test\"], files: None, not_after: 2080-01-01 \
             00:00:00 UTC, .. }";
        assert_eq!(text, expected);
    }
}
