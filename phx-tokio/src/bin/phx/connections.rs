//! A file of connections: how it is read, and `phx check`.

use std::path::Path;

use phx_tokio::Connections;
use serde_json::json;

use crate::exit::Failed;
use crate::output::Output;

/// Says what a file holds, or everything that is wrong with it.
pub(crate) fn check(file: &Path) -> Result<(), Failed> {
    let connections = read(file)?;
    let output = Output::new();
    for (name, spec) in connections.iter() {
        let topics: Vec<&str> = spec.config().auto_joined().map(|topic| topic.as_str()).collect();
        let channels = match topics.len() {
            0 => "joins nothing by itself".to_owned(),
            _ => format!("joins {}", topics.join(", ")),
        };
        // Without the values of its query: they may be tokens.
        let uri = spec.config().uri().to_string();
        let object = json!({"name": name, "uri": uri, "channels": topics});
        if output.entry(name, &[&uri, &channels], &object).is_err() {
            break;
        }
    }
    Ok(())
}

/// The connections of a file, with the files that it names, or everything that is wrong.
pub(crate) fn read(file: &Path) -> Result<Connections, Failed> {
    let bad = |error: &dyn core::fmt::Display| {
        let lines: Vec<String> =
            error.to_string().lines().map(|line| format!("{}: {line}", file.display())).collect();
        Failed::File(lines)
    };
    let text = std::fs::read_to_string(file).map_err(|error| bad(&error))?;
    let connections = Connections::from_json(&text, |name| std::env::var(name).ok());
    let connections = connections.map_err(|error| bad(&error))?;
    connections.load_tls(|path| std::fs::read(path)).map_err(|error| bad(&error))
}
