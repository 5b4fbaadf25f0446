//! From the document to the specs. Every problem is noted and reading goes on, so that whoever
//! fixes a document fixes it once.

use core::time::Duration;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::error::{ConnectionsError, Problem, ProblemKind};
use super::keys::{self, is_known, suggestion};
use super::node::Node;
use super::spec::{ConnectionSpec, TlsFiles};
use super::variables::fill;
use crate::config::backoff::{Backoff, DelayRange};
use crate::config::join_params::JoinParams;
use crate::config::{Config, ConfigError};
use crate::service::supervision::Restart;
use crate::wire::payload::Payload;
use crate::wire::{V1, V2};

type Members = Vec<(String, Node)>;
type Read<T> = Result<T, ProblemKind>;
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The specs by name, or everything that is wrong.
pub(super) fn document(
    document: Node,
    lookup: Lookup<'_>,
) -> Result<BTreeMap<String, ConnectionSpec>, ConnectionsError> {
    let mut problems = Vec::new();
    let mut specs = BTreeMap::new();
    for (name, node) in connections(document, &mut problems) {
        let mut reader = Reader { name: &name, lookup, problems: &mut problems };
        if name.is_empty() {
            reader.note(None, ProblemKind::EmptyName);
        }
        if specs.contains_key(&name) {
            reader.note(None, ProblemKind::Duplicate);
        }
        let spec = reader.connection(node);
        specs.insert(name, spec);
    }
    if !problems.is_empty() {
        return Err(ConnectionsError { problems });
    }
    // Without a problem there is a spec for every name.
    Ok(specs.into_iter().filter_map(|(name, spec)| Some((name, spec?))).collect())
}

/// The members of the one key that a document has.
fn connections(document: Node, problems: &mut Vec<Problem>) -> Members {
    let mut note = |key: Option<&str>, kind| {
        let key = key.map(str::to_owned);
        problems.push(Problem { connection: None, key, kind });
    };
    let mut found = None;
    match document {
        Node::Object(members) => {
            for (key, node) in members {
                match (key.as_str(), node) {
                    ("connections", _) if found.is_some() => {
                        note(Some("connections"), ProblemKind::Duplicate);
                    }
                    ("connections", Node::Object(connections)) => found = Some(connections),
                    ("connections", other) => {
                        note(Some("connections"), wrong_type("an object", &other));
                        found = Some(Vec::new());
                    }
                    // What an editor checks the document by.
                    ("$schema", Node::Text(_)) => {}
                    (other, _) => {
                        let suggestion = suggestion(other, ["connections"]);
                        note(Some(other), ProblemKind::UnknownKey { suggestion });
                    }
                }
            }
        }
        other => note(None, wrong_type("an object with the key \"connections\"", &other)),
    }
    if found.is_none() && problems.is_empty() {
        let key = Some("connections".to_owned());
        problems.push(Problem { connection: None, key, kind: ProblemKind::Missing });
    }
    found.unwrap_or_default()
}

