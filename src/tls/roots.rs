//! Whom we trust: root certificates, and lists of what their issuers have revoked.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::ServerCertVerifierBuilder;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::ClientCertVerifierBuilder;
use webpki::BorrowedCertRevocationList;

use super::error::{InputProblem, PemSource, TlsConfigError};
use super::pem::{BUNDLE_BYTES_MAX, Pem, read_file};

/// Root certificates: what a chain of certificates has to lead to. There are none by default.
///
/// Cloning is cheap.
///
/// ```no_run
/// # fn main() -> Result<(), wsloop::tls::TlsConfigError> {
/// use wsloop::tls::Roots;
/// let roots = Roots::from_pem_file("ca.pem")?.and(&Roots::from_pem_file("second-ca.pem")?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Roots {
    store: Arc<RootCertStore>,
    skipped: Arc<[String]>,
}

impl Roots {
    /// All certificates of a PEM file.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the file. One certificate that cannot be used spoils the file.
    pub fn from_pem_file(path: impl Into<PathBuf>) -> Result<Self, TlsConfigError> {
        let (source, bytes) = file(path.into())?;
        Self::parse(&source, &bytes)
    }

    /// All certificates of PEM text.
    ///
    /// # Errors
    ///
    /// As of [`from_pem_file`](Self::from_pem_file).
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self, TlsConfigError> {
        Self::parse(&PemSource::Memory, pem.as_ref())
    }

    /// The roots that Mozilla trusts, as they were when the crate `webpki-roots` was released.
    #[cfg(feature = "webpki-roots")]
    #[cfg_attr(docsrs, doc(cfg(feature = "webpki-roots")))]
    pub fn bundled() -> Self {
        let anchors = webpki_roots::TLS_SERVER_ROOTS.iter().cloned();
        Self::from_store(anchors.collect())
    }

