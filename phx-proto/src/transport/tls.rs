//! TLS on a stream, and what its failures mean.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::Net;
use crate::config::{Config, Uri};
use crate::event::input::Failure;

/// Speaks TLS with the server of `uri` on a stream that leads to it.
pub(super) async fn secure<N: Net>(
    stream: N::Stream,
    uri: &Uri,
    config: &Config,
) -> Result<N::Stream, Failure> {
    let tls = config.tls_in_use();
    let name = tls
        .name_for(uri.host())
        .map_err(|error| Failure::Unsupported { message: error.to_string() })?;
    let secured = N::secure(stream, name, tls.client()).await;
    secured.map_err(|error| Failure::Tls { message: message(uri.host(), &error) })
}

/// Whether it is TLS that failed, and not the connection under it.
pub(super) fn is_tls(error: &io::Error) -> bool {
    tls_error(error).is_some()
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

fn message(host: &str, error: &io::Error) -> String {
    let Some(tls) = tls_error(error) else {
        return format!("the connection to {host:?} was lost in the handshake: {error}");
    };
    match tls {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => format!(
            "the certificate of {host:?} is signed by an authority that is not trusted; if it is \
             the right one, configure its certificate with `Tls` ({tls})"
        ),
        Error::InvalidCertificate(_) => {
            format!("the certificate of {host:?} is not accepted: {tls}")
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            format!("what answers at {host:?} does not speak TLS: is this a ws:// address? ({tls})")
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            format!("{host:?} wants a certificate: configure one with `Tls::with_identity` ({tls})")
        }
        _ => format!("the handshake with {host:?} failed: {tls}"),
    }
}
