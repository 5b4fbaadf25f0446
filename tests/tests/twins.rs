//! `phx-tokio` and `phx-smol` have the same public items, features and examples.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A crate of the workspace.
struct Twin {
    folder: PathBuf,
    runtime: &'static str,
    type_prefix: &'static str,
}

const TOKIO: (&str, &str) = ("tokio", "Tokio");
const SMOL: (&str, &str) = ("smol", "Smol");

impl Twin {
    fn new((runtime, type_prefix): (&'static str, &'static str)) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../phx-{runtime}"));
        Self { folder, runtime, type_prefix }
    }

    fn read(&self, path: &str) -> String {
        let path = self.folder.join(path);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The text with the runtime's name replaced by a neutral one.
    fn neutral(&self, text: &str) -> String {
        text.replace(self.type_prefix, "Runtime")
            .replace(self.runtime, "runtime")
            // These differ, because smol has one runtime for the whole program, but a tokio runtime
            // must be created.
            .replace("runtime::runtime::Runtime::new()?.block_on", "runtime::block_on")
    }

    /// Every `.rs` file directly in a folder, as its name and neutral text; empty if there is no folder.
    fn sources(&self, folder: &str) -> Vec<(String, String)> {
        let Ok(entries) = std::fs::read_dir(self.folder.join(folder)) else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.ends_with(".rs")).collect();
        names.sort();
        let source = |name: String| {
            let text = self.neutral(&self.read(&format!("{folder}/{name}")));
            (name, text)
        };
        names.into_iter().map(source).collect()
    }

    fn public_items(&self) -> BTreeSet<String> {
        let sources = self.sources("src");
        let items = sources.iter().flat_map(|(name, text)| {
            public_items(text).into_iter().map(move |item| format!("{name}: {item}"))
        });
        items.collect()
    }

    fn features(&self) -> Vec<String> {
        let manifest = self.read("Cargo.toml");
        let section = manifest.split("[features]\n").nth(1).unwrap().split("\n[").next().unwrap();
        // Comments are compared too, because they are the documentation of a feature.
        let lines = section.lines().filter(|line| line.starts_with('#') || line.contains(" = "));
        let named = lines.map(|line| match line.split_once(" = ") {
            Some((name, _)) if !name.starts_with('#') && name != "default" => name.to_owned(),
            _ => line.to_owned(),
        });
        named.filter(|line| line != "cli" && !line.contains("command `phx`")).collect()
    }
}

/// The public declarations of a source file outside of its tests, each on one line with its `cfg`
/// attributes, up to its body.
fn public_items(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]").next().unwrap();
    let mut items = Vec::new();
    let mut owner = String::new();
    let mut guard = String::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let code = line.trim();
        if line.starts_with("impl") || line.starts_with("pub trait") {
            owner = code.trim_end_matches('{').trim().to_owned();
            // Whether a type implements `Drop` is not part of its interface.
            let is_public = !is_private(source, &owner);
            if owner.contains(" for ") && is_public && !owner.starts_with("impl Drop") {
                items.push(owner.clone());
            }
        } else if line.starts_with('}') {
            owner.clear();
        }
        if code.starts_with("#[cfg") {
            code.clone_into(&mut guard);
        } else if let Some(rest) = code.strip_prefix("pub ") {
            let mut item = rest.to_owned();
            while !is_complete(&item) {
                let next = lines.next().expect("a declaration ends");
                item.push(' ');
                item.push_str(next.trim());
            }
            let item = item.trim_end_matches("{}").trim_end_matches(['{', ';', ',']).trim();
            let parts = [owner.as_str(), guard.as_str(), item];
            items.push(
                parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" "),
            );
        }
        if !code.starts_with("#[") && !code.starts_with("//") {
            guard.clear();
        }
    }
    items
}

/// Whether an `impl` is for a type that the same file declares as private.
fn is_private(source: &str, owner: &str) -> bool {
    let of = owner.rsplit_once(" for ").map_or("", |(_, of)| of);
    let name = of.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default();
    let is_declared = |line: &str| {
        let rest = line.strip_prefix("pub(crate) ").unwrap_or(line).strip_prefix("struct ");
        rest.is_some_and(|rest| {
            rest.strip_prefix(name).is_some_and(|rest| rest.starts_with(['(', ';', ' ', '<']))
        })
    };
    !name.is_empty() && source.lines().any(is_declared)
}