/// Reads one connection.
struct Reader<'a> {
    name: &'a str,
    lookup: Lookup<'a>,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn note(&mut self, key: Option<&str>, kind: ProblemKind) {
        let (connection, key) = (Some(self.name.to_owned()), key.map(str::to_owned));
        self.problems.push(Problem { connection, key, kind });
    }

    fn connection(&mut self, node: Node) -> Option<ConnectionSpec> {
        let Node::Object(members) = node else {
            self.note(None, wrong_type("an object", &node));
            return None;
        };
        let mut known: BTreeMap<String, Node> = BTreeMap::new();
        for (key, mut node) in members {
            if !is_known(&key) {
                let suggestion = suggestion(&key, keys::connection());
                self.note(Some(&key), ProblemKind::UnknownKey { suggestion });
                continue;
            }
            if key == "uri" && node == Node::Null {
                // There is no default to ask for.
                self.note(Some(&key), ProblemKind::Missing);
            }
            if let Err(problem) = node.try_map_texts(&mut |text| fill(text, self.lookup)) {
                self.note(Some(&key), problem.into());
                // Its place is taken, so that it does not count as missing.
                node = Node::Null;
            }
            match known.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(node);
                }
                Entry::Occupied(place) => {
                    let key = place.key().clone();
                    self.note(Some(&key), ProblemKind::Duplicate);
                }
            }
        }
        let before = self.problems.len();
        let mut spec = self.start(&mut known)?;
        for (key, node) in known {
            match set(spec.clone(), &key, node) {
                Ok(changed) => spec = changed,
                Err(kind) => self.note(Some(&key), kind),
            }
        }
        (self.problems.len() == before).then_some(spec)
    }

    /// The spec with its address: without one, the other keys are checked against a stand-in.
    fn start(&mut self, known: &mut BTreeMap<String, Node>) -> Option<ConnectionSpec> {
        let stand_in = || Config::insecure("ws://localhost/").ok().map(ConnectionSpec::new);
        let insecure = match known.remove("allow_insecure").map(boolean).transpose() {
            Ok(insecure) => insecure.unwrap_or(false),
            Err(kind) => {
                self.note(Some("allow_insecure"), kind);
                false
            }
        };
        let config = match known.remove("uri") {
            // Its reference could not be filled in, and that is noted.
            Some(Node::Null) => return stand_in(),
            Some(node) => text(node).and_then(|uri| {
                let config = if insecure { Config::insecure(&uri) } else { Config::new(&uri) };
                config.map_err(in_terms_of_keys)
            }),
            None => Err(ProblemKind::Missing),
        };
        match config {
            Ok(config) => Some(ConnectionSpec::new(config)),
            Err(kind) => {
                self.note(Some("uri"), kind);
                stand_in()
            }
        }
    }
}

/// An error that names the key to set, where the configuration would name its constructor.
fn in_terms_of_keys(error: ConfigError) -> ProblemKind {
    match error {
        ConfigError::Insecure { host } => ProblemKind::Invalid {
            message: format!(
                "ws:// to {host} would send everything in the clear: use wss://, or set \
                 \"allow_insecure\": true"
            ),
        },
        other => other.into(),
    }
}

/// The spec with one key set.
fn set(mut spec: ConnectionSpec, key: &str, node: Node) -> Read<ConnectionSpec> {
    // `null` asks for the default, and stands for what has a problem that is noted already.
    if node == Node::Null {
        return Ok(spec);
    }
    let config = spec.config.clone();
    spec.config = match key {
        "vsn" => match text(node)?.as_str() {
            "2.0.0" => config.codec(Arc::new(V2))?,
            "1.0.0" => config.codec(Arc::new(V1))?,
            _ => return Err(invalid("it must be \"2.0.0\" or \"1.0.0\"")),
        },
        "headers" => pairs(node)?
            .into_iter()
            .try_fold(config, |config, (name, value)| config.header(name, value))?,
        "params" => {
            pairs(node)?.into_iter().fold(config, |config, (name, value)| config.param(name, value))
        }
        "auth_token" => config.auth_token(text(node)?),
        "connect_to" => config.connect_to(&text(node)?).map_err(in_terms_of_keys)?,
        "auto_join_channels" => channels(node)?
            .into_iter()
            .try_fold(config, |config, (topic, params)| config.auto_join(topic, params))?,
        "reconnect" => {
            if boolean(node)? {
                config
            } else {
                config.max_retries(Some(0))
            }
        }
        "max_retries" => {
            // `reconnect: false` is the stronger of the two, and comes later in the alphabet.
            config.max_retries(Some(number(node)?))
        }
        "max_elapsed_msec" => config.max_elapsed(Some(msec(node)?)),
        "reconnect_after_msec" => config.reconnect_after(steps(node)?),
        "rejoin_after_msec" => config.rejoin_after(steps(node)?),
        "refused_after_msec" => config.refused_after(steps(node)?),
        "rejected_after_msec" => config.rejected_after(steps(node)?),
        "first_retry_spread_msec" => config.first_retry_spread(range(node)?),
        "retry_after_max_msec" => config.retry_after_max(msec(node)?),
        "stable_after_msec" => config.stable_after(msec(node)?),
        "connect_timeout_msec" => config.connect_timeout(msec(node)?),
        "close_timeout_msec" => config.close_timeout(msec(node)?),
        "heartbeat_interval_msec" => config.heartbeat_interval(msec(node)?),
        "heartbeat_timeout_msec" => config.heartbeat_timeout(msec(node)?),
        "write_stall_timeout_msec" => config.write_stall_timeout(msec(node)?),
        "receive_rate_min" => config.receive_rate_min(number(node)?),
        "send_rate_min" => config.send_rate_min(number(node)?),
        "progress_max_msec" => config.progress_max(msec(node)?),
        "join_timeout_msec" => config.join_timeout(msec(node)?),
        "join_block_max_msec" => config.join_block_max(msec(node)?),
        "join_concurrency" => config.join_concurrency(number(node)?)?,
        "join_rejections_max" => config.join_rejections_max(number(node)?),
        "leave_timeout_msec" => config.leave_timeout(msec(node)?),
        "push_timeout_msec" => config.push_timeout(msec(node)?),
        "queued_pushes_max" => config.queued_pushes_max(number(node)?),
        "queued_bytes_max" => config.queued_bytes_max(number(node)?),
        "pushes_in_flight_max" => config.pushes_in_flight_max(number(node)?)?,
        "max_push_bytes" => config.max_push_bytes(number(node)?),
        "max_message_bytes" => config.max_message_bytes(number(node)?),
        "strict_payloads" => config.strict_payloads(boolean(node)?),
        "mailbox_messages_max" => {
            let bytes = config.mailbox_bytes_max;
            config.mailbox(number(node)?, bytes)?
        }
        "mailbox_bytes_max" => {
            let messages = config.mailbox_messages_max;
            config.mailbox(messages, number(node)?)?
        }
        "read_buffer_bytes" => {
            let write = config.write_buffer_bytes;
            config.buffers(number(node)?, write)?
        }
        "write_buffer_bytes" => {
            let read = config.read_buffer_bytes;
            config.buffers(read, number(node)?)?
        }
        _ => {
            set_around(&mut spec, key, node)?;
            config
        }
    };
    Ok(spec)
}

