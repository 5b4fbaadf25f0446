//! The reader of documents. It records every problem and continues, so that a document can be fixed
//! in one pass.

use std::collections::BTreeMap;

use super::connection::Connection;
use super::deserialize::{keys, read, suggestion};
use super::error::{ConnectionsError, Problem, ProblemKind};
use super::node::Node;
use super::spec::ConnectionSpec;
use super::variables::fill;
use crate::config::Options;

type Members = Vec<(String, Node)>;
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The specifications by name, or every problem.
pub(super) fn document(
    document: Node,
    lookup: Lookup<'_>,
) -> Result<BTreeMap<String, ConnectionSpec>, ConnectionsError> {
    let mut problems = Vec::new();
    let mut specs = BTreeMap::new();
    for (name, node) in connections(document, &mut problems) {
        let mut reader = Reader { name: &name, lookup, problems: &mut problems };
        if name.is_empty() {
            reader.report(None, ProblemKind::EmptyName);
        }
        if specs.contains_key(&name) {
            reader.report(None, ProblemKind::Duplicate);
        }
        let spec = reader.connection(node);
        specs.insert(name, spec);
    }
    if !problems.is_empty() {
        return Err(ConnectionsError { problems });
    }
    // Without a problem every name has a specification.
    Ok(specs.into_iter().filter_map(|(name, spec)| Some((name, spec?))).collect())
}

/// The members of the document's key `connections`.
fn connections(document: Node, problems: &mut Vec<Problem>) -> Members {
    let mut report = |key: Option<&str>, kind| {
        let key = key.map(str::to_owned);
        problems.push(Problem { connection: None, key, kind });
    };
    let mut found = None;
    match document {
        Node::Object(members) => {
            for (key, node) in members {
                match (key.as_str(), node) {
                    ("connections", _) if found.is_some() => {
                        report(Some("connections"), ProblemKind::Duplicate);
                    }
                    ("connections", Node::Object(connections)) => found = Some(connections),
                    ("connections", other) => {
                        report(Some("connections"), wrong_type("an object", &other));
                        found = Some(Vec::new());
                    }
                    // Editors use this key to find the schema.
                    ("$schema", Node::Text(_)) => {}
                    (other, _) => {
                        let suggestion = suggestion(other, ["connections"]);
                        report(Some(other), ProblemKind::UnknownKey { suggestion });
                    }
                }
            }
        }
        other => report(None, wrong_type("an object with the key \"connections\"", &other)),
    }
    if found.is_none() && problems.is_empty() {
        let key = Some("connections".to_owned());
        problems.push(Problem { connection: None, key, kind: ProblemKind::Missing });
    }
    found.unwrap_or_default()
}

fn wrong_type(expected: &str, found: &Node) -> ProblemKind {
    ProblemKind::WrongType { expected: expected.to_owned(), found: found.kind() }
}

/// A reader of one connection.
struct Reader<'a> {
    name: &'a str,
    lookup: Lookup<'a>,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn report(&mut self, key: Option<&str>, kind: ProblemKind) {
        let (connection, key) = (Some(self.name.to_owned()), key.map(str::to_owned));
        self.problems.push(Problem { connection, key, kind });
    }

    fn connection(&mut self, node: Node) -> Option<ConnectionSpec> {
        let Node::Object(members) = node else {
            self.report(None, wrong_type("an object", &node));
            return None;
        };
        let before = self.problems.len();
        let (own, options) = (keys::<Connection>(), keys::<Options>());
        let mut seen: Vec<String> = Vec::new();
        let (mut own_members, mut option_members) = (Members::new(), Members::new());
        for (key, mut node) in members {
            let (is_own, is_option) = (own.contains(&&*key), options.contains(&&*key));
            if !is_own && !is_option {
                let known = own.iter().chain(options).copied();
                let suggestion = suggestion(&key, known);
                self.report(Some(&key), ProblemKind::UnknownKey { suggestion });
                continue;
            }
            if seen.contains(&key) {
                self.report(Some(&key), ProblemKind::Duplicate);
                continue;
            }
            seen.push(key.clone());
            // `null` means the default, and `uri` has none.
            if node == Node::Null {
                if key == "uri" {
                    self.report(Some(&key), ProblemKind::Missing);
                }
                continue;
            }
            if let Err(problem) = node.try_map_texts(&mut |text| fill(text, self.lookup)) {
                self.report(Some(&key), problem.into());
                continue;
            }
            let alone = [(key.clone(), node.clone())];
            let good = match is_option {
                true => read::<Options>(alone).map(drop),
                false => read::<Connection>(alone).map(drop),
            };
            // Serde accepts two equal keys in most objects.
            let good = good.and_then(|()| match node.repeated_key() {
                Some(repeated) => Err(ProblemKind::Invalid {
                    message: format!("the key {repeated:?} occurs twice in it"),
                }),
                None => Ok(()),
            });
            match good {
                Err(kind) => self.report(Some(&key), kind),
                Ok(()) if is_option => option_members.push((key, node)),
                Ok(()) => own_members.push((key, node)),
            }
        }
        if !seen.iter().any(|key| key == "uri") {
            self.report(Some("uri"), ProblemKind::Missing);
        }
        let whole = read::<Connection>(own_members)
            .and_then(|own| Ok((own, read::<Options>(option_members)?)));
        let spec = match whole {
            Ok((own, options)) => own.spec(options, |key, kind| self.report(Some(key), kind)),
            Err(kind) => {
                self.report(None, kind);
                None
            }
        };
        spec.filter(|_| self.problems.len() == before)
    }
}
