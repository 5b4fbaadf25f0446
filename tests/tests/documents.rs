//! The pages of the manual are part of the crate, so that their programs run as doctests.

use std::fs;
use std::path::Path;

/// Every Markdown file in the manual's folder is included by a module.
#[test]
fn manual_pages_are_compiled() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../phx-proto/src");
    let read = |path: &str| fs::read_to_string(source.join(path)).unwrap();
    let modules = read("manual/mod.rs") + &read("recording/mod.rs");
    let mut pages = 0;
    for entry in fs::read_dir(source.join("manual")).unwrap() {
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
