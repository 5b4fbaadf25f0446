//! A reply as a `Result`: the response, or an error for every status but `ok`.

use crate::event::cause::Reply;
use crate::event::excerpt::reason;
use crate::wire::ByteStr;
use crate::wire::payload::Payload;

impl Reply {
    /// Whether the status is `ok`.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        &*self.status == "ok"
    }

    /// The response, if the status is `ok`.
    ///
    /// # Errors
    ///
    /// [`ErrorReply`] for every other status: `error`, or another one that the server's channel
    /// uses.
    pub fn ok(self) -> Result<Payload, ErrorReply> {
        if self.is_ok() {
            Ok(self.response)
        } else {
            Err(ErrorReply { status: self.status, response: self.response })
        }
    }
}

/// The server handled a push and replied with a status other than `ok`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the server replied {status:?}: {}", reason(.response))]
#[non_exhaustive]
pub struct ErrorReply {
    /// The status, usually `error`.
    pub status: ByteStr,
    /// The response: any JSON value, or bytes.
    pub response: Payload,
}
