//! TLS configuration: trusted roots and the client certificate.
//!
//! The cryptography is that of ring, unless the program passes another crypto provider. It is always selected
//! explicitly, so a default provider that another crate of the program has installed has no effect.

use core::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use rustls::client::WantsClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use super::certificate::{facts, pem_problem, without_mark};
use super::verifier::{Crypto, Verifier};
use crate::config::TlsFiles;
use crate::config::uri::without_zone;

/// The TLS configuration of a connection; see [`Config::tls`](crate::Config::tls).
///
/// ```
/// use phx_proto::Config;
/// use phx_proto::config::{Roots, Tls};
///
/// # fn private_ca(ca_pem: &[u8], cert: &[u8], key: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
/// // A private certificate authority, and a client certificate for the server.
/// let tls = Tls::with_identity(Roots::pem(ca_pem)?, cert, key)?;
/// let config = Config::new("wss://backend.internal/socket/websocket")?.tls(tls);
/// # Ok(())
/// # }
/// // By default the server's certificate is checked against Mozilla's roots.
/// let config = Config::new("wss://example.com/socket/websocket")?;
/// # Ok::<(), phx_proto::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Tls {
    client: Arc<ClientConfig>,
    /// The rest is allocated separately to keep this type small, because every connection has a `Tls`.
    more: Option<Arc<More>>,
}

#[derive(Clone, Default)]
struct More {
    server_name: Option<ServerName<'static>>,
    /// Description of the trusted authorities for errors: `the certificates in ca.pem`.
    trusted: Option<String>,
    /// Description of the client certificate for errors: `device.pem`.
    shown: Option<String>,
}

/// The contents of the files that [`TlsFiles`] names.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Contents {
    /// Reads the files.
    pub(crate) fn read(
        files: &TlsFiles,
        read: impl Fn(&str) -> io::Result<Vec<u8>>,
    ) -> Result<Self, TlsError> {
        if let Some(problem) = files.problem() {
            return Err(TlsError::Identity { problem: problem.to_owned() });
        }
        let read = |path: &String| {
            read(path)
                .map_err(|error| TlsError::File { path: path.clone(), problem: error.to_string() })
        };
        let ca = files.ca_file.as_ref().map(read).transpose()?;
        let identity = match (&files.cert_file, &files.key_file) {
            (Some(chain), Some(key)) => Some((read(chain)?, read(key)?)),
            _ => None,
        };
        Ok(Self { ca, identity })
    }
}

