//! A throw-away public key infrastructure for tests: authorities, certificates with this or that
//! wrong with them, revocation lists.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test uses another part of it"
)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevocationReason, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

/// Year, month, day.
pub type Date = (i32, u8, u8);

pub const fn date(year: i32, month: u8, day: u8) -> Date {
    (year, month, day)
}

/// A certificate authority.
#[derive(Debug)]
pub struct Pki {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Certificates that a leaf of this authority sends along: its own, unless it is a root.
    above: Vec<Vec<u8>>,
    above_pem: String,
}

impl Pki {
    /// A root of that name. Two of the same name are two authorities with different keys.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(authority(name), key).unwrap(),
            above: Vec::new(),
            above_pem: String::new(),
        }
    }

    /// An authority under this one.
    pub fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::signed_by(authority(name), key, &self.issuer).unwrap();
        let mut above = vec![issuer.der().to_vec()];
        above.extend_from_slice(&self.above);
        let above_pem = issuer.pem() + &self.above_pem;
        Self {
            issuer,
            above,
            above_pem,
        }
    }

    pub fn ca_der(&self) -> &[u8] {
        self.issuer.der()
    }

    pub fn ca_pem(&self) -> String {
        self.issuer.pem()
    }

    /// Describes a certificate for these DNS names and IP addresses; the first is its common name.
    /// Without more it is good for servers and clients, from 2000 to 2090.
    pub fn leaf(&self, names: &[&str]) -> LeafBuilder<'_> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let common_name = names.first().cloned().unwrap_or_else(|| "leaf".to_owned());
        let mut params = CertificateParams::new(names).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        LeafBuilder { pki: self, params }.valid(date(2000, 1, 1), date(2090, 1, 1))
    }

    /// A list that revokes these, valid until 2090.
    pub fn crl_pem(&self, revoked: &[&Leaf]) -> String {
        self.crl_pem_until(revoked, date(2090, 1, 1))
    }

    /// A list that revokes these, with that date of its next update.
    pub fn crl_pem_until(&self, revoked_leaves: &[&Leaf], next_update: Date) -> String {
        let entry = |leaf: &&Leaf| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&leaf.serial),
            revocation_time: date_time_ymd(2020, 1, 2),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 3),
            next_update: date_time_ymd(next_update.0, next_update.1, next_update.2),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: revoked_leaves.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A certificate that is about to be issued.
#[derive(Debug)]
#[must_use]
pub struct LeafBuilder<'a> {
    pki: &'a Pki,
    params: CertificateParams,
}

impl LeafBuilder<'_> {
    pub fn common_name(mut self, name: &str) -> Self {
        self.params
            .distinguished_name
            .push(DnType::CommonName, name);
        self
    }

    pub fn valid(mut self, from: Date, until: Date) -> Self {
        self.params.not_before = date_time_ymd(from.0, from.1, from.2);
        self.params.not_after = date_time_ymd(until.0, until.1, until.2);
        self
    }

    pub fn uri(mut self, uri: &str) -> Self {
        let uri = SanType::URI(uri.try_into().unwrap());
        self.params.subject_alt_names.push(uri);
        self
    }

    pub fn for_servers_only(mut self) -> Self {
        self.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self
    }

    pub fn for_clients_only(mut self) -> Self {
        self.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self
    }

    /// Says of itself that it is an authority.
    pub fn authority(mut self) -> Self {
        self.params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        self
    }

    pub fn with_unknown_critical_extension(mut self) -> Self {
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(true);
        self.params.custom_extensions.push(extension);
        self
    }

    pub fn issue(self) -> Leaf {
        let key = KeyPair::generate().unwrap();
        self.issue_for(&key)
    }

    /// A certificate for a key that another certificate has.
    pub fn reissue(self, leaf: &Leaf) -> Leaf {
        self.issue_for(&KeyPair::from_pem(&leaf.key_pem).unwrap())
    }

    fn issue_for(mut self, key: &KeyPair) -> Leaf {
        let serial = next_serial();
        self.params.serial_number = Some(SerialNumber::from_slice(&serial));
        let certificate = self.params.signed_by(key, &self.pki.issuer).unwrap();
        let mut chain = vec![certificate.der().to_vec()];
        chain.extend_from_slice(&self.pki.above);
        Leaf {
            chain,
            chain_pem: certificate.pem() + &self.pki.above_pem,
            key_pem: key.serialize_pem(),
            serial,
        }
    }
}

