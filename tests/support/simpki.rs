//! Certificates for simulated networks, where a run has to be the same in every process.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

use std::sync::OnceLock;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SerialNumber, date_time_ymd,
};
use wsloop::tls::{Identity, Roots};

/// Certificates whose lengths, and those of their signatures, are the same in every process.
pub struct Pki {
    ca: String,
    leaves: [(String, String); 2],
}

impl Pki {
    pub fn get() -> &'static Self {
        static PKI: OnceLock<Pki> = OnceLock::new();
        PKI.get_or_init(Self::new)
    }

    fn new() -> Self {
        let key = || KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut ca = params(Vec::new(), 1);
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = CertifiedIssuer::self_signed(ca, key()).unwrap();
        let leaf = |serial| {
            let names = ["n0.test", "n1.test", "x.test"].map(str::to_owned);
            let mut leaf = params(names.to_vec(), serial);
            leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            let key = key();
            let certificate = leaf.signed_by(&key, &ca).unwrap();
            (certificate.pem(), key.serialize_pem())
        };
        Self {
            leaves: [leaf(2), leaf(3)],
            ca: ca.pem(),
        }
    }

    pub fn identity(&self, which: usize) -> Identity {
        let (certificate, key) = &self.leaves[which];
        Identity::from_pem(certificate, key).unwrap()
    }

    pub fn roots(&self) -> Roots {
        Roots::from_pem(&self.ca).unwrap()
    }
}

fn params(names: Vec<String>, serial: u8) -> CertificateParams {
    let mut params = CertificateParams::new(names).unwrap();
    params.serial_number = Some(SerialNumber::from_slice(&[serial]));
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(2090, 1, 1);
    params
}