/// Sets a key that is not about the configuration itself.
fn set_around(spec: &mut ConnectionSpec, key: &str, node: Node) -> Read<()> {
    let policy = spec.restart.clone();
    match key {
        "tls" => spec.tls = Some(tls_files(node)?),
        "attributes" => {
            for (name, value) in pairs(node)? {
                if !crate::service::router::is_attribute_name(&name) {
                    return Err(ProblemKind::AttributeName);
                }
                spec.attributes.insert(name, value);
            }
        }
        "restart" => {
            spec.restart.restart = match text(node)?.as_str() {
                "permanent" => Restart::Permanent,
                "transient" => Restart::Transient,
                "temporary" => Restart::Temporary,
                _ => {
                    let message = "it must be \"transient\", \"permanent\" or \"temporary\"";
                    return Err(invalid(message));
                }
            };
        }
        "max_restarts" => spec.restart = policy.clone().intensity(number(node)?, policy.within),
        "max_restarts_msec" => {
            spec.restart = policy.clone().intensity(policy.max_restarts, msec(node)?);
        }
        // The table of keys lists what is matched here and in `set`; a test holds them together.
        _ => return Err(ProblemKind::UnknownKey { suggestion: None }),
    }
    Ok(())
}

fn tls_files(node: Node) -> Read<TlsFiles> {
    let Node::Object(members) = node else { return Err(wrong_type("an object", &node)) };
    let mut files = TlsFiles::default();
    for (key, node) in members {
        let place = match key.as_str() {
            "ca_file" => &mut files.ca_file,
            "cert_file" => &mut files.cert_file,
            "key_file" => &mut files.key_file,
            "server_name" => &mut files.server_name,
            other => {
                let hint = suggestion(other, keys::TLS.iter().map(|(key, _)| *key))
                    .map(|near| format!("; did you mean {near:?}?"));
                let hint = hint.unwrap_or_default();
                return Err(invalid(format!("there is no key {other:?} in it{hint}")));
            }
        };
        if place.replace(text(node)?).is_some() {
            return Err(invalid(format!("the key {key:?} is in it twice")));
        }
    }
    if files.cert_file.is_some() != files.key_file.is_some() {
        return Err(invalid("\"cert_file\" and \"key_file\" go together"));
    }
    Ok(files)
}

fn wrong_type(expected: &'static str, found: &Node) -> ProblemKind {
    ProblemKind::WrongType { expected, found: found.kind() }
}