impl Tls {
    /// Creates a configuration that trusts these roots, has no client certificate, and uses ring.
    #[cfg(feature = "ring")]
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        Self::without_identity(builder(&Crypto::ring(), &roots).expect(RING), roots)
    }

    /// Starts a configuration with another crypto provider than ring.
    ///
    /// Without the feature `ring`, which is one of the adapters' default features, ring is not compiled.
    /// The default is then the provider that the program installed with
    /// [`CryptoProvider::install_default`], if there is one.
    ///
    /// ```
    /// # #[cfg(feature = "ring")] {
    /// use std::sync::Arc;
    ///
    /// use phx_proto::config::Tls;
    /// use phx_proto::rustls::crypto::{CryptoProvider, ring};
    ///
    /// // The program's own provider, such as a FIPS module. Here it is ring with one cipher suite.
    /// let provider = ring::default_provider();
    /// let cipher_suites = provider.cipher_suites[..1].to_vec();
    /// let provider = Arc::new(CryptoProvider { cipher_suites, ..provider });
    /// let tls = Tls::builder().provider(provider).build()?;
    /// # let _ = tls;
    /// # }
    /// # Ok::<(), phx_proto::config::TlsError>(())
    /// ```
    pub const fn builder() -> TlsBuilder {
        TlsBuilder { provider: None, roots: None, identity: None }
    }

    fn without_identity(
        builder: ConfigBuilder<ClientConfig, WantsClientCert>,
        roots: Roots,
    ) -> Self {
        let mut tls = Self::of(builder.with_no_client_auth());
        tls.more().trusted = Some(roots.origin);
        tls
    }

    /// Creates a configuration that trusts these roots and has a client certificate: its chain, leaf
    /// first, and its key, both in PEM. A byte order mark is skipped.
    ///
    /// The validity period of the certificate is not checked; the server checks it.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if the certificate or the key is missing, if the key is encrypted, if the certificate
    /// and the key do not belong together, if the certificate is of X.509 version 1, or if there is no crypto
    /// provider.
    pub fn with_identity(roots: Roots, chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Self::named_identity(&Crypto::new(None)?, roots, (chain, key), Names::UNNAMED)
    }

    fn named_identity(
        crypto: &Crypto,
        roots: Roots,
        pem: (&[u8], &[u8]),
        names: Names<'_>,
    ) -> Result<Self, TlsError> {
        let chain = certificates(pem.0, names.chain)?;
        let key = private_key(pem.1, names.key)?;
        let leaf = facts(&chain[0]);
        let subject = leaf.as_ref().and_then(|leaf| leaf.common_name.clone());
        let subject = subject.map(|name| format!(" (CN={name})")).unwrap_or_default();
        if leaf.is_some_and(|leaf| leaf.version == 1) {
            let problem = format!(
                "the certificate{subject} is of X.509 version 1, which is not accepted: sign it \
                 as version 3 with `openssl x509 -req -in device.csr -CA ca.pem -CAkey ca.key -days 365 \
                 -extfile v3.ext -out device.pem`, where v3.ext contains the line basicConstraints=CA:FALSE"
            );
            return Err(TlsError::Pem { what: names.chain.to_owned(), problem });
        }
        let client = builder(crypto, &roots)?.with_client_auth_cert(chain, key);
        let client = client.map_err(|error| TlsError::Identity {
            problem: identity_problem(&error, names, &subject),
        })?;
        let mut tls = Self::of(client);
        let more = tls.more();
        more.trusted = Some(roots.origin);
        more.shown = Some(format!("{}{subject}", names.chain));
        Ok(tls)
    }

    /// Creates the configuration for the `tls` key of a connections document. `read` reads a file. Without
    /// a `ca_file`, Mozilla's roots are trusted.
    ///
    /// ```no_run
    /// use phx_proto::config::{Tls, TlsError};
    /// use phx_proto::service::ConnectionSpec;
    ///
    /// # fn example(spec: &ConnectionSpec) -> Result<(), TlsError> {
    /// let mut config = spec.config().clone();
    /// if let Some(files) = spec.tls_files() {
    ///     config = config.tls(Tls::from_files(files, |path| std::fs::read(path))?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`TlsError`] with the name of the file if it cannot be read or is invalid, and
    /// [`TlsError::NoProvider`] if there is no crypto provider.
    pub fn from_files(
        files: &TlsFiles,
        read: impl Fn(&str) -> io::Result<Vec<u8>>,
    ) -> Result<Self, TlsError> {
        Self::builder().build_from_files(files, read)
    }

    /// Creates the configuration from the contents of the files.
    pub(crate) fn from_contents(
        provider: Option<Arc<CryptoProvider>>,
        files: &TlsFiles,
        contents: &Contents,
    ) -> Result<Self, TlsError> {
        let crypto = Crypto::new(provider.as_deref())?;
        let roots = match (&contents.ca, &files.ca_file) {
            (Some(pem), Some(path)) => Roots::from_pem(pem, path)?,
            _ => Roots::webpki(),
        };
        let tls = match (&contents.identity, &files.cert_file, &files.key_file) {
            (Some((chain, key)), Some(chain_file), Some(key_file)) => {
                let names = Names { chain: chain_file, key: key_file };
                Self::named_identity(&crypto, roots, (chain, key), names)?
            }
            _ => Self::without_identity(builder(&crypto, &roots)?, roots),
        };
        match &files.server_name {
            Some(name) => tls.server_name(name),
            None => Ok(tls),
        }
    }

    fn of(mut client: ClientConfig) -> Self {
        // Without this list, a server that also offers HTTP/2 could choose HTTP/2.
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(client).into()
    }

    /// Sets the name that the server's certificate must have, if it is not the host of the address.
    ///
    /// # Errors
    ///
    /// [`TlsError::Name`] if `name` is neither a DNS name nor an IP address.
    pub fn server_name(mut self, name: &str) -> Result<Self, TlsError> {
        let parsed = ServerName::try_from(name.to_owned());
        let parsed = parsed.map_err(|_| TlsError::Name { name: name.to_owned() })?;
        self.more().server_name = Some(parsed);
        Ok(self)
    }

    fn more(&mut self) -> &mut More {
        Arc::make_mut(self.more.get_or_insert_default())
    }

    fn given_name(&self) -> Option<&ServerName<'static>> {
        self.more.as_ref()?.server_name.as_ref()
    }

    /// The name to verify and to send in SNI for this host: the one set with
    /// [`server_name`](Self::server_name), or the host itself.
    ///
    /// # Errors
    ///
    /// [`TlsError::Name`] if `host` is neither a DNS name nor an IP address.
    pub fn name_for(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        match self.given_name() {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(without_zone(host).to_owned())
                .map_err(|_| TlsError::Name { name: host.to_owned() }),
        }
    }

    /// Description of the trusted authorities for an error message.
    #[cfg(feature = "adapter")]
    pub(crate) fn trusted(&self) -> &str {
        let known = self.more.as_ref().and_then(|more| more.trusted.as_deref());
        known.unwrap_or("the root certificates of the configuration")
    }

    /// Description of the client certificate for an error message, if there is one.
    #[cfg(feature = "adapter")]
    pub(crate) fn shown(&self) -> Option<&str> {
        self.more.as_ref()?.shown.as_deref()
    }

    /// The configuration for rustls.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// The default configuration with Mozilla's roots, created once.
    pub(crate) fn standard() -> Result<&'static Self, TlsError> {
        static STANDARD: OnceLock<Tls> = OnceLock::new();
        if let Some(tls) = STANDARD.get() {
            return Ok(tls);
        }
        let tls = Self::builder().build()?;
        Ok(STANDARD.get_or_init(|| tls))
    }
}

