//! The certificate verifier of webpki, extended to accept RSA keys whose algorithm identifier has no
//! parameters.
//!
//! RFC 3279 section 2.3.1 requires a NULL as parameters, and Erlang's `public_key` omits it, so the
//! certificates of `mix phx.gen.cert` have none. OpenSSL and curl accept them. The identifier only states
//! that the key is an RSA key, so this does not weaken the check: the same algorithm verifies the same key.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, ServerName,
    SignatureVerificationAlgorithm, UnixTime, alg_id,
};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// An algorithm with the identifier of RSA without parameters.
#[derive(Debug)]
struct WithoutParameters(&'static dyn SignatureVerificationAlgorithm);

/// The object identifier of rsaEncryption, without parameters.
const RSA_WITHOUT_PARAMETERS: AlgorithmIdentifier = AlgorithmIdentifier::from_slice(&[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01,
]);

impl SignatureVerificationAlgorithm for WithoutParameters {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        self.0.verify_signature(public_key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        RSA_WITHOUT_PARAMETERS
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.0.signature_alg_id()
    }

    fn fips(&self) -> bool {
        self.0.fips()
    }
}

type Algorithms = &'static [&'static dyn SignatureVerificationAlgorithm];

/// ring's algorithms, plus a copy of each RSA algorithm for keys without parameters. The second value maps
/// schemes only to those copies, because TLS 1.3 uses only the first algorithm of a scheme. The values are
/// created once.
fn algorithms() -> &'static (WebPkiSupportedAlgorithms, WebPkiSupportedAlgorithms) {
    static MADE: OnceLock<(WebPkiSupportedAlgorithms, WebPkiSupportedAlgorithms)> = OnceLock::new();
    MADE.get_or_init(|| {
        let known = ring::default_provider().signature_verification_algorithms;
        let all = concat(known.all, without_parameters(known.all));
        let mut mapping = Vec::new();
        let mut second = Vec::new();
        for (scheme, algorithms) in known.mapping {
            let without = without_parameters(algorithms);
            mapping.push((*scheme, concat(algorithms, without)));
            if !without.is_empty() {
                second.push((*scheme, without));
            }
        }
        (
            WebPkiSupportedAlgorithms { all, mapping: mapping.leak() },
            WebPkiSupportedAlgorithms { all, mapping: second.leak() },
        )
    })
}

fn without_parameters(algorithms: Algorithms) -> Algorithms {
    let rsa = algorithms.iter().filter(|known| known.public_key_alg_id() == alg_id::RSA_ENCRYPTION);
    let wrapped = rsa.map(|known| -> &'static dyn SignatureVerificationAlgorithm {
        Box::leak(Box::new(WithoutParameters(*known)))
    });
    wrapped.collect::<Vec<_>>().leak()
}

fn concat(one: Algorithms, two: Algorithms) -> Algorithms {
    [one, two].concat().leak()
}

/// The provider of ring with the algorithms of [`algorithms`].
pub(super) fn provider() -> Arc<CryptoProvider> {
    let signature_verification_algorithms = algorithms().0;
    Arc::new(CryptoProvider { signature_verification_algorithms, ..ring::default_provider() })
}

/// The verifier; see the [module](self).
#[derive(Debug)]
pub(super) struct Verifier(Arc<WebPkiServerVerifier>);

impl Verifier {
    /// Creates a verifier for these roots, of which there must be at least one.
    pub(super) fn new(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Self {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        Self(verifier.build().expect("there is a root, and there are no revocation lists"))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.0.verify_tls13_signature(message, cert, dss) {
            Err(Error::InvalidCertificate(
                CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
                    ref public_key_algorithm_id,
                    ..
                },
            )) if **public_key_algorithm_id == *RSA_WITHOUT_PARAMETERS => {
                verify_tls13_signature(message, cert, dss, &algorithms().1)
            }
            verified => verified,
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every algorithm of ring is unchanged, and only RSA algorithms are added.
    #[test]
    fn algorithms_are_added_only_for_rsa() {
        let known = ring::default_provider().signature_verification_algorithms;
        let (ours, second) = algorithms();
        assert!(
            ours.all[..known.all.len()].iter().zip(known.all).all(|(a, b)| core::ptr::eq(*a, *b))
        );
        let added = &ours.all[known.all.len()..];
        let rsa = |algorithm: &&&dyn SignatureVerificationAlgorithm| {
            algorithm.public_key_alg_id() == alg_id::RSA_ENCRYPTION
        };
        assert_eq!(added.len(), known.all.iter().filter(rsa).count());
        assert!(added.iter().all(|added| added.public_key_alg_id() == RSA_WITHOUT_PARAMETERS));
        assert_eq!(ours.mapping.len(), known.mapping.len());
        assert!(second.mapping.iter().all(|(_, algorithms)| !algorithms.is_empty()));
        assert!(second.mapping.len() >= 6, "PSS and PKCS #1 with three hashes each");
    }
}