/// An issued certificate with its key.
#[derive(Clone, Debug)]
pub struct Leaf {
    chain: Vec<Vec<u8>>,
    chain_pem: String,
    key_pem: String,
    serial: Vec<u8>,
}

impl Leaf {
    /// The leaf's certificate first, then those of the authorities but the root's.
    pub fn chain_der(&self) -> &[Vec<u8>] {
        &self.chain
    }

    pub fn leaf_der(&self) -> &[u8] {
        &self.chain[0]
    }

    pub fn chain_pem(&self) -> String {
        self.chain_pem.clone()
    }

    /// Forgets the certificates of intermediate authorities.
    pub fn keep_leaf_only(&mut self) {
        self.chain.truncate(1);
        let end = self.chain_pem.find(END).unwrap() + END.len();
        self.chain_pem.truncate(end);
    }

    /// PKCS#8.
    pub fn key_pem(&self) -> String {
        self.key_pem.clone()
    }

    pub fn serial(&self) -> &[u8] {
        &self.serial
    }
}

/// A directory of its own, gone when this is.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wsloop-{name}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn next_serial() -> Vec<u8> {
    static NEXT: AtomicU32 = AtomicU32::new(0x0100_0000);
    NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes().to_vec()
}

const END: &str = "-----END CERTIFICATE-----\n";

/// A key of 2048 bits in the form of PKCS#1.
pub const RSA_PKCS1_KEY: &str = "\
-----BEGIN RSA PRIVATE KEY-----
MIIEowIBAAKCAQEAzlftu8jWbPdo57Z60Xpk2g8apkQ531WrTOCx8Upnk4I7boLT
rlHpIRBsCBbeFeQ7R7s0L569frriT/Nu8D4Imo0iCCO46qApDCRSm+pIGn2YKNLe
+XZxLRvNkAi0yN5v17bQRD0GM+zF3rZ1P+xzWhVP8Rlw4Beh5+JzJtEiE2Gfd+tq
42g6nBh/W052rjew5Bak/1quPdYputkbbJ8HhSQqh0+mpzM3JWQL8EpToNHRuCYU
CdE7FHRMlAZ94hNUKunsGY2LYExAlhDJtSs0JeciwTQC7A87l0+8fpyMDVDstIq6
lnIwWxYuvKeFPkNkLxVIR31wAAXb/gMxYYAq4wIDAQABAoIBAENf9JEnT9R+qHNY
Yxv5IesNmX8GsfrZhzhv+co2qEFC+dLoxuOZfUy9hvjRNqzhO/X9C1otM+SocvL2
IpgxOS/1u1H7EAsURrLfPVYJloeH0OIrkIDWCrhW5rUMErOv5ccCu1g8sMTNoAJL
g1dfBn84jETGMNQLA2OqzjyzdrPqyxjEcy0+qdvWmsa8l5kIG4asP41EYDVU5mwB
vvqi7w7SHxnRiSKzpuJQ2jc4swISC+f8ypB/3x3232NaVcypDRBw9PIdfaktNh6c
Whq4o+kfZzpxnMjH/X0i3OSdZM4rwxZO6W85g0x3trlw4RRj14Cqw1t9Dney8yr0
GGLmsHkCgYEA8VJzdRJ4DE9xKQH1xhk2CPFwXxX9PDAyUJLx4wEuFUnoN3ukvsap
xFnvDJRc0IY3rdHUSBl7goOAO9nG/JxNuc0daHmQRI2yIsuL/X2u5csgGHPsxLFk
Zeok8kFoBJeJrROYolTBdbO1k/POOcKP2wYTR7W6tx7KIDuRTwx2gj8CgYEA2uTW
REAaGTz9Ap1aSfFILyuVv89n4jk4eEFYzIf8gyTuw5B/xGEn0mejsgQqvKZIk1kl
TIoaswFcCHhh01P5VcaPZtEXzTug1gzQIhyJHG9i5G2j/ajBUnyauqU1qR4hGdL/
50D5Is4ynap0gsYW2vhi5EYBPgVbbOxidaKCpl0CgYBY9XsIWjGU4Cgn5MgUKbEI
pPA2rSV37ZBusWynsQSq5l7LLTIy/YsRjdGYgoygdgnKcsJdfb9RAmbgKUy4TGo+
pwVDQSTUkKNtPjmxzYYOwc1oFjve2kHXa/QIteHBZ5diDQpENRhH6mJyUvrfwgBD
zj6HPc/Bt4DtVugfCsoZAwKBgAWtkfFLSGIHNvjuY/0vCRRQKR5Enwk7Or/D0i3c
CSzNtHPWN7o8WvAWSCTB/unN1mwcD9+gZXjnPB/sH31/3CPhdq7QFbH5Lf7fbja0
TsoyCXqrbWmTCxC8srbMukucwHcPBhxVjyDcAGwek88gnE8pykbpmfal5O06ZINw
p7rxAoGBALIwJrdr5fYcRW7p/0t14dC4Zu3nSfW2Bk2ryWXjXJctxhSJLGGil0kn
4Kn6jNbEzMWDZse+Z+CM6/kyPH92VI9y92/Vfj9NS61Hx6zihDz0piRLzSQLM7xG
cEI8Sq9mTifeZJqX6XPo2YVNo0M6SlgA3ovH0gTPUDJ6yu+U9Zbe
-----END RSA PRIVATE KEY-----
";

