//! What the documents say about the code, as far as a program can tell.

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn names(folder: &str, end: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let names = fs::read_dir(path).unwrap().map(|it| it.unwrap().file_name().into_string());
    names.filter_map(|name| name.unwrap().strip_suffix(end).map(str::to_owned)).collect()
}

#[test]
fn every_page_of_the_manual_is_in_its_table_of_contents() {
    let contents = read("phx-proto/src/manual/mod.rs");
    for page in names("phx-proto/src/manual", ".md") {
        assert!(contents.contains(&format!("//! | [`{page}`]")), "{page}");
        // A module of its own, or the documentation of what it is about.
        let module = format!("pub mod {page} {{}}");
        let link = format!("[`{page}`](crate::{page})");
        assert!(contents.contains(&module) || contents.contains(&link), "{page}");
    }
}

#[test]
fn the_page_for_operators_names_every_event_and_every_option_of_run() {
    let page = read("phx-proto/src/manual/operating.md");
    let folder = "phx-tokio/src/bin/phx/run";
    let mut events = Vec::new();
    for file in names(folder, ".rs") {
        let source = read(&format!("{folder}/{file}.rs"));
        let quoted = source.split('"').filter(|text| text.starts_with("phx."));
        events.extend(quoted.map(str::to_owned));
    }
    assert!(events.len() >= 6, "{events:?}");
    for event in events {
        assert!(page.contains(&format!("| `{event}` |")), "{event}");
    }
    for option in ["--subscribe", "--grace", "--metrics", "--metrics-every", "--schema"] {
        assert!(page.contains(option), "{option}");
    }
}

#[test]
fn the_readme_names_every_example_and_every_feature() {
    let readme = read("README.md");
    for folder in ["phx-proto/examples", "phx-tokio/examples"] {
        for example in names(folder, ".rs") {
            assert!(readme.contains(&format!("`{example}`")), "{folder}/{example}");
        }
    }
    for manifest in ["phx-proto/Cargo.toml", "phx-tokio/Cargo.toml", "phx-smol/Cargo.toml"] {
        let manifest = read(manifest);
        let features = manifest.split("[features]\n").nth(1).unwrap().split("\n[").next().unwrap();
        for (feature, _) in features.lines().filter_map(|line| line.split_once(" = ")) {
            // For adapters, not for applications.
            let told = feature == "default" || feature == "adapter";
            assert!(told || readme.contains(&format!("`{feature}`")), "{feature}");
        }
    }
}

/// Two are longer and say why: a whole runtime, and a measurement. A whole service takes 120 lines of
/// code, those of its runtime included.
#[test]
fn an_example_is_under_60_lines() {
    for folder in ["phx-proto/examples", "phx-tokio/examples", "phx-smol/examples"] {
        for example in names(folder, ".rs") {
            let lines = read(&format!("{folder}/{example}.rs")).lines().count();
            let long = ["own_runtime", "storm", "service"].contains(&&*example);
            assert!(lines < 60 || long, "{folder}/{example} has {lines} lines");
        }
    }
    for folder in ["phx-tokio/examples", "phx-smol/examples"] {
        let service =
            ["service.rs", "service/outside.rs"].map(|file| read(&format!("{folder}/{file}")));
        let lines = service.iter().flat_map(|file| file.lines()).map(str::trim);
        let code = lines.filter(|line| !line.is_empty() && !line.starts_with("//")).count();
        assert!(code <= 120, "{folder}/service has {code} lines of code");
    }
}

/// What stands behind a line: the doc comment of an item.
fn docs_above(lines: &[&str], item: usize) -> String {
    let above = lines[..item].iter().rev().map(|line| line.trim());
    let above = above.take_while(|line| line.starts_with("///") || line.starts_with("#["));
    above.collect::<Vec<_>>().join("\n")
}

#[test]
fn every_async_fn_says_what_happens_when_it_is_dropped() {
    let folders = [
        "phx-proto/src/client",
        "phx-proto/src/service",
        "phx-proto/src/testing",
        "phx-tokio/src",
        "phx-smol/src",
    ];
    let mut count = 0;
    for folder in folders {
        for file in names(folder, ".rs") {
            let source = read(&format!("{folder}/{file}.rs"));
            let lines: Vec<&str> = source.lines().collect();
            for (item, line) in lines.iter().enumerate() {
                if line.trim_start().starts_with("pub async fn") {
                    let docs = docs_above(&lines, item).to_lowercase();
                    assert!(docs.contains("cancel safe"), "{folder}/{file}.rs: {line}");
                    count += 1;
                }
            }
        }
    }
    assert!(count > 20, "{count} are found");
}

#[test]
fn the_oldest_rust_is_the_same_everywhere() {
    let manifest = read("Cargo.toml");
    let version = manifest.split("rust-version = \"").nth(1).unwrap().split('"').next().unwrap();
    for document in ["README.md", "CONTRIBUTING.md"] {
        assert!(read(document).contains(&format!("Rust {version} or later")), "{document}");
    }
}
