//! The code map of ARCHITECTURE.md is complete, and names nothing that is not there.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The section that says where things are.
fn code_map() -> String {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let map = text.split("## Where things are").nth(1).expect("the section");
    map.split("\n## ").next().unwrap().to_owned()
}

/// What is in backquotes and looks like a file or a folder.
fn named(map: &str) -> Vec<&str> {
    let quoted = map.split('`').skip(1).step_by(2);
    let path = |name: &&str| name.ends_with(".rs") || name.ends_with('/') && !name.contains(':');
    quoted.filter(path).collect()
}

/// Every `.rs` file under a folder, as a path from there.
fn sources(folder: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            sources(&entry.path(), &format!("{prefix}{name}/"), found);
        } else if name.ends_with(".rs") {
            found.push(format!("{prefix}{name}"));
        }
    }
}

/// The files that are neither named nor in a folder that is.
fn missing(files: &[String], map: &str) -> Vec<String> {
    let named = named(map);
    let found = |file: &&String| {
        named.iter().any(|name| file == name || name.ends_with('/') && file.starts_with(name))
    };
    files.iter().filter(|file| !found(file)).cloned().collect()
}

/// Modules of the core by their path from its `src`, all else by that from the workspace.
fn files() -> Vec<String> {
    let mut files = Vec::new();
    sources(&root().join("phx-proto/src"), "", &mut files);
    for adapter in ["phx-tokio/src/", "phx-smol/src/"] {
        sources(&root().join(adapter), adapter, &mut files);
    }
    // The table of contents of a crate is where its name is.
    files.retain(|file| !file.ends_with("lib.rs"));
    files
}

#[test]
fn every_source_file_is_in_the_code_map() {
    let (files, map) = (files(), code_map());
    assert!(files.len() > 100, "the files are found: {files:?}");
    assert_eq!(missing(&files, &map), [""; 0], "not in the code map of ARCHITECTURE.md");
    // It would be seen.
    assert_eq!(missing(&["other.rs".to_owned()], &map), ["other.rs"]);
    assert_eq!(missing(&files, &map.replace("`rng.rs`", "")), ["rng.rs"]);
}

#[test]
fn the_code_map_names_nothing_that_is_not_there() {
    let bases = ["phx-proto/src", "", "phx-proto/tests", "tests/tests"];
    let map = code_map();
    let there = |name: &&&str| match name.split_once('*') {
        None => bases.iter().any(|base| root().join(base).join(name).exists()),
        Some((start, end)) => {
            let mut all = Vec::new();
            for folder in ["phx-proto/tests", "tests/tests"] {
                sources(&root().join(folder), &format!("{folder}/"), &mut all);
            }
            all.iter().any(|file| file.starts_with(start) && file.ends_with(end))
        }
    };
    let named = named(&map);
    let gone: Vec<_> = named.iter().filter(|name| !there(name)).collect();
    assert!(gone.is_empty(), "{gone:?} of the code map are not there");
}
