//! Compression of messages with permessage-deflate.

use core::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::ConfigError;

/// Compression of messages with the WebSocket extension permessage-deflate (RFC 7692).
///
/// The client offers the extension, and the server decides whether the connection uses it. Each side
/// compresses the messages that it sends. The presets differ in the memory of a connection;
/// [`manual::compression`](crate::manual::compression) has the measured figures, and explains what
/// compression reveals about secrets.
///
/// ```
/// # #[cfg(feature = "deflate")]
/// # fn main() -> Result<(), phx_proto::ConfigError> {
/// use phx_proto::{Config, config::Compression};
///
/// let config = Config::new("wss://example.com/socket/websocket")?
///     .compression(Compression::balanced());
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "deflate"))]
/// # fn main() {}
/// ```
///
/// In a document it is `"balanced"`, `"smallest"` or `"strongest"`, or an object such as
/// `{"receive_window_bits": 12, "send_takeover": false}`, whose omitted keys have the values of
/// `balanced`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Compression {
    /// Received messages may refer to the last 2ⁿ bytes, where n is this number.
    pub(crate) receive_window_bits: u8,
    /// Sent messages refer to the last 2ⁿ bytes, where n is this number.
    pub(crate) send_window_bits: u8,
    /// Whether received messages may refer to earlier ones.
    pub(crate) receive_takeover: bool,
    /// Whether sent messages refer to earlier ones.
    pub(crate) send_takeover: bool,
    /// Shorter messages are sent uncompressed.
    pub(crate) send_bytes_min: usize,
}

impl Compression {
    const BALANCED: Self = Self {
        receive_window_bits: 13,
        send_window_bits: 12,
        receive_takeover: true,
        send_takeover: true,
        send_bytes_min: 64,
    };
    const SMALLEST: Self = Self { receive_window_bits: 10, send_window_bits: 10, ..Self::BALANCED };
    const STRONGEST: Self =
        Self { receive_window_bits: 15, send_window_bits: 15, ..Self::BALANCED };

    /// Keeps up to 12 KiB for each connection: 8 KiB of received messages and 4 KiB of sent ones.
    #[cfg(feature = "deflate")]
    #[must_use]
    pub const fn balanced() -> Self {
        Self::BALANCED
    }

    /// Keeps up to 2 KiB for each connection: 1 KiB of received messages and 1 KiB of sent ones.
    #[cfg(feature = "deflate")]
    #[must_use]
    pub const fn smallest() -> Self {
        Self::SMALLEST
    }

    /// Keeps up to 64 KiB for each connection: 32 KiB of received messages and 32 KiB of sent ones. A
    /// sent message costs three times as much CPU time as with [`balanced`](Self::balanced).
    #[cfg(feature = "deflate")]
    #[must_use]
    pub const fn strongest() -> Self {
        Self::STRONGEST
    }

    /// Sets the size of each window as a number of bits, from 9 to 15: a window of n bits has 2ⁿ bytes. A
    /// message refers to repeated text within its window. The connection keeps one window of received and
    /// one of sent messages, and the server may choose smaller ones.
    ///
    /// # Errors
    ///
    /// [`ConfigError::WindowBits`] for a number that is not from 9 to 15.
    pub const fn window_bits(mut self, receive: u8, send: u8) -> Result<Self, ConfigError> {
        if !is_window(receive) || !is_window(send) {
            return Err(ConfigError::WindowBits);
        }
        self.receive_window_bits = receive;
        self.send_window_bits = send;
        Ok(self)
    }

    /// Sets whether a message may refer to earlier messages of its direction (context takeover). By
    /// default both directions do. Without it, a direction needs no memory while the connection is idle,
    /// and short messages hardly get shorter.
    #[must_use]
    pub const fn context_takeover(mut self, receive: bool, send: bool) -> Self {
        self.receive_takeover = receive;
        self.send_takeover = send;
        self
    }

