//! Named connections that are read from a document.
//!
//! ```text
//!   text ─▶ Node (every key kept) ─▶ ${variables} ─▶ each key alone ─▶ Connection and Options
//!                │                        │                │                    │ addresses, headers
//!                │                        │                │                    ▼
//!                └──────── problems, with connection and key ◀──────── one ConnectionSpec each
//! ```
//!
//! The reader returns either all specifications or all problems.
//!
//! The document is
//!
//! ```json
//! {"connections": {"backend_service": {"uri": "wss://example.com/socket/websocket"}}}
//! ```
//!
//! and the keys of a connection are those of [`ConnectionSpec`]. The caller passes a function that
//! looks up variables, so reading a document accesses neither the environment nor files.

mod changes;
mod connection;
mod deserialize;
mod error;
mod node;
mod reader;
#[cfg(feature = "schema")]
mod schema;
mod spec;
mod values;
mod variables;

use std::collections::BTreeMap;
#[cfg(feature = "tls")]
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer};
use serde_json::Value;

pub use changes::ConnectionChanges;
pub use error::{ConnectionsError, Problem, ProblemKind};
pub use spec::ConnectionSpec;

#[cfg(feature = "tls")]
use crate::config::tls::{Contents, Tls};
use node::Node;

/// Named connections with their configurations, from a document.
///
/// ```
/// use phx_proto::service::Connections;
///
/// let text = r#"{"connections": {
///     "backend_service": {
///         "uri": "${PHOENIX_BACKEND_URL:-ws://localhost:4000/socket/websocket}",
///         "params": {"token": "${PHOENIX_AUTH_TOKEN}"},
///         "auto_join_channels": ["room:lobby", ["room:vip", {"level": 3}]]
///     }
/// }}"#;
/// let environment = |name: &str| (name == "PHOENIX_AUTH_TOKEN").then(|| "s3cret".to_owned());
/// let connections = Connections::from_json(text, environment)?;
/// let spec = connections.get("backend_service").unwrap();
/// assert_eq!(spec.config().uri().host(), "localhost");
/// assert!(!format!("{connections:?}").contains("s3cret"));
///
/// // Without the variable, the error names the place and what to do.
/// let error = Connections::from_json(text, |_| None).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "connection \"backend_service\", key \"params\": the variable PHOENIX_AUTH_TOKEN is not \
///      set: set it, or write ${PHOENIX_AUTH_TOKEN:-default}"
/// );
/// # Ok::<(), phx_proto::service::ConnectionsError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Connections {
    specs: BTreeMap<String, ConnectionSpec>,
}

