//! Negotiation of permessage-deflate (RFC 7692 sections 5 and 7.1).
//!
//! ```text
//!   Compression ──▶ offer ──▶ Sec-WebSocket-Extensions of the request
//!                                          │ the server declines: no such header in the response
//!                                          ▼
//!   Compression ◀── agreed ◀── Sec-WebSocket-Extensions of the response
//!                     │ anything that was not offered
//!                     ▼
//!                   refused: the client must fail the connection
//! ```

use crate::config::Compression;
use crate::config::http::is_token;

/// The name of the extension.
const NAME: &str = "permessage-deflate";

const SERVER_NO_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_BITS: &str = "server_max_window_bits";
const CLIENT_BITS: &str = "client_max_window_bits";

/// The largest window, and the one of a side whose window is not limited (RFC 7692 section 7.1.2).
const BITS_MAX: u8 = 15;

/// The value of `Sec-WebSocket-Extensions` in a request.
pub(crate) fn offer(compression: &Compression) -> String {
    let mut offer = NAME.to_owned();
    if !compression.receive_takeover {
        // RFC 7692 section 7.1.1.1.
        offer += "; server_no_context_takeover";
    }
    if !compression.send_takeover {
        // RFC 7692 section 7.1.1.2: a hint that the client will not use context takeover.
        offer += "; client_no_context_takeover";
    }
    if compression.receive_window_bits < BITS_MAX {
        // RFC 7692 section 7.1.2.1: the value is required. Bandit fails without it.
        offer += &format!("; {SERVER_BITS}={}", compression.receive_window_bits);
    }
    // RFC 7692 section 7.1.2.2: the server may now limit the client's window. The value is a hint.
    offer += &format!("; {CLIENT_BITS}={}", compression.send_window_bits);
    offer
}

/// What the extensions of a response mean.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The server declined the offer.
    Declined,
    /// The server accepted it, with these parameters.
    Agreed(Compression),
    /// The response selects an extension that was not offered.
    NotOffered,
    /// The parameters are invalid, or contradict the offer.
    Invalid(&'static str),
}

/// Compares the extensions of a response with the offer.
pub(crate) fn agreed<'a>(
    offered: &Compression,
    headers: impl IntoIterator<Item = &'a str>,
) -> Answer {
    let mut agreed = None;
    for extension in extensions(headers) {
        let Some(Extension { name, parameters }) = extension else {
            return Answer::Invalid("it is not a list of extensions");
        };
        if name != NAME {
            return Answer::NotOffered;
        }
        if agreed.is_some() {
            return Answer::Invalid("the extension is selected twice");
        }
        agreed = match Parameters::read(&parameters, false).and_then(|p| p.answers(offered)) {
            Ok(compression) => Some(compression),
            Err(reason) => return Answer::Invalid(reason),
        };
    }
    agreed.map_or(Answer::Declined, Answer::Agreed)
}

/// Chooses the first acceptable offer of a client, for a server with these settings. Returns the
/// agreed parameters, from the server's point of view, and the value of the response header.
#[cfg(feature = "testing")]
pub(crate) fn accept<'a>(
    own: &Compression,
    headers: impl IntoIterator<Item = &'a str>,
) -> Option<(Compression, String)> {
    let offers = extensions(headers).flatten().filter(|extension| extension.name == NAME);
    let mut offers = offers.filter_map(|offer| Parameters::read(&offer.parameters, true).ok());
    offers.next().map(|offer| offer.accepted_by(own))
}

/// The parameters of the extension (RFC 7692 section 7.1).
#[derive(Debug, Default, PartialEq, Eq)]
struct Parameters {
    server_no_takeover: bool,
    client_no_takeover: bool,
    server_bits: Option<u8>,
    /// In an offer, the parameter may have no value.
    client_bits: Option<Option<u8>>,
}

