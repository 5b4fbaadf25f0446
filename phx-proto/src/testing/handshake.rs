//! The upgrade handshake: path, origin, subprotocol, version and the connect callback.
//!
//! The checks have the same order as in Phoenix: the path (404), the method (400), the query (400),
//! the origin (403), the token (500) and the subprotocol (403), `vsn` and the connect callback (403,
//! 429, 500), and last, whether the headers are those of a WebSocket upgrade (400).

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::codec::Vsn;
use super::config::{ServerConfig, Version};
use super::server::PeerId;

/// A client's request to open a WebSocket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRequest {
    /// The HTTP method; empty for `GET`.
    pub method: String,
    /// The request target: the path with its query, such as `/socket/websocket?vsn=2.0.0`.
    pub path: String,
    /// The header fields, with names in any case. A request without any of `host`, `connection`,
    /// `upgrade`, `sec-websocket-key` and `sec-websocket-version` counts as an upgrade, so that a
    /// test can omit these headers. With any of them, the request must be a valid upgrade.
    pub headers: Vec<(String, String)>,
}

/// An HTTP response other than 101.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpRefusal {
    /// The status code.
    pub status: u16,
    /// The header fields, with names in lower case. They include `content-length` in the responses
    /// that the server creates itself.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// An accepted upgrade. The caller answers it with 101.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accepted {
    /// The id of the new connection.
    pub peer: PeerId,
    /// The value of `sec-websocket-protocol` in the response; with `None` the field is omitted.
    pub protocol: Option<String>,
    /// The value of `sec-websocket-extensions` in the response, and the compression that it selects,
    /// from the server's point of view; with `None` the field is omitted.
    #[cfg(feature = "deflate")]
    pub extensions: Option<(String, crate::config::Compression)>,
}

/// The connect parameters and headers that channels can read.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    pub(super) vsn: Vsn,
    pub(super) protocol: Option<String>,
    pub(super) id: Option<String>,
    pub(super) params: Value,
    pub(super) x_headers: Value,
    pub(super) auth_token: Option<String>,
    pub(super) slow_ms: u64,
}

impl HttpRefusal {
    /// A response with this status and body, and the fields that the server always sends.
    #[must_use]
    pub fn new(status: u16, body: &str) -> Self {
        let headers = vec![
            ("content-length".to_owned(), body.len().to_string()),
            ("cache-control".to_owned(), "max-age=0, private, must-revalidate".to_owned()),
        ];
        Self { status, headers, body: body.to_owned() }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn error_page(status: u16, detail: &str) -> Self {
        let body = serde_json::json!({ "errors": { "detail": detail } }).to_string();
        Self::new(status, &body).header("content-type", "application/json; charset=utf-8")
    }

    fn raised() -> Self {
        Self::error_page(500, "Internal Server Error")
    }
}

/// The extension that the response selects, as Phoenix does with `compress: true`.
#[cfg(feature = "deflate")]
pub(super) fn extensions(
    config: &ServerConfig,
    request: &HttpRequest,
) -> Option<(String, crate::config::Compression)> {
    let is_offer =
        |(name, _): &&(String, String)| name.eq_ignore_ascii_case("sec-websocket-extensions");
    let offers = request.headers.iter().filter(is_offer).map(|(_, value)| &**value);
    let (agreed, answer) =
        crate::websocket::upgrade::accept_compression(&config.compress?, offers)?;
    Some((answer, agreed))
}

pub(super) fn admit(
    config: &ServerConfig,
    request: &HttpRequest,
) -> Result<Admission, HttpRefusal> {
    let (version, token) = (config.version, config.token.as_deref());
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    // A trailing slash is ignored: wire/handshake_wrong_path.
    if !path.split('/').filter(|part| !part.is_empty()).eq(["socket", "websocket"]) {
        return Err(HttpRefusal::new(404, "Not Found"));
    }
    // No recording shows this: Phoenix 1.8.12, `websocket.ex` (`call/2`).
    if !matches!(request.method.as_str(), "" | "GET") {
        return Err(HttpRefusal::new(400, ""));
    }
    let params = parse_query(query).ok_or_else(|| HttpRefusal::error_page(400, "Bad Request"))?;
    if field(request, "origin").is_some_and(|origin| !origin_allowed(origin)) {
        return Err(HttpRefusal::new(403, ""));
    }
    let (protocol, auth_token) = subprotocol(version, request)?;
    let vsn = negotiate(version, params.get("vsn"))?;
    match params.get("reject").and_then(Value::as_str) {
        Some("yes") => return Err(HttpRefusal::new(403, "")),
        Some("rate") => {
            return Err(HttpRefusal::new(429, "Too many requests").header("retry-after", "1"));
        }
        Some("raise") => return Err(HttpRefusal::raised()),
        _ => {}
    }
    let presented = params.get("token").and_then(Value::as_str);
    if token.is_some_and(|token| presented != Some(token)) {
        return Err(HttpRefusal::new(403, ""));
    }
    if let Some(problem) = upgrade_problem(request) {
        let plain = HttpRefusal::new(400, &problem);
        return Err(plain.header("content-type", "text/plain; charset=utf-8"));
    }
    let text = |name: &str| params.get(name).and_then(Value::as_str);
    Ok(Admission {
        vsn,
        protocol,
        id: text("user_id").map(|user| format!("user:{user}")),
        slow_ms: text("slowconnect").and_then(|ms| ms.parse().ok()).unwrap_or(0),
        x_headers: x_headers(request),
        params: Value::Object(params),
        auth_token,
    })
}

fn field<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    request.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
}