/// Its certificate, for a.test, signed by itself, until 2126.
pub const RSA_CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIC9DCCAdygAwIBAgIUDLqXIjLK5jV75D6wmFy7esBMB14wDQYJKoZIhvcNAQEL
BQAwETEPMA0GA1UEAwwGYS50ZXN0MCAXDTI2MTEyMTAzNDU0MFoYDzIxMjYxMDI4
MDM0NTQwWjARMQ8wDQYDVQQDDAZhLnRlc3QwggEiMA0GCSqGSIb3DQEBAQUAA4IB
DwAwggEKAoIBAQDOV+27yNZs92jntnrRemTaDxqmRDnfVatM4LHxSmeTgjtugtOu
UekhEGwIFt4V5DtHuzQvnr1+uuJP827wPgiajSIII7jqoCkMJFKb6kgafZgo0t75
dnEtG82QCLTI3m/XttBEPQYz7MXetnU/7HNaFU/xGXDgF6Hn4nMm0SITYZ9362rj
aDqcGH9bTnauN7DkFqT/Wq491im62RtsnweFJCqHT6anMzclZAvwSlOg0dG4JhQJ
0TsUdEyUBn3iE1Qq6ewZjYtgTECWEMm1KzQl5yLBNALsDzuXT7x+nIwNUOy0irqW
cjBbFi68p4U+Q2QvFUhHfXAABdv+AzFhgCrjAgMBAAGjQjBAMAwGA1UdEwEB/wQC
MAAwEQYDVR0RBAowCIIGYS50ZXN0MB0GA1UdDgQWBBRf3AD+yEOpf+HR496Hxud6
OEyaHjANBgkqhkiG9w0BAQsFAAOCAQEAoTfFU6lzezhu8uCkOsRpMiBd3yit2jn3
zdd4qeOzNcKfQVOviNzrnOV6rKH9v+vXVOMVjMAuYsqw7fCJs2VcePctGNfCCNbH
bb361QCvUce+poixozSOQ0CPFwggGe7nLf7SxazQMdk73BJkgmPzTlBE7IZKrLit
7X7F0uMTOOFVAO4HhbFAzZZphYS2ZoK4ZKzJEih+TV533fDkMmJiz9VUHfurqrEG
X+AE4++A4KrIOHE14oJ2J9T12ShZjcjXcQLX68DZHQeMKaC2+MGai4vrdEelAoLZ
+UTVYEPNc+5rTgU8gjgbb/zlpAQUZxdEgl6FgKohzC8LpwyK4AC94A==
-----END CERTIFICATE-----
";

