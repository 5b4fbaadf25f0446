//! The certificate verifier of webpki, extended to accept RSA keys whose algorithm identifier has no
//! parameters.
//!
//! RFC 3279 section 2.3.1 requires a NULL as parameters, and Erlang's `public_key` omits it, so the
//! certificates of `mix phx.gen.cert` have none. OpenSSL and curl accept them. The identifier only states
//! that the key is an RSA key, so this does not weaken the check: the same algorithm verifies the same key.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, ServerName,
    SignatureVerificationAlgorithm, UnixTime, alg_id,
};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::config::TlsError;
use crate::sync::Mutex;

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

/// The algorithms of a provider, plus a copy of each RSA algorithm for keys without parameters.
#[derive(Clone, Copy, Debug)]
struct Extended {
    algorithms: WebPkiSupportedAlgorithms,
    /// Maps schemes only to the copies, because TLS 1.3 uses only the first algorithm of a scheme.
    copies: WebPkiSupportedAlgorithms,
}

/// Extends the algorithms of a provider. rustls requires them to live forever, so they are created only once
/// for each list of algorithms, which lives forever too.
fn extend(known: WebPkiSupportedAlgorithms) -> Extended {
    type Made = (WebPkiSupportedAlgorithms, Extended);
    static MADE: Mutex<Vec<Made>> = Mutex::new(Vec::new());
    let find = |made: &[Made]| {
        let is_known = |of: &WebPkiSupportedAlgorithms| {
            core::ptr::eq(of.all, known.all) && core::ptr::eq(of.mapping, known.mapping)
        };
        made.iter().find(|(of, _)| is_known(of)).map(|(_, extended)| *extended)
    };
    if let Some(extended) = find(&MADE.lock()) {
        return extended;
    }
    // The algorithms may be code of the application, so they are not called under the lock.
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
    let extended = Extended {
        algorithms: WebPkiSupportedAlgorithms { all, mapping: mapping.leak() },
        copies: WebPkiSupportedAlgorithms { all, mapping: second.leak() },
    };
    let mut made = MADE.lock();
    find(&made).unwrap_or_else(|| {
        made.push((known, extended));
        extended
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

/// A crypto provider with the algorithms of [`Extended`].
pub(super) struct Crypto {
    pub(super) provider: Arc<CryptoProvider>,
    copies: WebPkiSupportedAlgorithms,
}

impl Crypto {
    /// The crypto of this provider. Without one: ring, or without the feature `ring` the provider that
    /// the program installed for the process.
    pub(super) fn new(provider: Option<&CryptoProvider>) -> Result<Self, TlsError> {
        if let Some(provider) = provider {
            return Ok(Self::of(provider));
        }
        #[cfg(feature = "ring")]
        return Ok(Self::ring());
        #[cfg(not(feature = "ring"))]
        CryptoProvider::get_default().map(|provider| Self::of(provider)).ok_or(TlsError::NoProvider)
    }

    #[cfg(feature = "ring")]
    pub(super) fn ring() -> Self {
        Self::of(&rustls::crypto::ring::default_provider())
    }

    fn of(provider: &CryptoProvider) -> Self {
        let Extended { algorithms, copies } = extend(provider.signature_verification_algorithms);
        let provider =
            CryptoProvider { signature_verification_algorithms: algorithms, ..provider.clone() };
        Self { provider: Arc::new(provider), copies }
    }
}

/// The verifier; see the [module](self).
#[derive(Debug)]
pub(super) struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
    /// See [`Extended::copies`].
    copies: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// Creates a verifier for these roots, of which there must be at least one.
    pub(super) fn new(roots: RootCertStore, crypto: &Crypto) -> Self {
        let (roots, provider) = (Arc::new(roots), Arc::clone(&crypto.provider));
        let webpki = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
        let webpki = webpki.expect("there is a root, and there are no revocation lists");
        Self { webpki, copies: crypto.copies }
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
        self.webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.webpki.verify_tls13_signature(message, cert, dss) {
            Err(Error::InvalidCertificate(
                CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
                    ref public_key_algorithm_id,
                    ..
                },
            )) if **public_key_algorithm_id == *RSA_WITHOUT_PARAMETERS => {
                verify_tls13_signature(message, cert, dss, &self.copies)
            }
            verified => verified,
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

#[cfg(all(test, feature = "ring"))]
mod tests {
    use rustls::crypto::ring;

    use super::*;

    /// Every algorithm of ring is unchanged, and only RSA algorithms are added.
    #[test]
    fn algorithms_are_added_only_for_rsa() {
        let known = ring::default_provider().signature_verification_algorithms;
        let Extended { algorithms: ours, copies: second } = extend(known);
        assert!(core::ptr::eq(ours.all, extend(known).algorithms.all), "they are created once");
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

#[cfg(all(test, not(feature = "ring")))]
mod without_ring {
    use rustls::crypto::{GetRandomFailed, KeyProvider, SecureRandom};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::sign::SigningKey;

    use super::*;

    #[derive(Debug)]
    struct Nothing;

    impl SecureRandom for Nothing {
        fn fill(&self, _bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
            Err(GetRandomFailed)
        }
    }

    impl KeyProvider for Nothing {
        fn load_private_key(
            &self,
            _key: PrivateKeyDer<'static>,
        ) -> Result<Arc<dyn SigningKey>, Error> {
            Err(Error::General("no keys".to_owned()))
        }
    }

    /// The default is the provider that the program installed. Without one there is an error.
    #[test]
    fn installed_provider_is_the_default() {
        assert_eq!(Crypto::new(None).err(), Some(TlsError::NoProvider));
        let installed = CryptoProvider {
            cipher_suites: Vec::new(),
            kx_groups: Vec::new(),
            signature_verification_algorithms: WebPkiSupportedAlgorithms { all: &[], mapping: &[] },
            secure_random: &Nothing,
            key_provider: &Nothing,
        };
        installed.install_default().expect("no other test installs one");
        assert!(Crypto::new(None).expect("there is one").provider.cipher_suites.is_empty());
    }
}
