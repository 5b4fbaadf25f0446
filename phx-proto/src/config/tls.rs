//! Whom a `wss://` connection trusts, and how it shows itself.
//!
//! The cryptography is always that of ring, named explicitly: nothing depends on which provider
//! some other crate of the program has installed.

use core::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use crate::config::uri::without_zone;
use crate::service::document::TlsFiles;

/// The TLS side of a configuration; see [`Config::tls`](crate::Config::tls).
///
/// ```
/// use phx_proto::{Config, Roots, Tls};
///
/// # fn private_ca(ca_pem: &[u8], cert: &[u8], key: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
/// // A private certificate authority, and a certificate to show to the server.
/// let tls = Tls::with_identity(Roots::pem(ca_pem)?, cert, key)?;
/// let config = Config::new("wss://backend.internal/socket/websocket")?.tls(tls);
/// # Ok(())
/// # }
/// // With neither, the server's certificate is checked against Mozilla's roots.
/// let config = Config::new("wss://example.com/socket/websocket")?;
/// # Ok::<(), phx_proto::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Tls {
    client: Arc<ClientConfig>,
    /// Apart, because few have any of it and every connection would have the room for it.
    more: Option<Arc<More>>,
}

#[derive(Clone, Default)]
struct More {
    server_name: Option<ServerName<'static>>,
    /// What it was made of, when that was files: rustls' configurations cannot be compared.
    files: Option<Contents>,
}

/// The contents of the files of [`TlsFiles`].
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    /// Trusts these roots and shows no certificate.
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        Self::of(builder(roots).with_no_client_auth())
    }

    /// Trusts these roots and shows a certificate: its chain, leaf first, and its key, in PEM.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when there is no certificate or no key, or they do not belong together.
    pub fn with_identity(roots: Roots, chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = certificates(chain, "the certificate chain")?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| TlsError::Pem { what: "the key", problem: error.to_string() })?;
        let client = builder(roots).with_client_auth_cert(chain, key);
        client.map(Self::of).map_err(|error| TlsError::Identity { problem: error.to_string() })
    }

    /// What the `tls` key of a document of connections names, with a function that reads a file.
    /// Without a `ca_file` it is Mozilla's roots that are trusted.
    ///
    /// ```no_run
    /// use phx_proto::{ConnectionSpec, Tls, TlsError};
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
    /// [`TlsError::File`], naming the file, and whatever is wrong with what is in it.
    pub fn from_files(
        files: &TlsFiles,
        read: impl Fn(&str) -> io::Result<Vec<u8>>,
    ) -> Result<Self, TlsError> {
        let read = |path: &String| {
            read(path)
                .map_err(|error| TlsError::File { path: path.clone(), problem: error.to_string() })
        };
        let contents = Contents {
            ca: files.ca_file.as_ref().map(read).transpose()?,
            identity: match (&files.cert_file, &files.key_file) {
                (Some(chain), Some(key)) => Some((read(chain)?, read(key)?)),
                // Reading the document has seen to it that there is none without the other.
                _ => None,
            },
        };
        let roots = match &contents.ca {
            Some(pem) => Roots::pem(pem)?,
            None => Roots::webpki(),
        };
        let mut tls = match &contents.identity {
            Some((chain, key)) => Self::with_identity(roots, chain, key)?,
            None => Self::new(roots),
        };
        tls.more().files = Some(contents);
        match &files.server_name {
            Some(name) => tls.server_name(name),
            None => Ok(tls),
        }
    }

    fn of(mut client: ClientConfig) -> Self {
        // A server that offers HTTP/2 too would otherwise be free to choose it.
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(client).into()
    }

    /// The name that the server's certificate must bear, when it is not the host of the address.
    ///
    /// # Errors
    ///
    /// [`TlsError::Name`] for what is neither a DNS name nor an IP address.
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

    /// The name to verify for this host, and to announce: the given one, or the host's own.
    ///
    /// # Errors
    ///
    /// [`TlsError::Name`] for a host that is neither a DNS name nor an IP address.
    pub fn name_for(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        match self.given_name() {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(without_zone(host).to_owned())
                .map_err(|_| TlsError::Name { name: host.to_owned() }),
        }
    }

    /// The configuration for rustls.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// Whether both were made of files with the same contents, or are the very same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let files = |tls: &Self| tls.more.clone().filter(|more| more.files.is_some());
        let same_files = match (files(self), files(other)) {
            (Some(one), Some(two)) => one.files == two.files,
            _ => false,
        };
        self.given_name() == other.given_name()
            && (same_files || Arc::ptr_eq(&self.client, &other.client))
    }

    /// What is used when nothing else is configured: Mozilla's roots, made once.
    pub(crate) fn standard() -> &'static Self {
        static STANDARD: OnceLock<Tls> = OnceLock::new();
        STANDARD.get_or_init(|| Self::new(Roots::webpki()))
    }
}

/// A configuration of the caller's own, used as it is.
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

/// The certificate authorities that are trusted to name servers.
#[derive(Clone)]
pub struct Roots(RootCertStore);

impl Roots {
    /// Mozilla's, as they were when the crate `webpki-roots` was published.
    #[must_use]
    pub fn webpki() -> Self {
        Self(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
    }

    /// Those of the operating system. Reads files, so make it once and keep it.
    ///
    /// Certificates of the system that make no sense are left out.
    ///
    /// # Errors
    ///
    /// [`TlsError::Native`] when the system has none that can be used.
    #[cfg(feature = "tls-native-roots")]
    pub fn native() -> Result<Self, TlsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let _ = roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let problem = found.errors.first().map(ToString::to_string);
            return Err(TlsError::Native { problem: problem.unwrap_or_default() });
        }
        Ok(Self(roots))
    }

    /// Only those in a PEM file: a private certificate authority, or a server's own certificate.
    ///
    /// # Errors
    ///
    /// [`TlsError::Pem`] when there is none, or one makes no sense.
    pub fn pem(pem: &[u8]) -> Result<Self, TlsError> {
        Self(RootCertStore::empty()).and_pem(pem)
    }

    /// These and those in a PEM file.
    ///
    /// # Errors
    ///
    /// As [`pem`](Self::pem).
    pub fn and_pem(mut self, pem: &[u8]) -> Result<Self, TlsError> {
        const WHAT: &str = "the certificate authority";
        for certificate in certificates(pem, WHAT)? {
            self.0
                .add(certificate)
                .map_err(|error| TlsError::Pem { what: WHAT, problem: error.to_string() })?;
        }
        Ok(self)
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots").field("count", &self.0.len()).finish()
    }
}

/// What is wrong with certificates, keys or names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// PEM that cannot be used.
    #[error("{what} cannot be used: {problem}")]
    Pem {
        /// Which one.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A file that cannot be read.
    #[error("{path} cannot be read: {problem}")]
    File {
        /// Its path.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A certificate and a key that cannot be shown.
    #[error("the certificate and its key cannot be used: {problem}")]
    Identity {
        /// What is wrong with them.
        problem: String,
    },
    /// What no certificate can bear.
    #[error("{name:?} is neither a DNS name nor an IP address")]
    Name {
        /// The name.
        name: String,
    },
    /// The operating system has no certificate authorities.
    #[error("the operating system has no certificate authority that can be used: {problem}")]
    Native {
        /// What it said, if anything.
        problem: String,
    },
}

fn builder(roots: Roots) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows the cipher suites of TLS 1.2 and 1.3")
        .with_root_certificates(roots.0)
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(TlsError::Pem { what, problem: "there is no certificate in it".to_owned() })
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(TlsError::Pem { what, problem: error.to_string() }),
    }
}
