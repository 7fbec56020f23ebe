//! A throw-away certificate authority for an example, with its files in a directory of their own.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "every example uses another part of it"
)]

use std::error::Error;
use std::fs::DirBuilder;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};

/// An authority. Its directory goes when it is dropped; a program that is killed leaves it behind.
pub struct Pki {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
}

impl Pki {
    /// Makes the authority and its directory, which nobody else can look into, with `ca.pem`.
    pub fn new(example: &str) -> Result<Self, Box<dyn Error>> {
        let mut authority = params(&format!("throw-away CA of {example}"), Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let name = format!("wsloop-{example}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&directory)
            .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        let pki = Self { issuer, directory };
        std::fs::write(pki.ca(), pki.issuer.pem())?;
        Ok(pki)
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// Writes `FILE.pem` and `FILE.key`: a server's certificate for these host names and
    /// addresses. Files of that name are replaced.
    pub fn server(&self, file: &str, names: &[&str]) -> Result<(PathBuf, PathBuf), Box<dyn Error>> {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        self.issue(file, names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Writes `FILE.pem` and `FILE.key`: a client's certificate, with `file` as common name.
    pub fn client(&self, file: &str) -> Result<(PathBuf, PathBuf), Box<dyn Error>> {
        self.issue(file, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(
        &self,
        file: &str,
        names: Vec<String>,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<(PathBuf, PathBuf), Box<dyn Error>> {
        let key = KeyPair::generate()?;
        let mut leaf = params(file, names)?;
        leaf.extended_key_usages = vec![purpose];
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = leaf.signed_by(&key, &self.issuer)?;
        let at = |extension| self.directory.join(file).with_extension(extension);
        std::fs::write(at("pem"), certificate.pem())?;
        std::fs::write(at("key"), key.serialize_pem())?;
        Ok((at("pem"), at("key")))
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The files that a server works with.
pub struct ServerFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub client_ca: Option<PathBuf>,
    pub crl: Option<PathBuf>,
    _made: Option<Pki>,
}

impl ServerFiles {
    /// These. Without a certificate all are made, and one for a client; says where.
    pub fn or_made(
        example: &str,
        [cert, key, client_ca, crl]: [Option<PathBuf>; 4],
    ) -> Result<Self, Box<dyn Error>> {
        let pki = match (cert, key) {
            (Some(cert), Some(key)) => {
                return Ok(Self {
                    cert,
                    key,
                    client_ca,
                    crl,
                    _made: None,
                });
            }
            (None, None) => Pki::new(example)?,
            _ => return Err("--cert and --key go together".into()),
        };
        pki.client("client")?;
        let (cert, key) = pki.server("server", &["localhost", "127.0.0.1", "::1"])?;
        let made = "made ca.pem, server.pem, server.key, client.pem and client.key in";
        let _ = writeln!(std::io::stdout(), "{made} {}", pki.directory.display());
        Ok(Self {
            cert,
            key,
            client_ca: client_ca.or_else(|| Some(pki.ca())),
            crl,
            _made: Some(pki),
        })
    }
}

/// Valid from yesterday on for a month, with a serial number that no other one has.
fn params(common_name: &str, names: Vec<String>) -> Result<CertificateParams, Box<dyn Error>> {
    #[allow(
        clippy::disallowed_methods,
        reason = "certificates are by the wall clock"
    )]
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let now = date_time_ymd(1970, 1, 1) + since_1970;
    let mut params = CertificateParams::new(names)?;
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.not_before = now - DAY;
    params.not_after = now + 30 * DAY;
    let serial = u64::try_from(since_1970.as_nanos())? & (u64::MAX >> 1);
    params.serial_number = Some(SerialNumber::from(serial));
    Ok(params)
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
