//! The committed corpora of `fuzz/`, through the same functions that libFuzzer calls.

use std::fs;
use std::path::Path;

/// Runs every file of every corpus; the last line of a failure's output names the file.
#[test]
fn corpus_of_every_fuzz_target_passes() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, target) in crate::targets::ALL {
        let corpus = corpora.join(name);
        let entries = fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{name}: no files");
        for file in files {
            let data = fs::read(&file).expect("a file");
            // `cargo test` prints this only when the test fails. The last line then names the file that
            // made it fail.
            println!("{}", file.display());
            target(&data);
        }
    }
}
