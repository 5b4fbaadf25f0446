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

use super::certificate::{facts, pem_problem, without_mark};
use super::verifier::{Verifier, provider};
use crate::config::TlsFiles;
use crate::config::uri::without_zone;

/// The TLS side of a configuration; see [`Config::tls`](crate::Config::tls).
///
/// ```
/// use phx_proto::Config;
/// use phx_proto::config::{Roots, Tls};
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
    /// The authorities that are trusted, in words: `those of ca.pem`.
    trusted: Option<String>,
    /// The certificate that is shown: `device.pem`.
    shown: Option<String>,
}

/// The contents of the files of [`TlsFiles`].
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Contents {
    /// Reads every file that is named.
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
    /// Trusts these roots and shows no certificate.
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        let trusted = roots.origin.clone();
        let mut tls = Self::of(builder(roots).with_no_client_auth());
        tls.more().trusted = Some(trusted);
        tls
    }

    /// Trusts these roots and shows a certificate: its chain, leaf first, and its key, in PEM. A byte
    /// order mark before either is skipped.
    ///
    /// Whether the certificate is still valid is not looked at: the server says so.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when there is no certificate or no key, when the key is encrypted, when they do
    /// not belong together, and for a certificate of X.509 version 1.
    pub fn with_identity(roots: Roots, chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let names = Names { chain: "the certificate chain", key: "the key" };
        Self::showing(roots, (chain, key), names)
    }

    fn showing(roots: Roots, pem: (&[u8], &[u8]), names: Names<'_>) -> Result<Self, TlsError> {
        let chain = certificates(pem.0, names.chain)?;
        let key = private_key(pem.1, names.key)?;
        let leaf = facts(&chain[0]);
        let subject = leaf.as_ref().and_then(|leaf| leaf.common_name.clone());
        let subject = subject.map(|name| format!(" (CN={name})")).unwrap_or_default();
        if leaf.is_some_and(|leaf| leaf.version == 1) {
            let problem = format!(
                "the certificate{subject} is of X.509 version 1, which is not accepted: sign it \
                 as version 3, `openssl x509 -req -in device.csr -CA ca.pem -CAkey ca.key -days 365 \
                 -extfile v3.ext -out device.pem` with the line basicConstraints=CA:FALSE in v3.ext"
            );
            return Err(TlsError::Pem { what: names.chain.to_owned(), problem });
        }
        let trusted = roots.origin.clone();
        let client = builder(roots).with_client_auth_cert(chain, key);
        let client = client.map_err(|error| TlsError::Identity {
            problem: identity_problem(&error, names, &subject),
        })?;
        let mut tls = Self::of(client);
        let more = tls.more();
        more.trusted = Some(trusted);
        more.shown = Some(format!("{}{subject}", names.chain));
        Ok(tls)
    }

    /// What the `tls` key of a document of connections names, with a function that reads a file.
    /// Without a `ca_file` it is Mozilla's roots that are trusted.
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
    /// [`TlsError`], naming the file, for one that cannot be read and for whatever is wrong with what
    /// is in it.
    pub fn from_files(
        files: &TlsFiles,
        read: impl Fn(&str) -> io::Result<Vec<u8>>,
    ) -> Result<Self, TlsError> {
        Self::from_contents(files, &Contents::read(files, read)?)
    }

    pub(crate) fn from_contents(files: &TlsFiles, contents: &Contents) -> Result<Self, TlsError> {
        let roots = match (&contents.ca, &files.ca_file) {
            (Some(pem), Some(path)) => Roots::from_pem(pem, path)?,
            _ => Roots::webpki(),
        };
        let tls = match (&contents.identity, &files.cert_file, &files.key_file) {
            (Some((chain, key)), Some(chain_file), Some(key_file)) => {
                let names = Names { chain: chain_file, key: key_file };
                Self::showing(roots, (chain, key), names)?
            }
            _ => Self::new(roots),
        };
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

    /// Whose certificates are trusted, in words.
    #[cfg(feature = "adapter")]
    pub(crate) fn trusted(&self) -> &str {
        let known = self.more.as_ref().and_then(|more| more.trusted.as_deref());
        known.unwrap_or("those that the configuration names")
    }

    /// The certificate that is shown, in words, if one is known of.
    #[cfg(feature = "adapter")]
    pub(crate) fn shown(&self) -> Option<&str> {
        self.more.as_ref()?.shown.as_deref()
    }

    /// The configuration for rustls.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
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
pub struct Roots {
    store: RootCertStore,
    /// In words, for errors.
    origin: String,
}

impl Roots {
    /// Mozilla's, as they were when the crate `webpki-roots` was published.
    #[must_use]
    pub fn webpki() -> Self {
        let store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        Self { store, origin: "Mozilla's".to_owned() }
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
        let mut store = RootCertStore::empty();
        let _ = store.add_parsable_certificates(found.certs);
        if store.is_empty() {
            let problem = found.errors.first().map(ToString::to_string);
            return Err(TlsError::Native { problem: problem.unwrap_or_default() });
        }
        Ok(Self { store, origin: "the operating system's".to_owned() })
    }

    /// Only those in a PEM file, each a certificate authority, or a self-signed certificate that a
    /// server shows as its own. A byte order mark before it is skipped.
    ///
    /// A server's own certificate works only if it does not say that it is an authority
    /// (`CA:TRUE`), as those of `openssl req -x509` do unless they are told otherwise:
    ///
    /// ```text
    /// openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 365 \\
    ///   -subj /CN=backend.internal -addext subjectAltName=DNS:backend.internal \\
    ///   -addext basicConstraints=critical,CA:FALSE
    /// ```
    ///
    /// Those of `mix phx.gen.cert` work as they are.
    ///
    /// # Errors
    ///
    /// [`TlsError::Pem`] when there is none, or one makes no sense.
    pub fn pem(pem: &[u8]) -> Result<Self, TlsError> {
        Self::from_pem(pem, "the certificate authority")
    }

    /// With the name of the file.
    fn from_pem(pem: &[u8], file: &str) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        add(&mut store, pem, file)?;
        let origin = match file {
            "the certificate authority" => "those that the configuration names".to_owned(),
            file => format!("those of {file}"),
        };
        Ok(Self { store, origin })
    }

    /// These and those in a PEM file.
    ///
    /// # Errors
    ///
    /// As [`pem`](Self::pem).
    pub fn and_pem(mut self, pem: &[u8]) -> Result<Self, TlsError> {
        add(&mut self.store, pem, "the certificate authority")?;
        self.origin.push_str(" and those that were added");
        Ok(self)
    }
}

