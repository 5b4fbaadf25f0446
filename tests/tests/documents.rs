//! The documents are complete: every page of the manual is compiled, so that its programs run as
//! doctests, and every feature, example and event of `phx run` is documented.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn path_of(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read(path: &str) -> String {
    let path = path_of(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of the Rust files directly in a folder, without `.rs`.
fn rust_files(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(path_of(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> =
        names.filter_map(|name| name.strip_suffix(".rs").map(str::to_owned)).collect();
    names.sort();
    names
}

/// The features of a crate that applications use: all except `default` and `adapter`.
fn features(package: &str) -> Vec<String> {
    let manifest = read(&format!("{package}/Cargo.toml"));
    let section = manifest.split("[features]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let lines = section.lines().filter(|line| !line.starts_with('#'));
    let names = lines.filter_map(|line| Some(line.split_once(" = ")?.0.to_owned()));
    names.filter(|name| name != "default" && name != "adapter").collect()
}

/// The crate's documentation, from the head of its `lib.rs`.
fn crate_documentation(package: &str) -> String {
    let source = read(&format!("{package}/src/lib.rs"));
    source.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n")
}

/// Requires that a document contains each name in backticks.
#[track_caller]
fn assert_names(document: &str, text: &str, names: &[String]) {
    assert!(!names.is_empty(), "no names to look for in {document}");
    let missing: Vec<_> =
        names.iter().filter(|name| !text.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "{document} does not mention {missing:?}");
}

/// Every Markdown file in the manual's folder is included by a module.
#[test]
fn manual_pages_are_compiled() {
    let modules = read("phx-proto/src/manual/mod.rs") + &read("phx-proto/src/recording/mod.rs");
    let mut pages = 0;
    for entry in fs::read_dir(path_of("phx-proto/src/manual")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            let included = ["", "../manual/"]
                .iter()
                .any(|folder| modules.contains(&format!("doc = include_str!(\"{folder}{name}\")")));
            assert!(included, "{name} is included by no module");
            pages += 1;
        }
    }
    assert!(pages > 0, "the manual has no pages");
}

/// The README mentions every feature and every example of every crate.
#[test]
fn readme_names_features_and_examples() {
    let readme = read("README.md");
    for package in ["phx-proto", "phx-tokio", "phx-smol"] {
        assert_names("README.md", &readme, &features(package));
        assert_names("README.md", &readme, &rust_files(&format!("{package}/examples")));
    }
}

/// The documentation of each crate mentions its features, and that of an adapter its examples as well.
#[test]
fn crate_documentation_names_features_and_examples() {
    for package in ["phx-proto", "phx-tokio", "phx-smol"] {
        let text = crate_documentation(package);
        assert_names(package, &text, &features(package));
        if package != "phx-proto" {
            assert_names(package, &text, &rust_files(&format!("{package}/examples")));
        }
    }
}

/// The page for operators has a row for each event whose type begins with `phx.`. The router's tests
/// compare the page of events with the types of all others.
#[test]
fn operators_page_lists_events_of_run() {
    let page = read("phx-proto/src/manual/operating.md");
    let mut events = BTreeSet::new();
    for folder in ["phx-tokio/src/bin/phx", "phx-tokio/src/bin/phx/run"] {
        for file in rust_files(folder) {
            let source = read(&format!("{folder}/{file}.rs"));
            let quoted = source.split('"').filter(|text| text.starts_with("phx."));
            events.extend(quoted.map(str::to_owned));
        }
    }
    assert!(events.len() >= 7, "the search found only {events:?}");
    let row = |event: &&String| page.contains(&format!("| `{event}` |"));
    let missing: Vec<_> = events.iter().filter(|event| !row(event)).collect();
    assert!(missing.is_empty(), "operating.md does not list {missing:?}");
}