fn invalid(message: impl Into<String>) -> ProblemKind {
    ProblemKind::Invalid { message: message.into() }
}

fn text(node: Node) -> Read<String> {
    match node {
        Node::Text(text) => Ok(text),
        other => Err(wrong_type("a string", &other)),
    }
}

fn boolean(node: Node) -> Read<bool> {
    match node {
        Node::Bool(value) => Ok(value),
        Node::Null => Ok(false),
        other => Err(wrong_type("true or false", &other)),
    }
}

fn number<T: TryFrom<u64>>(node: Node) -> Read<T> {
    let whole = match &node {
        Node::Number(number) => number.as_u64(),
        other => return Err(wrong_type("a number", other)),
    };
    whole
        .and_then(|whole| T::try_from(whole).ok())
        .ok_or_else(|| invalid("it must be a whole number that is not negative, nor too large"))
}

fn msec(node: Node) -> Read<Duration> {
    number(node).map(Duration::from_millis)
}

fn list(node: Node, expected: &'static str) -> Read<Vec<Node>> {
    match node {
        Node::List(nodes) => Ok(nodes),
        other => Err(wrong_type(expected, &other)),
    }
}

fn steps(node: Node) -> Read<Backoff> {
    let steps = list(node, "a list of milliseconds")?;
    let steps = steps.into_iter().map(msec).collect::<Read<Vec<_>>>()?;
    Ok(Backoff::steps(steps)?)
}

fn range(node: Node) -> Read<DelayRange> {
    let ends = list(node, "a pair of milliseconds")?;
    let ends = ends.into_iter().map(msec).collect::<Read<Vec<_>>>()?;
    match ends[..] {
        [from, to] => Ok(DelayRange::new(from, to)?),
        _ => Err(invalid("it must be a pair of milliseconds, [from, to]")),
    }
}

/// `{"a": "1"}` or `[["a", "1"]]`; numbers and booleans are written out.
fn pairs(node: Node) -> Read<Vec<(String, String)>> {
    const EXPECTED: &str = "an object, or a list of pairs";
    let value = |node: Node| match node {
        Node::Text(text) => Ok(text),
        Node::Number(number) => Ok(number.to_string()),
        Node::Bool(value) => Ok(value.to_string()),
        other => Err(wrong_type("made of strings", &other)),
    };
    match node {
        Node::Object(members) => {
            members.into_iter().map(|(name, node)| Ok((name, value(node)?))).collect()
        }
        Node::List(nodes) => nodes
            .into_iter()
            .map(|node| {
                let pair = list(node, EXPECTED)?;
                let [name, node] = <[Node; 2]>::try_from(pair)
                    .map_err(|_| invalid("a pair is a name and a value"))?;
                Ok((text(name)?, value(node)?))
            })
            .collect(),
        other => Err(wrong_type(EXPECTED, &other)),
    }
}

/// Topics, pairs of topic and parameters, or an object of them.
fn channels(node: Node) -> Read<Vec<(String, JoinParams)>> {
    const EXPECTED: &str = "a list of topics, or an object";
    let params = |node: Node| match node {
        Node::Null => JoinParams::none(),
        node => JoinParams::from(Payload::from(node.into_value())),
    };
    let channels: Vec<(String, JoinParams)> = match node {
        Node::Object(members) => {
            members.into_iter().map(|(topic, node)| (topic, params(node))).collect()
        }
        Node::List(nodes) => nodes
            .into_iter()
            .map(|node| match node {
                Node::Text(topic) => Ok((topic, JoinParams::none())),
                Node::List(pair) => {
                    let [topic, node] = <[Node; 2]>::try_from(pair).map_err(|_| {
                        invalid("a channel is a topic, or a pair with its parameters")
                    })?;
                    Ok((text(topic)?, params(node)))
                }
                other => Err(wrong_type(EXPECTED, &other)),
            })
            .collect::<Read<_>>()?,
        other => return Err(wrong_type(EXPECTED, &other)),
    };
    for (index, (topic, _)) in channels.iter().enumerate() {
        if channels[..index].iter().any(|(earlier, _)| earlier == topic) {
            return Err(invalid(format!("the channel {topic:?} is in it twice")));
        }
    }
    Ok(channels)
}