impl Parameters {
    /// RFC 7692 section 7: an offer with an unknown parameter, an invalid value or a parameter that
    /// occurs twice must be declined, and such a response must fail the connection.
    fn read(parameters: &[(&str, Option<String>)], is_offer: bool) -> Result<Self, &'static str> {
        let mut read = Self::default();
        for (name, value) in parameters {
            let value = value.as_deref();
            let is_new = match *name {
                SERVER_NO_TAKEOVER if value.is_none() => {
                    !core::mem::replace(&mut read.server_no_takeover, true)
                }
                CLIENT_NO_TAKEOVER if value.is_none() => {
                    !core::mem::replace(&mut read.client_no_takeover, true)
                }
                SERVER_NO_TAKEOVER | CLIENT_NO_TAKEOVER => {
                    return Err("no_context_takeover has a value");
                }
                SERVER_BITS => read.server_bits.replace(window(value)?).is_none(),
                CLIENT_BITS if is_offer && value.is_none() => {
                    read.client_bits.replace(None).is_none()
                }
                CLIENT_BITS => read.client_bits.replace(Some(window(value)?)).is_none(),
                _ => return Err("it has an unknown parameter"),
            };
            if !is_new {
                return Err("a parameter occurs twice");
            }
        }
        Ok(read)
    }

    /// The agreed parameters, if this response is compatible with the offer.
    fn answers(&self, offered: &Compression) -> Result<Compression, &'static str> {
        // RFC 7692 section 7.1.1.1: a server accepts the parameter by including it.
        if !offered.receive_takeover && !self.server_no_takeover {
            return Err("server_no_context_takeover is missing");
        }
        // RFC 7692 section 7.1.2.1: the same, with the same or a smaller value.
        let receive_window_bits = match self.server_bits {
            None if offered.receive_window_bits < BITS_MAX => {
                return Err("server_max_window_bits is missing");
            }
            Some(bits) if bits > offered.receive_window_bits => {
                return Err("server_max_window_bits is larger than offered");
            }
            bits => bits.unwrap_or(BITS_MAX),
        };
        // RFC 7692 section 7.1.2.2: without the parameter, the client's window is not limited.
        let limit = self.client_bits.flatten().unwrap_or(BITS_MAX);
        Ok(Compression {
            receive_window_bits,
            send_window_bits: offered.send_window_bits.min(limit),
            receive_takeover: !self.server_no_takeover,
            // RFC 7692 section 7.1.1.2: the client must obey the parameter, and may do so without it.
            send_takeover: offered.send_takeover && !self.client_no_takeover,
            ..*offered
        })
    }

    #[cfg(feature = "testing")]
    fn accepted_by(&self, own: &Compression) -> (Compression, String) {
        let limit = self.client_bits.map(|bits| bits.unwrap_or(BITS_MAX));
        let agreed = Compression {
            // RFC 7692 section 7.1.2.2: only if the client offered the parameter.
            receive_window_bits: limit.map_or(BITS_MAX, |bits| bits.min(own.receive_window_bits)),
            send_window_bits: own.send_window_bits.min(self.server_bits.unwrap_or(BITS_MAX)),
            receive_takeover: own.receive_takeover && !self.client_no_takeover,
            send_takeover: own.send_takeover && !self.server_no_takeover,
            ..*own
        };
        let mut answer = NAME.to_owned();
        if !agreed.send_takeover {
            answer += "; server_no_context_takeover";
        }
        if !agreed.receive_takeover {
            answer += "; client_no_context_takeover";
        }
        if self.server_bits.is_some() || agreed.send_window_bits < BITS_MAX {
            answer += &format!("; {SERVER_BITS}={}", agreed.send_window_bits);
        }
        if limit.is_some() {
            answer += &format!("; {CLIENT_BITS}={}", agreed.receive_window_bits);
        }
        (agreed, answer)
    }
}

/// The value of a window (RFC 7692 section 7.1.2): a decimal number from 8 to 15 without leading
/// zeros.
fn window(value: Option<&str>) -> Result<u8, &'static str> {
    match value {
        Some("8") => Ok(8),
        Some("9") => Ok(9),
        Some(two) if two.len() == 2 && two.starts_with('1') => match two.as_bytes()[1] {
            digit @ b'0'..=b'5' => Ok(10 + digit - b'0'),
            _ => Err("a window is not from 8 to 15"),
        },
        _ => Err("a window is not from 8 to 15"),
    }
}

struct Extension<'a> {
    name: &'a str,
    parameters: Vec<(&'a str, Option<String>)>,
}

/// The extensions in all headers (RFC 6455 section 9.1). `None` is an element that is not valid.
fn extensions<'a>(
    headers: impl IntoIterator<Item = &'a str>,
) -> impl Iterator<Item = Option<Extension<'a>>> {
    let elements = headers.into_iter().flat_map(|header| split(header, b','));
    let elements = elements.map(str::trim_ascii).filter(|element| !element.is_empty());
    elements.map(|element| {
        let mut parts = split(element, b';').map(str::trim_ascii);
        let name = parts.next().filter(|name| is_token(name))?;
        let parameters = parts.map(|part| {
            let (name, value) = match part.split_once('=') {
                None => (part, None),
                Some((name, value)) => (name.trim_ascii(), Some(unquoted(value.trim_ascii())?)),
            };
            is_token(name).then_some((name, value))
        });
        Some(Extension { name, parameters: parameters.collect::<Option<_>>()? })
    })
}