    /// The roots that the operating system trusts, or what the environment variables
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` name in their place. They are read once in the life of
    /// the process; what could not be read or used of them is in [`skipped`](Self::skipped).
    ///
    /// # Errors
    ///
    /// [`InputProblem::NoSystemRoots`] when not one could be used.
    #[cfg(feature = "native-certs")]
    #[cfg_attr(docsrs, doc(cfg(feature = "native-certs")))]
    pub fn system() -> Result<Self, TlsConfigError> {
        static ONCE: std::sync::OnceLock<Roots> = std::sync::OnceLock::new();
        let roots = ONCE.get_or_init(Self::load_system);
        if roots.is_empty() {
            let reason = match &*roots.skipped {
                [] => "the system has none".to_owned(),
                skipped => skipped.join("; "),
            };
            let problem = InputProblem::NoSystemRoots { reason };
            return Err(TlsConfigError::input(&PemSource::System, problem));
        }
        Ok(roots.clone())
    }

    #[cfg(feature = "native-certs")]
    fn load_system() -> Self {
        let loaded = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        let mut skipped: Vec<_> = loaded.errors.iter().map(ToString::to_string).collect();
        let (_, unusable) = store.add_parsable_certificates(loaded.certs);
        if unusable > 0 {
            skipped.push(format!("{unusable} certificates cannot be used as roots"));
        }
        Self {
            skipped: skipped.into(),
            ..Self::from_store(store)
        }
    }

    /// These and those.
    #[must_use]
    pub fn and(&self, others: &Self) -> Self {
        let mut store = RootCertStore::clone(&self.store);
        for anchor in &others.store.roots {
            if !store.roots.contains(anchor) {
                store.roots.push(anchor.clone());
            }
        }
        let skipped = self.skipped.iter().chain(&*others.skipped);
        Self {
            store: Arc::new(store),
            skipped: skipped.cloned().collect(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.store.is_empty()
    }

    /// What could not be read or used among the roots of the system, in words.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    pub(crate) const fn store(&self) -> &Arc<RootCertStore> {
        &self.store
    }

    fn from_store(store: RootCertStore) -> Self {
        Self {
            store: Arc::new(store),
            skipped: Arc::new([]),
        }
    }

    fn parse(source: &PemSource, bytes: &[u8]) -> Result<Self, TlsConfigError> {
        let mut store = RootCertStore::empty();
        let certificates: Vec<CertificateDer<'_>> = Pem::new(source, bytes)?.certificates()?;
        for (position, certificate) in (1..).zip(certificates) {
            store.add(certificate).map_err(|error| {
                let reason = error.to_string();
                let problem = InputProblem::BadCertificate { position, reason };
                TlsConfigError::input(source, problem)
            })?;
        }
        Ok(Self::from_store(store))
    }
}

/// No roots at all: nobody is trusted.
impl Default for Roots {
    fn default() -> Self {
        Self::from_store(RootCertStore::empty())
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Revocation lists (RFC 5280 section 5), and how strictly they are taken.
///
/// Once there is a list at all, a peer's certificate without a list of its issuer is refused, and
/// so is one whose list is out of date. Only the leaf certificate is looked up, unless
/// [`check_chain`](Self::check_chain) asks for more. Lists are not downloaded.
///
/// Cloning is cheap.
#[derive(Clone)]
pub struct RevocationLists {
    lists: Arc<[CertificateRevocationListDer<'static>]>,
    depth: Depth,
    unknown: Laxness,
    outdated: Laxness,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    Chain,
    Leaf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Laxness {
    Accept,
    Refuse,
}

impl RevocationLists {
    /// All lists of a PEM file.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the file. One list that cannot be used spoils the file.
    pub fn from_pem_file(path: impl Into<PathBuf>) -> Result<Self, TlsConfigError> {
        let (source, bytes) = file(path.into())?;
        Self::parse(&source, &bytes)
    }

    /// All lists of PEM text.
    ///
    /// # Errors
    ///
    /// As of [`from_pem_file`](Self::from_pem_file).
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self, TlsConfigError> {
        Self::parse(&PemSource::Memory, pem.as_ref())
    }

    /// These and those, taken as strictly as these.
    #[must_use]
    pub fn and(&self, others: &Self) -> Self {
        let lists = self.lists.iter().chain(&*others.lists);
        Self {
            lists: lists.cloned().collect(),
            ..self.clone()
        }
    }

    /// Looks up the authorities between leaf and root as well; each then needs its issuer's list.
    #[must_use]
    pub const fn check_chain(mut self) -> Self {
        self.depth = Depth::Chain;
        self
    }

    /// Accepts certificates of issuers that have no list here.
    #[must_use]
    pub const fn danger_accept_unknown(mut self) -> Self {
        self.unknown = Laxness::Accept;
        self
    }

    /// Goes by lists that are out of date. What was revoked since they were made is accepted.
    #[must_use]
    pub const fn danger_accept_outdated(mut self) -> Self {
        self.outdated = Laxness::Accept;
        self
    }

    fn parse(source: &PemSource, bytes: &[u8]) -> Result<Self, TlsConfigError> {
        let lists = Pem::new(source, bytes)?.revocation_lists()?;
        for (position, list) in (1..).zip(&lists) {
            BorrowedCertRevocationList::from_der(list).map_err(|error| {
                let reason = error.to_string();
                let problem = InputProblem::BadRevocationList { position, reason };
                TlsConfigError::input(source, problem)
            })?;
        }
        Ok(Self {
            lists: lists.into(),
            ..Self::default()
        })
    }
}

/// No lists: nothing is looked up.
impl Default for RevocationLists {
    fn default() -> Self {
        Self {
            lists: Arc::new([]),
            depth: Depth::Leaf,
            unknown: Laxness::Refuse,
            outdated: Laxness::Refuse,
        }
    }
}

impl fmt::Debug for RevocationLists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationLists")
            .field("len", &self.lists.len())
            .field("depth", &self.depth)
            .field("unknown", &self.unknown)
            .field("outdated", &self.outdated)
            .finish()
    }
}

/// Applies lists and strictness to either of rustls' builders, which have no trait in common.
macro_rules! apply_revocation {
    ($builder:expr, $lists:expr) => {{
        let (mut builder, lists): (_, &RevocationLists) = ($builder, $lists);
        builder = builder.with_crls(lists.lists.iter().cloned());
        if lists.depth == Depth::Leaf {
            builder = builder.only_check_end_entity_revocation();
        }
        if lists.unknown == Laxness::Accept {
            builder = builder.allow_unknown_revocation_status();
        }
        if lists.outdated == Laxness::Refuse {
            builder = builder.enforce_revocation_expiration();
        }
        builder
    }};
}

impl RevocationLists {
    pub(crate) fn apply_to_client_verifier(
        &self,
        builder: ClientCertVerifierBuilder,
    ) -> ClientCertVerifierBuilder {
        apply_revocation!(builder, self)
    }

    pub(crate) fn apply_to_server_verifier(
        &self,
        builder: ServerCertVerifierBuilder,
    ) -> ServerCertVerifierBuilder {
        apply_revocation!(builder, self)
    }
}

fn file(path: PathBuf) -> Result<(PemSource, Vec<u8>), TlsConfigError> {
    let read = |path: &Path| read_file(path, BUNDLE_BYTES_MAX);
    let bytes = read(&path);
    let source = PemSource::File(path);
    match bytes {
        Ok(bytes) => Ok((source, bytes)),
        Err(problem) => Err(TlsConfigError::input(&source, problem)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testpki::{Pki, TempDir};
    use super::*;

    #[test]
    fn roots_of_several_files_are_joined_without_repetition() {
        let (one, two) = (Pki::new("one"), Pki::new("two"));
        let both = Roots::from_pem(one.ca_pem() + &two.ca_pem()).unwrap();
        assert_eq!(both.len(), 2);
        let one = Roots::from_pem(one.ca_pem()).unwrap();
        assert_eq!(one.and(&both).len(), 2);
        assert!(Roots::default().is_empty());
        assert_eq!(Roots::default().and(&one).len(), 1);
    }

    #[test]
    fn one_bad_certificate_or_list_spoils_the_file() {
        let pki = Pki::new("ca");
        let junk = "-----BEGIN CERTIFICATE-----\nMAMCAQA=\n-----END CERTIFICATE-----\n";
        let error = Roots::from_pem(pki.ca_pem() + junk)
            .unwrap_err()
            .to_string();
        let text = "PEM text from memory: certificate 2 cannot be used: ";
        assert!(error.starts_with(text), "{error}");
        let junk = "-----BEGIN X509 CRL-----\nMAMCAQA=\n-----END X509 CRL-----\n";
        let error = RevocationLists::from_pem(pki.crl_pem(&[]) + junk)
            .unwrap_err()
            .to_string();
        let text = "PEM text from memory: revocation list 2 cannot be used: ";
        assert!(error.starts_with(text), "{error}");
    }

    #[test]
    fn files_are_named_in_errors() {
        let dir = TempDir::new("roots");
        let missing = dir.path("ca.pem");
        let expected = format!("{}: there is no such file", missing.display());
        assert_eq!(
            Roots::from_pem_file(&missing).unwrap_err().to_string(),
            expected
        );
        let error = RevocationLists::from_pem_file(&missing).unwrap_err();
        assert_eq!(error.to_string(), expected);
        let pki = Pki::new("ca");
        let file = dir.write("both.pem", &(pki.ca_pem() + &pki.crl_pem(&[])));
        assert_eq!(Roots::from_pem_file(&file).unwrap().len(), 1);
        assert_eq!(
            RevocationLists::from_pem_file(&file).unwrap().lists.len(),
            1
        );
    }

    #[cfg(feature = "webpki-roots")]
    #[test]
    fn the_bundled_roots_are_many() {
        assert!(Roots::bundled().len() > 50);
    }

    #[cfg(feature = "native-certs")]
    #[test]
    fn the_roots_of_the_system_are_some_or_an_error_says_why_not() {
        match Roots::system() {
            Ok(roots) => assert!(!roots.is_empty()),
            Err(error) => {
                let text = "the system's root certificates: none can be used: ";
                assert!(error.to_string().starts_with(text), "{error}");
            }
        }
    }
}