/// The reason why the headers are not those of an upgrade, as the body of the response.
fn upgrade_problem(request: &HttpRequest) -> Option<String> {
    let http = ["host", "connection", "upgrade", "sec-websocket-key", "sec-websocket-version"];
    if http.iter().all(|name| field(request, name).is_none()) {
        return None;
    }
    let lacks = |name, token: &str| {
        let value = field(request, name).unwrap_or("");
        let found = value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token));
        (!found).then(|| format!("'{name}' header must contain '{token}', got [{value:?}]"))
    };
    let key = field(request, "sec-websocket-key").is_none_or(str::is_empty);
    lacks("upgrade", "websocket")
        .or_else(|| lacks("connection", "upgrade"))
        .or_else(|| key.then(|| "'sec-websocket-key' header is absent".to_owned()))
        .or_else(|| lacks("sec-websocket-version", "13"))
}

/// The `x-` fields of a request. No other fields are passed to the socket (`wire/push_whoami_headers`).
fn x_headers(request: &HttpRequest) -> Value {
    let lower = request.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
    lower.filter(|(name, _)| name.starts_with("x-")).map(|(n, v)| (n, v.as_str())).collect()
}

fn origin_allowed(origin: &str) -> bool {
    let authority = origin.split_once("://").map_or(origin, |(_, rest)| rest);
    let host = authority.split(['/', ':']).next().unwrap_or("");
    matches!(host, "localhost" | "127.0.0.1")
}

/// The selected protocol and the token (`wire/handshake_auth_token_variants`).
fn subprotocol(
    version: Version,
    request: &HttpRequest,
) -> Result<(Option<String>, Option<String>), HttpRefusal> {
    let Some(offer) = field(request, "sec-websocket-protocol") else { return Ok((None, None)) };
    // This version ignores the token: wire/handshake_auth_token__1.7.24.
    if version == Version::V1_7_24 {
        return Ok((None, None));
    }
    let offers: Vec<&str> = offer.split(',').map(str::trim).collect();
    let bearers: Vec<&str> =
        offers.iter().filter_map(|offer| offer.strip_prefix("base64url.bearer.phx.")).collect();
    let token = match bearers.as_slice() {
        [one] => Some(decode_token(one).ok_or_else(HttpRefusal::raised)?),
        _ => None,
    };
    if offers.contains(&"phoenix") {
        Ok((Some("phoenix".to_owned()), token))
    } else if bearers.is_empty() {
        Err(HttpRefusal::new(403, ""))
    } else {
        Ok((None, token))
    }
}

/// Decodes base64 in the standard alphabet (although the prefix is named after base64url), with or without
/// padding.
pub(super) fn decode_token(token: &str) -> Option<String> {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let bytes = GeneralPurpose::new(&alphabet::STANDARD, config).decode(token).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Accepts the versions `1.0.Z` and `2.0.Z`, as Elixir's `~> 1.0.0` and `~> 2.0.0` do. A missing
/// version means 1.0.0 (`wire/handshake_vsn`).
fn negotiate(version: Version, vsn: Option<&Value>) -> Result<Vsn, HttpRefusal> {
    match vsn {
        None => Ok(Vsn::V1),
        Some(Value::String(vsn)) => match major_of(vsn) {
            Some(1) => Ok(Vsn::V1),
            Some(2) => Ok(Vsn::V2),
            _ => Err(HttpRefusal::new(403, "")),
        },
        Some(_) if version == Version::V1_7_24 => Err(HttpRefusal::raised()),
        Some(_) => Err(HttpRefusal::new(403, "")),
    }
}

/// The major number of a version `X.0.Z`; `None` for any other text. A pre-release of `X.0.0` is older
/// than `X.0.0`, so the result for it is `None` too.
fn major_of(vsn: &str) -> Option<u64> {
    let vsn = vsn.split_once('+').map_or(vsn, |(version, _build)| version);
    let (numbers, pre) = vsn.split_once('-').map_or((vsn, None), |(n, pre)| (n, Some(pre)));
    let mut parts = numbers.split('.').map(|part| {
        let canonical = part == "0" || !part.starts_with('0');
        let digits = part.bytes().all(|byte| byte.is_ascii_digit());
        (canonical && digits).then(|| part.parse::<u64>().ok()).flatten()
    });
    let (major, minor, patch) = (parts.next()??, parts.next()??, parts.next()??);
    (parts.next().is_none() && minor == 0 && !(patch == 0 && pre.is_some())).then_some(major)
}

/// Parses query parameters with the nesting of Plug: `a[b]=c`, `a[]=c`. `None` if they cannot be
/// decoded.
fn parse_query(query: &str) -> Option<Map<String, Value>> {
    let mut params = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (percent_decode(name)?, percent_decode(value)?);
        let (first, rest) = name.split_once('[').unwrap_or((&name, ""));
        let keys: Vec<&str> = match rest.strip_suffix(']') {
            Some(rest) => rest.split("][").collect(),
            None => Vec::new(),
        };
        insert(params.entry(first).or_insert(Value::Null), &keys, value);
    }
    Some(params)
}

fn insert(slot: &mut Value, keys: &[&str], value: String) {
    match keys {
        [] => *slot = Value::String(value),
        ["", rest @ ..] => {
            if !slot.is_array() {
                *slot = Value::Array(Vec::new());
            }
            if let Value::Array(items) = slot {
                items.push(Value::Null);
                if let Some(item) = items.last_mut() {
                    insert(item, rest, value);
                }
            }
        }
        [key, rest @ ..] => {
            if !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            if let Value::Object(members) = slot {
                insert(members.entry(*key).or_insert(Value::Null), rest, value);
            }
        }
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let code = digit(bytes.next())? * 16 + digit(bytes.next())?;
                out.push(u8::try_from(code).ok()?);
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}