/// A [`Tls`] in the making, from [`Tls::builder`].
#[derive(Clone)]
#[must_use]
pub struct TlsBuilder {
    provider: Option<Arc<CryptoProvider>>,
    roots: Option<Roots>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl TlsBuilder {
    /// The crypto provider for everything: the handshake, the verification of certificates and the client's
    /// key. The default is ring; see [`Tls::builder`]. A FIPS module belongs here; `CryptoProvider::fips`
    /// reports whether all parts of a provider are approved.
    ///
    /// As with ring, RSA keys whose identifier has no parameters are accepted, for certificates of `mix
    /// phx.gen.cert`. The provider's own algorithms verify them.
    pub fn provider(mut self, provider: Arc<CryptoProvider>) -> Self {
        self.provider = Some(provider);
        self
    }

    /// The trusted roots. The default is [`Roots::webpki`].
    pub fn roots(mut self, roots: Roots) -> Self {
        self.roots = Some(roots);
        self
    }

    /// The client certificate: its chain, leaf first, and its key, both in PEM, as in
    /// [`Tls::with_identity`].
    pub fn identity(mut self, chain: &[u8], key: &[u8]) -> Self {
        self.identity = Some((chain.to_vec(), key.to_vec()));
        self
    }

    /// Creates the configuration.
    ///
    /// # Errors
    ///
    /// [`TlsError::Provider`] if the provider cannot be used, [`TlsError::NoProvider`] if there is none, and
    /// the errors of [`Tls::with_identity`].
    pub fn build(self) -> Result<Tls, TlsError> {
        let crypto = Crypto::new(self.provider.as_deref())?;
        let roots = self.roots.unwrap_or_else(Roots::webpki);
        match self.identity {
            Some((chain, key)) => {
                Tls::named_identity(&crypto, roots, (&chain, &key), Names::UNNAMED)
            }
            None => Ok(Tls::without_identity(builder(&crypto, &roots)?, roots)),
        }
    }

    /// Creates the configuration for the `tls` key of a connections document with this provider, like
    /// [`Tls::from_files`]. Roots and a client certificate come only from the files.
    ///
    /// # Errors
    ///
    /// [`TlsError::Provider`] if the provider cannot be used, and the errors of [`Tls::from_files`].
    pub fn build_from_files(
        self,
        files: &TlsFiles,
        read: impl Fn(&str) -> io::Result<Vec<u8>>,
    ) -> Result<Tls, TlsError> {
        Tls::from_contents(self.provider, files, &Contents::read(files, read)?)
    }
}

impl fmt::Debug for TlsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsBuilder").field("roots", &self.roots).finish_non_exhaustive()
    }
}

