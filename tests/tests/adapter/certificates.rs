//! A certificate authority for one test, and the certificates that it signs.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::rt::phx::rustls::crypto::{CryptoProvider, ring};
use crate::rt::phx::rustls::pki_types::PrivateKeyDer;
use crate::rt::phx::rustls::server::WebPkiClientVerifier;
use crate::rt::phx::rustls::{RootCertStore, ServerConfig};

pub(crate) struct Authority {
    pub(crate) pem: String,
    roots: RootCertStore,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub(crate) struct Identity {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::named("authority")
    }

    pub(crate) fn named(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        Self { pem: pem("CERTIFICATE", certificate.der()), roots, issuer: Issuer::new(params, key) }
    }

    /// The TLS configuration of a server whose certificate has this name.
    pub(crate) fn server(&self, name: &str) -> Arc<ServerConfig> {
        self.server_until(name, 2100, false)
    }

    /// Like `server`, but the client must present a certificate of this authority.
    pub(crate) fn server_for_known_clients(&self, name: &str) -> Arc<ServerConfig> {
        self.server_until(name, 2100, true)
    }

    pub(crate) fn server_until(
        &self,
        name: &str,
        year: i32,
        known_clients: bool,
    ) -> Arc<ServerConfig> {
        self.server_with(name, (2000, year), known_clients, ring::default_provider())
    }

    /// Like `server`, with a certificate that is valid between these years.
    pub(crate) fn server_between(&self, name: &str, from: i32, until: i32) -> Arc<ServerConfig> {
        self.server_with(name, (from, until), false, ring::default_provider())
    }

    /// Like `server`, with this crypto provider.
    pub(crate) fn server_using(&self, name: &str, provider: CryptoProvider) -> Arc<ServerConfig> {
        self.server_with(name, (2000, 2100), false, provider)
    }

    fn server_with(
        &self,
        name: &str,
        years: (i32, i32),
        known_clients: bool,
        provider: CryptoProvider,
    ) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(provider);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if known_clients {
            let roots = Arc::new(self.roots.clone());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Arc::new(builder.with_single_cert(vec![certificate.der().clone()], key).unwrap())
    }

    pub(crate) fn client(&self, name: &str) -> Identity {
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            chain: pem("CERTIFICATE", certificate.der()),
            key: pem("PRIVATE KEY", key.serialized_der()),
        }
    }

    /// The authority's own certificate, for a rustls configuration of the caller's.
    pub(crate) fn roots(&self) -> RootCertStore {
        self.roots.clone()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}
