//! The documents are complete: every page of the manual is compiled, so that its programs run as
//! doctests, and every feature, example, dependency and event of `phx run` is documented.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The three crates that are published.
const PUBLISHED: [&str; 3] = ["phx-proto", "phx-tokio", "phx-smol"];

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

/// The features that are on by default.
fn default_features(package: &str) -> Vec<String> {
    let manifest = read(&format!("{package}/Cargo.toml"));
    let line = manifest.lines().find(|line| line.starts_with("default = ")).unwrap();
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The names in backticks in a cell of a table of features.
fn in_backticks(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The rows of the first table after a heading, as their cells.
fn table_after(document: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, rest) = document.split_once(&format!("\n{heading}\n")).expect("the heading exists");
    let rows = rest.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    let cells =
        |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    rows.map(cells).collect()
}

/// Requires that the cells name exactly the features of the package, and mark the default ones.
#[track_caller]
fn assert_features<'a>(package: &str, cells: impl IntoIterator<Item = &'a str>) {
    let (mut names, mut marked) = (BTreeSet::new(), BTreeSet::new());
    for part in cells.into_iter().flat_map(|cell| cell.split(',')) {
        let found = in_backticks(part);
        names.extend(found.clone());
        marked.extend(found.into_iter().filter(|_| part.contains("(default)")));
    }
    assert_eq!(names, features(package).into_iter().collect(), "features of {package}");
    assert_eq!(marked, default_features(package).into_iter().collect(), "defaults of {package}");
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
    for package in PUBLISHED {
        assert_names("README.md", &readme, &features(package));
        assert_names("README.md", &readme, &rust_files(&format!("{package}/examples")));
    }
}

/// The tables of features in the README and in the documentation of each crate list exactly the features of
/// its manifest, and mark those that are on by default.
#[test]
fn feature_tables_match_manifests() {
    let rows = table_after(&read("README.md"), "## Features");
    for package in PUBLISHED {
        let mut current = String::new();
        let cells = rows.iter().filter_map(|row| {
            if !row[0].is_empty() {
                row[0].clone_into(&mut current);
            }
            in_backticks(&current).iter().any(|name| name == package).then_some(&*row[1])
        });
        assert_features(package, cells);
        let documentation = crate_documentation(package).replace("//! ", "");
        let rows = table_after(&documentation, "# Features");
        assert_features(package, rows.iter().map(|row| &*row[0]));
    }
}

/// The documentation of each crate mentions its features, and that of an adapter its examples as well.
#[test]
fn crate_documentation_names_features_and_examples() {
    for package in PUBLISHED {
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

/// Every action of a workflow is pinned by the hash of a commit, with its version as a comment.
#[test]
fn workflow_actions_are_pinned() {
    let mut actions = 0;
    for entry in fs::read_dir(path_of(".github/workflows")).unwrap() {
        let workflow = fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in workflow.lines() {
            let line = line.trim_start().trim_start_matches("- ");
            let Some(action) = line.strip_prefix("uses: ") else { continue };
            if action.starts_with("./") {
                continue;
            }
            let (_, pin) = action.split_once('@').expect("an action has a version");
            let (hash, version) = pin.split_once(" # v").unwrap_or_default();
            let is_hash = hash.len() == 40 && hash.chars().all(|c| c.is_ascii_hexdigit());
            assert!(is_hash && !version.is_empty(), "pin by commit hash: {action}");
            actions += 1;
        }
    }
    assert!(actions > 10, "the search found only {actions} actions");
}

/// Whether the sources of a crate contain unsafe code.
fn has_unsafe(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() {
            return has_unsafe(&path);
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            return false;
        }
        let source = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        source.lines().any(|line| {
            let code = line.split("//").next().unwrap_or_default();
            let mut uses = code.match_indices("unsafe").filter(|(at, _)| {
                !code[..*at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_')
            });
            uses.any(|(at, word)| {
                let rest = &code[at + word.len()..];
                let next = rest.trim_start();
                let items = ["fn ", "impl ", "impl<", "extern ", "trait "];
                next.starts_with('{') || items.iter().any(|item| next.starts_with(item))
            })
        })
    })
}

/// The numbers of a package's version.
fn version(package: &Value) -> Vec<u64> {
    let version = package["version"].as_str().expect("a version");
    version.split(['.', '-', '+']).map_while(|number| number.parse().ok()).collect()
}

/// `DEPENDENCIES.md` lists exactly the direct dependencies of the published crates, with the features that
/// need them, their licences, and whether they contain unsafe code.
#[test]
fn dependencies_page_matches_manifests() {
    // For this platform only: its dependencies were downloaded for the build of this test, those of
    // other platforms may be missing.
    let rustc = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let about = String::from_utf8(rustc.stdout).expect("UTF-8");
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--all-features", "--locked", "--offline"]);
    cargo.args(["--filter-platform", host]);
    let output = cargo.current_dir(path_of("")).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("a list");
    let direct = |package: &&Value| PUBLISHED.contains(&package["name"].as_str().unwrap());
    let mut users: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for package in packages.iter().filter(direct) {
        for dependency in package["dependencies"].as_array().expect("a list") {
            let name = dependency["name"].as_str().expect("a name");
            if dependency["kind"].is_null() && !PUBLISHED.contains(&name) {
                users.entry(name.to_owned()).or_default().insert(package["name"].as_str().unwrap());
            }
        }
    }

    let page = read("DEPENDENCIES.md");
    let (table, _) = page.split_once("\n## ").expect("a further table follows");
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let rows: Vec<Vec<&str>> =
        rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect();
    let named: Vec<_> = rows.iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    assert_eq!(named, users.keys().cloned().collect::<Vec<_>>(), "the crates, in order");
    for (name, row) in named.iter().zip(&rows) {
        let [_, used_by, why, keeper, licence, is_unsafe] = row[..] else { panic!("{row:?}") };
        for package in PUBLISHED {
            let is_user = users[name].contains(package);
            assert_eq!(used_by.contains(package), is_user, "{name} is used by {package}");
        }
        for feature in in_backticks(used_by) {
            let known = PUBLISHED.iter().any(|package| {
                read(&format!("{package}/Cargo.toml")).contains(&format!("\n{feature} = ["))
            });
            assert!(known, "{name}: no feature {feature:?}");
        }
        assert!(!why.is_empty() && !keeper.is_empty(), "{name}");
        // Other crates may depend on older versions.
        let versions = packages.iter().filter(|package| package["name"] == name.as_str());
        let package = versions.max_by_key(|package| version(package)).expect("it is in the tree");
        let declared = package["license"].as_str().expect("a licence");
        assert_eq!(licence.replace(" OR ", "/"), declared.replace(" OR ", "/"), "{name}");
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let found = if has_unsafe(&manifest.with_file_name("src")) { "yes" } else { "no" };
        assert_eq!(is_unsafe, found, "{name}: unsafe");
    }
}
