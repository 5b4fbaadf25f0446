//! The reader of a file of connections, and the command `phx check`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::env::VarError;
use std::path::Path;

use phx_tokio::Connections;
use phx_tokio::service::{ConnectionsError, Problem, ProblemKind};
use serde_json::{Value, json};

use crate::exit::Failed;
use crate::output::{entry, written};
use crate::source;

/// An example that the error shows if a file is valid JSON but has no connections.
const EXAMPLE: &str = r#"{"connections": {
  "backend": {
    "uri": "wss://example.com/socket/websocket",
    "params": {"token": "${TOKEN}"},
    "auto_join_channels": ["room:lobby"]
  }
}}"#;

/// Prints the connections of a file, or reports every problem in it.
pub(crate) fn check(file: &Path) -> Result<(), Failed> {
    let connections = read(file)?;
    for (name, spec) in connections.iter() {
        let topics: Vec<&str> = spec.config().auto_joined().map(|topic| topic.as_str()).collect();
        let channels = match topics.len() {
            0 => "joins no topics on its own".to_owned(),
            _ => format!("joins {}", topics.join(", ")),
        };
        // The address is printed without the values of its query, which may be tokens.
        let uri = spec.config().uri().to_string();
        let object = json!({"name": name, "uri": uri, "channels": topics});
        if !written(entry(name, &[&uri, &channels], &object))? {
            break;
        }
    }
    Ok(())
}

/// Reads the connections of a file, and the files that it names, or reports every problem.
pub(crate) fn read(file: &Path) -> Result<Connections, Failed> {
    let shown = source::shown(file);
    let bad = |error: &dyn core::fmt::Display| {
        let lines: Vec<String> =
            error.to_string().lines().map(|line| format!("{shown}: {line}")).collect();
        Failed::File(lines)
    };
    let text = source::document(file)?;
    if let Ok(Value::Object(members)) = serde_json::from_str(&text) {
        if !members.contains_key("connections") {
            let first = format!("{shown}: there is no key \"connections\", as in:");
            let lines = core::iter::once(first).chain(EXAMPLE.lines().map(str::to_owned));
            return Err(Failed::File(lines.collect()));
        }
    }
    // Variables that are set, but not to UTF-8. For the document they are not set.
    let odd = RefCell::new(BTreeSet::new());
    let connections = Connections::from_json(&text, |name| match std::env::var(name) {
        Ok(value) => Some(value),
        Err(VarError::NotPresent) => None,
        Err(VarError::NotUnicode(_)) => {
            odd.borrow_mut().insert(name.to_owned());
            None
        }
    });
    let odd = odd.into_inner();
    if !odd.is_empty() {
        let mut lines: Vec<String> =
            odd.iter().map(|name| format!("{shown}: the variable {name} is not UTF-8")).collect();
        let problems =
            connections.as_ref().err().map(ConnectionsError::problems).unwrap_or_default();
        let is_other = |problem: &&Problem| !matches!(&problem.kind, ProblemKind::VariableMissing { name } if odd.contains(name));
        let others = problems.iter().filter(is_other);
        lines.extend(others.map(|problem| format!("{shown}: {problem}")));
        return Err(Failed::File(lines));
    }
    let connections = connections.map_err(|error| bad(&error))?;
    connections.load_tls(|path| source::pem(path.as_ref())).map_err(|error| bad(&error))
}