impl Connections {
    /// Makes an empty set of connections.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a JSON document. `lookup` returns the value of a variable `${NAME}`; a program passes
    /// its environment: `|name| std::env::var(name).ok()`. Variables may occur in every string inside the
    /// value of a connection's key, including names such as topics and headers.
    ///
    /// ```
    /// use phx_proto::service::Connections;
    ///
    /// let text = r#"{"connections": {"backend": {"uri": "wss://${HOST}/socket/websocket"}}}"#;
    /// let lookup = |name: &str| (name == "HOST").then(|| "example.com".to_owned());
    /// let connections = Connections::from_json(text, lookup)?;
    /// assert_eq!(connections.get("backend").unwrap().config().uri().host(), "example.com");
    /// # Ok::<(), phx_proto::service::ConnectionsError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConnectionsError`] with every problem of the document.
    pub fn from_json(
        text: &str,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConnectionsError> {
        let document = Node::from_json(text).map_err(|error| unreadable(error.to_string()))?;
        Self::from_node(document, &lookup)
    }

    /// Reads a document of any self-describing format of serde. The format decides which of two
    /// equal keys counts; [`from_json`](Self::from_json) reports them as a problem.
    ///
    /// If the text is not valid in its format, the error does not contain the format's own message, because
    /// some formats quote the text. To show that message, parse the text to a value of the format first,
    /// and pass that value.
    ///
    /// ```
    /// use phx_proto::service::Connections;
    ///
    /// let document = serde_json::json!({"connections": {"backend": {"uri": "wss://${HOST}/"}}});
    /// let lookup = |name: &str| (name == "HOST").then(|| "example.com".to_owned());
    /// let connections = Connections::deserialize(document, lookup)?;
    /// assert_eq!(connections.len(), 1);
    /// # Ok::<(), phx_proto::service::ConnectionsError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The same as [`from_json`](Self::from_json).
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConnectionsError> {
        let invalid = |_| unreadable("it is not valid in its format".to_owned());
        let document = Value::deserialize(deserializer).map_err(invalid)?;
        Self::from_node(Node::from_value(document), &lookup)
    }

    fn from_node(
        document: Node,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConnectionsError> {
        reader::document(document, lookup).map(|specs| Self { specs })
    }

    /// Adds a connection. It replaces one with the same name.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, spec: impl Into<ConnectionSpec>) -> Self {
        self.specs.insert(name.into(), spec.into());
        self
    }

    /// Reads the files that `tls` keys name. `read` reads one file; a program passes `|path|
    /// std::fs::read(path)`. The cryptography is that of ring; see
    /// [`load_tls_with`](Self::load_tls_with).
    ///
    /// ```
    /// use std::io;
    ///
    /// use phx_proto::service::Connections;
    ///
    /// let text = r#"{"connections": {"backend": {
    ///     "uri": "wss://example.com/", "tls": {"ca_file": "ca.pem"}}}}"#;
    /// let connections = Connections::from_json(text, |_| None)?;
    /// let missing = |_: &str| Err(io::Error::from(io::ErrorKind::NotFound));
    /// let error = connections.load_tls(missing).unwrap_err();
    /// assert_eq!(error.problems()[0].key.as_deref(), Some("tls"));
    /// # Ok::<(), phx_proto::service::ConnectionsError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConnectionsError`] with every file that cannot be used.
    #[cfg(feature = "tls")]
    pub fn load_tls(
        self,
        read: impl Fn(&str) -> std::io::Result<Vec<u8>>,
    ) -> Result<Self, ConnectionsError> {
        self.load(None, read)
    }

    /// Like [`load_tls`](Self::load_tls), with another crypto provider than ring, for every connection of
    /// the document: also for those without a `tls` key, which trust Mozilla's roots.
    ///
    /// # Errors
    ///
    /// [`ConnectionsError`] with every file that cannot be used, and if the provider cannot be used.
    #[cfg(feature = "tls")]
    pub fn load_tls_with(
        self,
        provider: Arc<rustls::crypto::CryptoProvider>,
        read: impl Fn(&str) -> std::io::Result<Vec<u8>>,
    ) -> Result<Self, ConnectionsError> {
        self.load(Some(provider), read)
    }

    #[cfg(feature = "tls")]
    fn load(
        mut self,
        provider: Option<Arc<rustls::crypto::CryptoProvider>>,
        read: impl Fn(&str) -> std::io::Result<Vec<u8>>,
    ) -> Result<Self, ConnectionsError> {
        let mut problems = Vec::new();
        for (name, spec) in &mut self.specs {
            let made = match (spec.tls.take(), &provider) {
                (Some(files), provider) => Contents::read(&files, &read).and_then(|contents| {
                    let tls = Tls::from_contents(provider.clone(), &files, &contents)?;
                    Ok((tls, Some(contents)))
                }),
                (None, Some(provider)) => {
                    Tls::builder().provider(Arc::clone(provider)).build().map(|tls| (tls, None))
                }
                (None, None) => continue,
            };
            match made {
                Ok((tls, contents)) => {
                    spec.config = spec.config.clone().tls(tls);
                    if let Some(contents) = contents {
                        spec.source = Arc::new(spec.source.with_files(contents));
                    }
                }
                Err(error) => {
                    let kind = ProblemKind::Invalid { message: error.to_string() };
                    let (connection, key) = (Some(name.clone()), Some("tls".to_owned()));
                    problems.push(Problem { connection, key, kind });
                }
            }
        }
        if problems.is_empty() { Ok(self) } else { Err(ConnectionsError { problems }) }
    }

    /// The connection with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ConnectionSpec> {
        self.specs.get(name)
    }

    /// Every connection, in order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ConnectionSpec)> {
        self.specs.iter().map(|(name, spec)| (name.as_str(), spec))
    }

    /// The number of connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.specs.len()
    }

    /// Whether there are no connections.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }
}

impl IntoIterator for Connections {
    type Item = (String, ConnectionSpec);
    type IntoIter = std::collections::btree_map::IntoIter<String, ConnectionSpec>;

    fn into_iter(self) -> Self::IntoIter {
        self.specs.into_iter()
    }
}

fn unreadable(message: String) -> ConnectionsError {
    let kind = ProblemKind::Unreadable { message };
    ConnectionsError { problems: vec![Problem { connection: None, key: None, kind }] }
}