    /// The same settings from the point of view of the other side: what one side sends, the other
    /// receives.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            receive_window_bits: self.send_window_bits,
            send_window_bits: self.receive_window_bits,
            receive_takeover: self.send_takeover,
            send_takeover: self.receive_takeover,
            ..self
        }
    }

    /// Sets the length in bytes from which messages are sent compressed; by default 64. With `usize::MAX`
    /// the client sends no compressed message, and still receives them.
    #[must_use]
    pub const fn send_bytes_min(mut self, bytes: usize) -> Self {
        self.send_bytes_min = bytes;
        self
    }
}

const fn is_window(bits: u8) -> bool {
    matches!(bits, 9..=15)
}

/// The serialized form of [`Compression`] as an object.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
struct Parts {
    #[cfg_attr(feature = "schema", schemars(range(min = 9, max = 15)))]
    receive_window_bits: u8,
    #[cfg_attr(feature = "schema", schemars(range(min = 9, max = 15)))]
    send_window_bits: u8,
    receive_takeover: bool,
    send_takeover: bool,
    send_bytes_min: usize,
}

impl Default for Parts {
    fn default() -> Self {
        let Compression {
            receive_window_bits,
            send_window_bits,
            receive_takeover,
            send_takeover,
            send_bytes_min,
        } = Compression::BALANCED;
        Self {
            receive_window_bits,
            send_window_bits,
            receive_takeover,
            send_takeover,
            send_bytes_min,
        }
    }
}

impl TryFrom<Parts> for Compression {
    type Error = ConfigError;

    fn try_from(parts: Parts) -> Result<Self, ConfigError> {
        Self::BALANCED
            .context_takeover(parts.receive_takeover, parts.send_takeover)
            .send_bytes_min(parts.send_bytes_min)
            .window_bits(parts.receive_window_bits, parts.send_window_bits)
    }
}

/// The presets by their names in a document.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
enum Preset {
    Balanced,
    Smallest,
    Strongest,
}

impl From<Preset> for Compression {
    fn from(preset: Preset) -> Self {
        match preset {
            Preset::Balanced => Self::BALANCED,
            Preset::Smallest => Self::SMALLEST,
            Preset::Strongest => Self::STRONGEST,
        }
    }
}

impl<'de> Deserialize<'de> for Compression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Compression;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a preset, or an object")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Compression, E> {
                Preset::deserialize(serde::de::value::StrDeserializer::new(name)).map(Into::into)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Compression, A::Error> {
                let parts = Parts::deserialize(MapAccessDeserializer::new(map))?;
                parts.try_into().map_err(A::Error::custom)
            }
        }

        let compression = deserializer.deserialize_any(Either)?;
        if cfg!(not(feature = "deflate")) {
            return Err(D::Error::custom(
                "compression needs the feature `deflate`, and this program was built without it",
            ));
        }
        Ok(compression)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Compression {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Compression".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        #[derive(schemars::JsonSchema)]
        #[serde(untagged)]
        #[allow(dead_code, reason = "only its schema is used")]
        enum Either {
            Preset(Preset),
            Parts(Parts),
        }

        Either::json_schema(generator)
    }
}

#[cfg(all(test, feature = "deflate"))]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn presets_have_names_in_documents() {
        for (name, preset) in [
            ("balanced", Compression::balanced()),
            ("smallest", Compression::smallest()),
            ("strongest", Compression::strongest()),
        ] {
            assert_eq!(from_value::<Compression>(json!(name)).unwrap(), preset);
            let object = serde_json::to_value(preset).unwrap();
            assert_eq!(from_value::<Compression>(object).unwrap(), preset);
        }
        let partly = json!({"receive_window_bits": 9, "send_takeover": false});
        let expected = Compression::balanced().window_bits(9, 12).unwrap();
        let expected = expected.context_takeover(true, false);
        assert_eq!(from_value::<Compression>(partly).unwrap(), expected);
    }

    #[test]
    fn invalid_documents_are_refused() {
        let refused = |value: Value, part: &str| {
            let error = from_value::<Compression>(value).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        refused(json!("best"), "expected one of `balanced`, `smallest`, `strongest`");
        refused(json!({"level": 9}), "unknown field `level`");
        refused(json!({"send_window_bits": 8}), "from 9 to 15 bits");
        refused(json!({"receive_window_bits": 16}), "from 9 to 15 bits");
        refused(json!(true), "the name of a preset, or an object");
    }
}