fn add(store: &mut RootCertStore, pem: &[u8], what: &str) -> Result<(), TlsError> {
    for certificate in certificates(pem, what)? {
        store.add(certificate).map_err(|error| TlsError::Pem {
            what: what.to_owned(),
            problem: format!("a certificate in it makes no sense ({error})"),
        })?;
    }
    Ok(())
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots").field("count", &self.store.len()).finish()
    }
}

/// What is wrong with certificates, keys or names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// PEM that cannot be used.
    #[error("{what} cannot be used: {problem}")]
    Pem {
        /// The file, or which one it is.
        what: String,
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
    #[error("the certificate cannot be shown: {problem}")]
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
    let provider = provider();
    let verifier = Verifier::new(roots.store, Arc::clone(&provider));
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows the cipher suites of TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
}

/// What the two parts of an identity are called in an error: by their files, if they have any.
#[derive(Clone, Copy)]
struct Names<'a> {
    chain: &'a str,
    key: &'a str,
}

/// What a command is given: a file that is known, or one that stands for it.
fn file<'a>(what: &'a str, else_file: &'a str) -> &'a str {
    if what.contains(' ') { else_file } else { what }
}

fn identity_problem(error: &rustls::Error, names: Names<'_>, subject: &str) -> String {
    let Names { chain, key } = names;
    let (cert_file, key_file) = (file(chain, "cert.pem"), file(key, "key.pem"));
    match error {
        rustls::Error::InconsistentKeys(_) => format!(
            "{key} is not the key of the first certificate in {chain}{subject}; these two are \
             equal when it is: `openssl pkey -in {key_file} -pubout` and `openssl x509 -in \
             {cert_file} -noout -pubkey`"
        ),
        rustls::Error::General(_) => format!(
            "{key} is of a kind that is not spoken here: make another, `openssl genpkey -algorithm \
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
            .unwrap_or_else(|| format!("there is no private key in it ({error})")),
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
        (None, None) => "there is no certificate in it".to_owned(),
    };
    Err(TlsError::Pem { what: what.to_owned(), problem })
}
