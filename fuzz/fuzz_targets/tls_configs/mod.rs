//! Configurations with throw-away certificates.
#![allow(dead_code, reason = "each target uses a part")]

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

pub struct Configs {
    /// Requires a certificate.
    pub server: Arc<ServerConfig>,
    /// Has one.
    pub client: Arc<ClientConfig>,
    pub client_of_tls12: Arc<ClientConfig>,
}

impl Configs {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let roots = Arc::new(roots);
        let leaf = || {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(["a.test".to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &ca).unwrap();
            let key = PrivatePkcs8KeyDer::from(key.serialize_der());
            (vec![certificate.der().clone()], key.into())
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let (chain, key) = leaf();
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap();
        let client = |version: &'static SupportedProtocolVersion| {
            let (chain, key) = leaf();
            let mut client = ClientConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots.clone())
                .with_client_auth_cert(chain, key)
                .unwrap();
            client.resumption = Resumption::disabled();
            Arc::new(client)
        };
        Self {
            server: Arc::new(server),
            client: client(&TLS13),
            client_of_tls12: client(&TLS12),
        }
    }
}