/// The parts of a text between separators that are not in a quoted string.
fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    core::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.bytes().position(|byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ => return byte == separator && !quoted,
            }
            false
        });
        rest = end.map(|end| &text[end + 1..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

/// A value, without the quotes and escapes of a quoted string. RFC 6455 section 9.1: the value in the
/// quotes must be a token.
fn unquoted(value: &str) -> Option<String> {
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let plain = match inner {
        None => value.to_owned(),
        Some(inner) => {
            let mut plain = String::new();
            let mut letters = inner.chars();
            while let Some(letter) = letters.next() {
                plain.push(if letter == '\\' { letters.next()? } else { letter });
            }
            plain
        }
    };
    is_token(&plain).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERED: Compression = Compression::balanced();

    fn answer(offered: &Compression, header: &str) -> Answer {
        agreed(offered, [header])
    }

    #[test]
    fn offer_names_what_was_configured() {
        assert_eq!(
            offer(&OFFERED),
            "permessage-deflate; server_max_window_bits=13; client_max_window_bits=12"
        );
        assert_eq!(
            offer(&Compression::strongest().context_takeover(false, false)),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
             client_max_window_bits=15"
        );
    }

    /// A response may narrow the offer.
    #[test]
    fn response_is_accepted() {
        let accepted = |header, expected| {
            assert_eq!(answer(&OFFERED, header), Answer::Agreed(expected), "{header}");
        };
        accepted("permessage-deflate; server_max_window_bits=13", OFFERED);
        accepted(" permessage-deflate ;server_max_window_bits = \"1\\3\" , ,", OFFERED);
        accepted(
            "permessage-deflate; client_max_window_bits=15; server_max_window_bits=13",
            OFFERED,
        );
        accepted(
            "permessage-deflate; client_max_window_bits=8; server_max_window_bits=8",
            Compression { send_window_bits: 8, receive_window_bits: 8, ..OFFERED },
        );
        accepted(
            "permessage-deflate; client_no_context_takeover; server_no_context_takeover; \
             server_max_window_bits=9; client_max_window_bits=10",
            Compression {
                send_window_bits: 10,
                receive_window_bits: 9,
                ..OFFERED.context_takeover(false, false)
            },
        );
        assert_eq!(answer(&OFFERED, ""), Answer::Declined);
        // Without a limit in the offer, the server need not name one.
        let wide = Compression::strongest();
        assert_eq!(answer(&wide, "permessage-deflate"), Answer::Agreed(wide));
        assert_eq!(
            answer(
                &OFFERED.context_takeover(true, false),
                "permessage-deflate; server_max_window_bits=13"
            ),
            Answer::Agreed(OFFERED.context_takeover(true, false))
        );
    }

    #[test]
    fn response_that_contradicts_offer_is_refused() {
        for header in [
            "permessage-deflate",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=14",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=013",
            "permessage-deflate; server_max_window_bits=1\u{663}",
            "permessage-deflate; server_max_window_bits=13; server_max_window_bits=13",
            "permessage-deflate; server_max_window_bits=13; client_max_window_bits",
            "permessage-deflate; server_max_window_bits=13; client_no_context_takeover=1",
            "permessage-deflate; server_max_window_bits=13; client_no_context_takeover; \
             client_no_context_takeover",
            "permessage-deflate; server_max_window_bits=13; level=9",
            "permessage-deflate; server_max_window_bits=13;",
            "permessage-deflate; server_max_window_bits=13, \
             permessage-deflate; server_max_window_bits=13",
            "permessage-deflate; server_max_window_bits=\"13",
            "permessage-deflate; server_max_window_bits=13; =",
            "; server_max_window_bits=13",
        ] {
            let answer = answer(&OFFERED, header);
            assert!(matches!(answer, Answer::Invalid(_)), "{header}: {answer:?}");
        }
        for header in
            ["x-webkit-deflate-frame", "permessage-deflate; server_max_window_bits=13, foo"]
        {
            assert_eq!(answer(&OFFERED, header), Answer::NotOffered);
        }
        let fresh = OFFERED.context_takeover(false, true);
        let header = "permessage-deflate; server_max_window_bits=13";
        assert!(matches!(answer(&fresh, header), Answer::Invalid(_)));
    }

    /// A server takes the first offer that it understands, and its answer fits that offer.
    #[cfg(feature = "testing")]
    #[test]
    fn server_takes_first_valid_offer() {
        let own = Compression::strongest();
        let (agreed, answer) = accept(
            &own,
            [
                "foo, permessage-deflate; level=1, permessage-deflate; client_max_window_bits",
                "permessage-deflate; server_no_context_takeover",
            ],
        )
        .expect("the second is valid");
        assert_eq!(agreed, own);
        assert_eq!(answer, "permessage-deflate; client_max_window_bits=15");
        assert_eq!(accept(&own, ["permessage-deflate; server_max_window_bits"]), None);
    }

    /// Both sides derive the same parameters, from opposite points of view.
    #[cfg(feature = "testing")]
    #[test]
    fn both_sides_agree() {
        let mut all = Vec::new();
        for (receive, send) in [(9, 15), (15, 9), (12, 13), (15, 15)] {
            for (one, other) in [(true, true), (true, false), (false, true), (false, false)] {
                let windows = OFFERED.window_bits(receive, send).expect("valid windows");
                all.push(windows.context_takeover(one, other));
            }
        }
        for client in &all {
            for server in &all {
                let (theirs, header) = accept(server, [&*offer(client)]).expect("a valid offer");
                let Answer::Agreed(ours) = agreed(client, [&*header]) else { panic!("{header}") };
                // Each side may use less than the other allows.
                assert!(ours.receive_window_bits >= theirs.send_window_bits, "{header}");
                assert!(ours.send_window_bits <= theirs.receive_window_bits, "{header}");
                assert!(ours.receive_takeover || !theirs.send_takeover, "{header}");
                assert!(theirs.receive_takeover || !ours.send_takeover, "{header}");
            }
        }
    }
}
