//! The TLS files of a connections document.

use serde::Deserialize;

/// The files in the `tls` key of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("dependentRequired" = {
    "cert_file": ["key_file"], "key_file": ["cert_file"],
})))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TlsFiles {
    /// The certificate authorities to trust instead of Mozilla's, in PEM.
    pub ca_file: Option<String>,
    /// The chain of the client certificate, in PEM.
    pub cert_file: Option<String>,
    /// The key of the client certificate, in PEM.
    pub key_file: Option<String>,
    /// The name that the server's certificate must have, instead of the host of the URI.
    pub server_name: Option<String>,
}

impl TlsFiles {
    /// Returns the problem with the combination of files, if any. It reads no file.
    #[cfg(any(feature = "service", feature = "tls"))]
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let alone = self.cert_file.is_some() != self.key_file.is_some();
        alone.then_some("\"cert_file\" and \"key_file\" must be given together")
    }
}

#[cfg(all(test, feature = "tls"))]
mod tests {
    use super::*;
    use crate::config::tls::Tls;

    /// The reader of a document refuses this too.
    #[test]
    fn certificate_without_its_key_is_refused() {
        let file = || Some("a.pem".to_owned());
        let alone = [
            TlsFiles { cert_file: file(), ..TlsFiles::default() },
            TlsFiles { key_file: file(), ..TlsFiles::default() },
        ];
        for files in alone {
            let error = Tls::from_files(&files, |_| unreachable!("no file")).unwrap_err();
            assert!(error.to_string().contains("given together"), "{error}");
        }
    }
}