/// Uses the caller's own configuration unchanged.
impl From<Arc<ClientConfig>> for Tls {
    fn from(client: Arc<ClientConfig>) -> Self {
        Self { client, more: None }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.given_name()).finish_non_exhaustive()
    }
}

/// The trusted certificate authorities.
#[derive(Clone)]
pub struct Roots {
    store: RootCertStore,
    /// Description for errors.
    origin: String,
}

impl Roots {
    /// Mozilla's roots, as of the release of the crate `webpki-roots`.
    #[must_use]
    pub fn webpki() -> Self {
        let store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        Self { store, origin: "Mozilla's root certificates".to_owned() }
    }

    /// The roots of the operating system. This reads files, so call it once and keep the result.
    ///
    /// Invalid certificates of the system are skipped.
    ///
    /// # Errors
    ///
    /// [`TlsError::Native`] if the system has no valid root.
    #[cfg(feature = "tls-native-roots")]
    pub fn native() -> Result<Self, TlsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        let _ = store.add_parsable_certificates(found.certs);
        if store.is_empty() {
            let problem = found.errors.first().map(ToString::to_string);
            return Err(TlsError::Native { problem: problem.unwrap_or_default() });
        }
        Ok(Self { store, origin: "the operating system's root certificates".to_owned() })
    }

    /// Only the roots in a PEM file. Each is a certificate authority, or the self-signed certificate of a
    /// server. A byte order mark is skipped.
    ///
    /// The self-signed certificate of a server must not be marked as an authority (`CA:TRUE`). By default
    /// `openssl req -x509` marks it as one; this command does not:
    ///
    /// ```text
    /// openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 365 \\
    ///   -subj /CN=backend.internal -addext subjectAltName=DNS:backend.internal \\
    ///   -addext basicConstraints=critical,CA:FALSE
    /// ```
    ///
    /// Certificates of `mix phx.gen.cert` work unchanged.
    ///
    /// # Errors
    ///
    /// [`TlsError::Pem`] if the file has no certificate or an invalid one.
    pub fn pem(pem: &[u8]) -> Result<Self, TlsError> {
        Self::from_pem(pem, "the certificate authority")
    }

    /// Like [`pem`](Self::pem), with the name of the file for errors.
    fn from_pem(pem: &[u8], file: &str) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        add(&mut store, pem, file)?;
        let origin = match file {
            "the certificate authority" => "the root certificates of the configuration".to_owned(),
            file => format!("the certificates in {file}"),
        };
        Ok(Self { store, origin })
    }

    /// Adds the roots in a PEM file.
    ///
    /// # Errors
    ///
    /// The errors of [`pem`](Self::pem).
    pub fn and_pem(mut self, pem: &[u8]) -> Result<Self, TlsError> {
        add(&mut self.store, pem, "the certificate authority")?;
        self.origin.push_str(" and the added certificates");
        Ok(self)
    }
}

fn add(store: &mut RootCertStore, pem: &[u8], what: &str) -> Result<(), TlsError> {
    for certificate in certificates(pem, what)? {
        store.add(certificate).map_err(|error| TlsError::Pem {
            what: what.to_owned(),
            problem: format!("it contains an invalid certificate ({error})"),
        })?;
    }
    Ok(())
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots").field("count", &self.store.len()).finish()
    }
}