/// A key on P-256 in the form of SEC1 (RFC 5915).
pub const EC_SEC1_KEY: &str = "\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIO6l5llSQIiA6XDt0/+6KBdIOosvNHx0UWsZZ3oPjs0IoAoGCCqGSM49
AwEHoUQDQgAEDLMF13pdHXdectk2hhRQ2O9QHbe/WDZiE9DnciueueSGzBsAedKU
epSFsS09oQEBJiMFgE9AP3kxDfMBkiKNfQ==
-----END EC PRIVATE KEY-----
";

/// Its certificate, for a.test, signed by itself, until 2126.
pub const EC_CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBaDCCAQ6gAwIBAgIUfUk7jpccrfZE4qT495xWId7RkYswCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGYS50ZXN0MCAXDTI2MTEyMTAzNDU0MFoYDzIxMjYxMDI4MDM0
NTQwWjARMQ8wDQYDVQQDDAZhLnRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AAQMswXXel0dd15y2TaGFFDY71Adt79YNmIT0OdyK5655IbMGwB50pR6lIWxLT2h
AQEmIwWAT0A/eTEN8wGSIo19o0IwQDAMBgNVHRMBAf8EAjAAMBEGA1UdEQQKMAiC
BmEudGVzdDAdBgNVHQ4EFgQUz7RZ7ektsj7kVBx+4EiIL1rXRyswCgYIKoZIzj0E
AwIDSAAwRQIgFY7AfO7UfgORUtry3j02z3LOrRXQGZS2IBWkyvW+8DgCIQDKrIhV
bEa5YX3qIcMTUc2vZacZIlRVsq/cmjTFOy9FXA==
-----END CERTIFICATE-----
";

/// The same key's, for localhost, as `openssl req -x509` makes one without more: an authority.
pub const EC_AUTHORITY_CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBfzCCASWgAwIBAgIUB1OAkbNlglH5MbqxOkEZyWngj5EwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTAzNDU0MFoYDzIxMjYxMDI4
MDM0NTQwWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQMswXXel0dd15y2TaGFFDY71Adt79YNmIT0OdyK5655IbMGwB50pR6
lIWxLT2hAQEmIwWAT0A/eTEN8wGSIo19o1MwUTAdBgNVHQ4EFgQUz7RZ7ektsj7k
VBx+4EiIL1rXRyswHwYDVR0jBBgwFoAUz7RZ7ektsj7kVBx+4EiIL1rXRyswDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEA5KsBiZ0nBlHzUKATEBxY
+VNHVDzNUx6Fk7glRyMitYwCIDWMCDOFgSY3d4Yl9LJBcch3tSKarr8WjIPBI9n2
x9NF
-----END CERTIFICATE-----
";

/// The same key's, for old.test: X.509 version 1, as `openssl x509 -req` makes one without more.
pub const EC_VERSION_1_CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBITCByQIUfUbvNPlaQ3LNU/MiX85iMnxZxpwwCgYIKoZIzj0EAwIwEzERMA8G
A1UEAwwIb2xkLnRlc3QwIBcNMjYxMTIxMDM0NTQwWhgPMjEyNjEwMjgwMzQ1NDBa
MBMxETAPBgNVBAMMCG9sZC50ZXN0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
DLMF13pdHXdectk2hhRQ2O9QHbe/WDZiE9DnciueueSGzBsAedKUepSFsS09oQEB
JiMFgE9AP3kxDfMBkiKNfTAKBggqhkjOPQQDAgNHADBEAiB00Xrz0YYZqvCP8ucv
dL2PGO4AwLdxhKMOKs/70wpuvgIgNoUyZXuu+Zisj4NmEj9nw8GC4NNbX38OINJl
PoGfQqs=
-----END CERTIFICATE-----
";

/// What `openssl x509 -fingerprint -sha256` says of [`RSA_CERTIFICATE`].
pub const RSA_CERTIFICATE_SHA256: &str =
    "3B00663BE00B712D8BD70C3075990E3C27DC26C22756A3491AC200C058CABC3F";
