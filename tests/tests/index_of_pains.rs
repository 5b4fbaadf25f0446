//! The index: every complaint about another client that a client core can be blamed for, and
//! every fact about the server, is answered by a test that says so in its doc comment, as
//! `User pain 27` or `S4:`. Numbers are those of the two surveys that the project began with.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The complaints about reconnecting, credentials, retries, heartbeats, pushes and channels.
const PAINS: std::ops::RangeInclusive<u32> = 1..=62;

/// The facts about the server.
const FACTS: std::ops::RangeInclusive<u32> = 1..=13;

/// Complaints that nothing here answers, and why.
const NOT_APPLICABLE: &[(u32, &str)] = &[(
    32,
    "disconnecting when nothing is joined is the application's decision: it sees \
     `Socket::channels` and has `disconnect`",
)];

const DIRS: [&str; 4] = ["phx-proto/tests", "phx-tokio/tests", "phx-smol/tests", "tests/tests"];

#[derive(Debug, Default)]
struct Index {
    pains: BTreeMap<u32, Vec<String>>,
    facts: BTreeMap<u32, Vec<String>>,
    /// Citations that are not in the doc comment of a test, or not written so that they can be
    /// searched for.
    faults: Vec<String>,
}

/// The numbers that a line of text cites after `prefix`.
fn cited(line: &str, prefix: &str) -> Vec<u32> {
    line.split(prefix)
        .skip(1)
        .filter_map(|rest| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        })
        .collect()
}

/// The fact that a doc comment's line is about: `S4: …`.
fn fact(doc: &str) -> Option<u32> {
    let (number, _) = doc.strip_prefix('S')?.split_once(':')?;
    number.parse().ok()
}

fn scan(place: &str, source: &str, index: &mut Index) {
    let mut doc: Vec<&str> = Vec::new();
    let mut is_test = false;
    for (nr, line) in source.lines().enumerate() {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("///") {
            doc.push(text.trim());
            continue;
        }
        if line.to_lowercase().contains("user pain ") && !line.starts_with("//!") {
            index.faults.push(format!("{place}:{}: not in a doc comment", nr + 1));
        }
        if line.starts_with("#[") {
            is_test |= line.contains("test]") || line.contains("test(");
            continue;
        }
        let name = line.split("fn ").nth(1).and_then(|rest| rest.split('(').next());
        let what = name.filter(|_| is_test).map(|name| format!("{place}: {name}"));
        for text in &doc {
            if text.to_lowercase().contains("user pains ") {
                index.faults.push(format!("{place}:{}: one at a time: {text}", nr + 1));
            }
            let (pains, facts) = (cited(text, "User pain "), fact(text));
            match &what {
                Some(what) => {
                    for pain in pains {
                        index.pains.entry(pain).or_default().push(what.clone());
                    }
                    if let Some(fact) = facts {
                        index.facts.entry(fact).or_default().push(what.clone());
                    }
                }
                None if pains.is_empty() => {}
                None => index.faults.push(format!("{place}:{}: not of a test: {text}", nr + 1)),
            }
        }
        doc.clear();
        is_test = false;
    }
}

fn index() -> Index {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut index = Index::default();
    let mut files = 0;
    let mut folders: Vec<_> = DIRS.iter().map(|dir| root.join(dir)).collect();
    while let Some(folder) = folders.pop() {
        // A crate without tests of its own has no such directory.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if !name.ends_with(".rs") || name == "index_of_pains.rs" {
                continue;
            }
            files += 1;
            let source = fs::read_to_string(&path).expect("UTF-8");
            scan(&path.display().to_string(), &source, &mut index);
        }
    }
    assert!(files > 10, "{files} files found: not the workspace?");
    index
}

fn missing(
    wanted: std::ops::RangeInclusive<u32>,
    found: &BTreeMap<u32, Vec<String>>,
) -> BTreeSet<u32> {
    wanted.filter(|nr| !found.contains_key(nr)).collect()
}

#[test]
fn every_complaint_is_answered_by_a_test_or_says_why_not() {
    let index = index();
    assert_eq!(index.faults, Vec::<String>::new());
    let excused: BTreeSet<u32> = NOT_APPLICABLE.iter().map(|(nr, _)| *nr).collect();
    assert_eq!(missing(PAINS, &index.pains), excused, "{:#?}", index.pains);
    assert!(NOT_APPLICABLE.iter().all(|(_, reason)| !reason.is_empty()));
}

#[test]
fn every_fact_about_the_server_has_a_test() {
    let index = index();
    assert_eq!(missing(FACTS, &index.facts), BTreeSet::new(), "{:#?}", index.facts);
    let unknown: Vec<_> = index.facts.keys().filter(|nr| !FACTS.contains(nr)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn only_the_doc_comment_of_a_test_counts() {
    let mut index = Index::default();
    let source = "
        /// User pain 1.
        /// S2: fact.
        #[test]
        fn good() {}

        /// User pain 3: an attribute more.
        /// User pain 4 and User pain 5.
        #[allow(unused)]
        #[tokio::test(flavor = \"multi_thread\")]
        async fn also_good() {}

        /// User pain 6.
        fn helper() {}

        /// User pains 7 and 8.
        #[test]
        fn plural() {}

        // User pain 9.
        #[test]
        fn comment() {}
    ";
    scan("x.rs", source, &mut index);
    assert_eq!(index.pains.keys().copied().collect::<Vec<_>>(), [1, 3, 4, 5]);
    assert_eq!(index.facts.keys().copied().collect::<Vec<_>>(), [2]);
    assert_eq!(index.pains[&1], ["x.rs: good"]);
    let faults: Vec<_> = index.faults.iter().map(|fault| &fault[..8]).collect();
    assert_eq!(faults, ["x.rs:14:", "x.rs:18:", "x.rs:20:"], "{:?}", index.faults);
}