/// An invalid certificate, key, server name or file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A PEM file is invalid.
    #[error("cannot use {what}: {problem}")]
    Pem {
        /// The name of the file, or a description such as `the key`.
        what: String,
        /// The problem with the file.
        problem: String,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {problem}")]
    File {
        /// Path of the file.
        path: String,
        /// The error of the function that read it.
        problem: String,
    },
    /// The client certificate and its key cannot be used.
    #[error("cannot use the client certificate: {problem}")]
    Identity {
        /// The problem with the certificate or the key.
        problem: String,
    },
    /// A server name is neither a DNS name nor an IP address.
    #[error("{name:?} is neither a DNS name nor an IP address")]
    Name {
        /// The server name.
        name: String,
    },
    /// The crypto provider has no cipher suites or key exchange for TLS 1.2 and 1.3.
    #[error("cannot use the crypto provider: {problem}")]
    Provider {
        /// The error of rustls.
        problem: String,
    },
    /// There is no crypto provider.
    #[error(
        "there is no crypto provider: enable the feature `ring`, or pass one to `Tls::builder().provider(…)`, \
         or install one for the process with `CryptoProvider::install_default`"
    )]
    NoProvider,
    /// The operating system has no valid certificate authorities.
    #[error("the operating system has no valid certificate authority: {problem}")]
    Native {
        /// The first error of the operating system, or empty.
        problem: String,
    },
}

/// Why ring cannot be refused as a provider.
#[cfg(feature = "ring")]
const RING: &str = "ring knows the cipher suites of TLS 1.2 and 1.3";

fn builder(
    crypto: &Crypto,
    roots: &Roots,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    let verifier = Verifier::new(roots.store.clone(), crypto);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&crypto.provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Provider { problem: error.to_string() })?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)))
}

/// The names of a client certificate and its key in an error: their files, if they come from files.
#[derive(Clone, Copy)]
struct Names<'a> {
    chain: &'a str,
    key: &'a str,
}

impl Names<'_> {
    /// For a certificate and a key that come from memory.
    const UNNAMED: Self = Self { chain: "the certificate chain", key: "the key" };
}

/// The file name to show in a suggested command: `what` if it is a file name, or `placeholder`.
fn file<'a>(what: &'a str, placeholder: &'a str) -> &'a str {
    if what.contains(' ') { placeholder } else { what }
}

fn identity_problem(error: &rustls::Error, names: Names<'_>, subject: &str) -> String {
    let Names { chain, key } = names;
    let (cert_file, key_file) = (file(chain, "cert.pem"), file(key, "key.pem"));
    match error {
        rustls::Error::InconsistentKeys(_) => format!(
            "{key} is not the key of the first certificate in {chain}{subject}; these two commands \
             must print the same key: `openssl pkey -in {key_file} -pubout` and `openssl x509 -in \
             {cert_file} -noout -pubkey`"
        ),
        rustls::Error::General(_) => format!(
            "{key} has a key type that is not supported: create another with `openssl genpkey -algorithm \
             EC -pkeyopt ec_paramgen_curve:P-256 -out {key_file}` ({error})"
        ),
        _ => format!("{chain}{subject}: {error}"),
    }
}

fn private_key(pem: &[u8], what: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = without_mark(pem);
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| TlsError::Pem {
        what: what.to_owned(),
        problem: pem_problem(pem, "private key", file(what, "key.pem"))
            .unwrap_or_else(|| format!("it contains no private key ({error})")),
    })
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = without_mark(pem);
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let error = match certificates {
        Ok(certificates) if !certificates.is_empty() => return Ok(certificates),
        Ok(_) => None,
        Err(error) => Some(error),
    };
    let problem = match (pem_problem(pem, "certificate", file(what, "cert.pem")), error) {
        (_, Some(error)) if pem.starts_with(b"-----BEGIN CERTIFICATE-----") => error.to_string(),
        (Some(problem), _) => problem,
        (None, Some(error)) => error.to_string(),
        (None, None) => "it contains no certificate".to_owned(),
    };
    Err(TlsError::Pem { what: what.to_owned(), problem })
}