/// Whether a declaration or a field is complete up to its body or end.
fn is_complete(item: &str) -> bool {
    if item.starts_with("use ") {
        return item.ends_with(';');
    }
    let open = item.matches('(').count() > item.matches(')').count();
    !open && item.ends_with(['{', '}', ';', ','])
}

fn assert_same(what: &str, tokio: &BTreeSet<String>, smol: &BTreeSet<String>) {
    let only = |one: &BTreeSet<String>, other: &BTreeSet<String>| {
        one.difference(other).cloned().collect::<Vec<_>>()
    };
    let (tokio_only, smol_only) = (only(tokio, smol), only(smol, tokio));
    assert!(
        tokio_only.is_empty() && smol_only.is_empty(),
        "{what}: only phx-tokio has {tokio_only:#?}, only phx-smol has {smol_only:#?}"
    );
}

#[test]
fn adapters_have_same_public_items() {
    let (tokio, smol) = (Twin::new(TOKIO).public_items(), Twin::new(SMOL).public_items());
    assert_same("public items", &tokio, &smol);
    // The scan finds each kind of item.
    for known in [
        "lib.rs: async fn connect(setup: impl Into<client::Setup>) -> Result<Client, client::ConnectError>",
        "lib.rs: use crate::runtime::{RuntimeClock, RuntimeRuntime, RuntimeTimer}",
        "lib.rs: #[cfg(feature = \"testing\")] mod testing",
        "runtime.rs: impl RuntimeRuntime fn new() -> Self",
        "runtime.rs: impl Runtime for RuntimeRuntime",
        "testing.rs: impl Listener async fn kill(&mut self)",
    ] {
        assert!(tokio.contains(known), "{known} is not among {tokio:#?}");
    }
}

#[test]
fn additional_items_are_detected() {
    let before =
        "pub struct Listener {\n    addr: u8,\n}\n\nimpl Listener {\n    fn private() {}\n}\n";
    let gains = [
        "pub fn extra() {}\n".to_owned() + before,
        "pub(crate) fn hidden() {}\n\n#[cfg(feature = \"x\")]\npub mod extra;\n".to_owned()
            + before,
        before.replace("addr", "pub addr"),
        "pub use a::{\n    B,\n};\n".to_owned() + before,
        before.replace("fn private", "pub fn private"),
        before.replace("impl Listener", "impl Clone for Listener"),
    ];
    for source in gains {
        assert_ne!(public_items(before), public_items(&source), "{source}");
    }
    let wrapped = |last: &str| {
        format!("impl A {{\n    pub fn a(\n        b: u8,\n        {last}: u8,\n    ) {{}}\n}}\n")
    };
    assert_ne!(public_items(&wrapped("c")), public_items(&wrapped("d")));
    let of_private = |name: &str| format!("{before}struct {name};\nimpl Clone for Inner {{}}\n");
    assert_ne!(public_items(before), public_items(&of_private("Other")));
    assert_eq!(public_items(before), public_items(&of_private("Inner")));
    let hidden = before.replace("fn private", "pub(crate) fn private");
    assert_eq!(public_items(before), public_items(&hidden));
}

#[test]
fn adapters_have_same_features() {
    assert_eq!(Twin::new(TOKIO).features(), Twin::new(SMOL).features());
}

#[test]
fn adapters_document_same_example() {
    let example = |twin: &Twin| {
        let lib = twin.neutral(&twin.read("src/lib.rs"));
        lib.split("//! ```").nth(1).expect("an example").to_owned()
    };
    assert_eq!(example(&Twin::new(TOKIO)), example(&Twin::new(SMOL)));
}

/// The examples differ in the runtime's name only.
#[test]
fn adapters_have_same_examples() {
    let (tokio, smol) = (Twin::new(TOKIO).sources("examples"), Twin::new(SMOL).sources("examples"));
    assert!(tokio.iter().any(|(name, _)| name == "chat.rs"), "the chat client is missing");
    assert_eq!(tokio, smol);
}
