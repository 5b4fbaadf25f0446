//! The files for TLS that a document of connections names.

use serde::Deserialize;

/// The files of a connection's `tls` key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("dependentRequired" = {
    "cert_file": ["key_file"], "key_file": ["cert_file"],
})))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TlsFiles {
    /// The certificate authorities to trust, in PEM, in place of Mozilla's.
    pub ca_file: Option<String>,
    /// The certificate chain to show, in PEM.
    pub cert_file: Option<String>,
    /// Its key, in PEM.
    pub key_file: Option<String>,
    /// The name to check the server's certificate against, in place of the host of the URI.
    pub server_name: Option<String>,
}

impl TlsFiles {
    /// What is wrong with them before any is read.
    #[cfg(any(feature = "service", feature = "tls"))]
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let alone = self.cert_file.is_some() != self.key_file.is_some();
        alone.then_some("\"cert_file\" and \"key_file\" go together")
    }
}

#[cfg(all(test, feature = "tls"))]
mod tests {
    use super::*;
    use crate::config::tls::Tls;

    /// Without a document, too, whose reader refuses it.
    #[test]
    fn certificate_without_its_key_is_refused() {
        let file = || Some("a.pem".to_owned());
        let alone = [
            TlsFiles { cert_file: file(), ..TlsFiles::default() },
            TlsFiles { key_file: file(), ..TlsFiles::default() },
        ];
        for files in alone {
            let error = Tls::from_files(&files, |_| unreachable!("no file")).unwrap_err();
            assert!(error.to_string().contains("go together"), "{error}");
        }
    }
}
