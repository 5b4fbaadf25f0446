//! `Presence` is compared with that of the official client, for the same states and diffs: the
//! lists are equal, and so are the changes, if an `Update` is read as a join and a leave.
//!
//! Some inputs are not compared, because no Phoenix server sends them: messages that are not
//! presence messages, a diff without one of its members, a null `phx_ref_prev`, duplicate members
//! in one object, and text that is not Unicode. The order of the keys is not compared either,
//! because in JavaScript it depends on whether they look like numbers. The one intended difference
//! has a separate test.
//!
//! `PHX_CASES` multiplies the number of cases, and `PHX_SEED` repeats a run.

use core::cell::RefCell;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use phx_proto::presence::{PresenceChange, PresenceMeta};
use phx_proto::{Payload, Presence};
use phx_tests::peers::{Script, available};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{FileFailurePersistence, RngSeed, TestRunner};
use serde_json::{Map, Value, json};

/// How long one case may take the official client.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// An event of a channel that its presence handles.
#[derive(Clone, Debug)]
enum Step {
    /// The channel was joined, for the first time or again.
    Joined,
    /// Messages were lost: everything before the next join is ignored.
    Lost,
    State(Value),
    Diff {
        joins: Value,
        leaves: Value,
    },
}

/// The official client's `Presence`, in one process for all cases.
struct Official(RefCell<Script>);

impl Official {
    fn start() -> Self {
        Self(RefCell::new(Script::node("presence.mjs", &[])))
    }

    fn ask(&self, steps: Vec<Value>) -> VecDeque<Value> {
        let mut node = self.0.borrow_mut();
        node.send(&Value::Array(steps));
        let answer = node.receive(ANSWER_MAX).expect("the script runs");
        serde_json::from_value(answer).expect("an array")
    }

    fn end(self) {
        let (status, stderr) = self.0.into_inner().end(ANSWER_MAX);
        assert!(status.success(), "{stderr}");
    }
}

// The inputs.

fn keys() -> impl Strategy<Value = String> {
    // The last two are names that every JavaScript object inherits.
    const KEYS: &[&str] = &[
        "ann",
        "bob",
        "",
        "7",
        "10",
        "zoë",
        "名前",
        "👩‍🚀",
        "a b\"\\\n",
        "constructor",
        "__proto__",
    ];
    select(KEYS).prop_map(str::to_owned)
}

fn data() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i32>().prop_map(Value::from),
        (-1000..1000i32).prop_map(|n| Value::from(f64::from(n) / 8.0)),
        select(vec![
            json!(null),
            json!(true),
            json!(""),
            json!("\u{0}\u{2028}é👩‍🚀"),
            json!([]),
            json!({}),
            json!({"metas": [{"phx_ref": "F1"}], "phx_ref": "F2"}),
            json!([1, {"__proto__": null, "größe": [1e300, -0.5]}]),
        ]),
    ]
}

/// Members that the protocol does not define.
fn others() -> impl Strategy<Value = Map<String, Value>> {
    let names = select(&["user", "typing", "device", "größe"][..]).prop_map(str::to_owned);
    vec((names, data()), 0..3).prop_map(|members| members.into_iter().collect())
}

/// A ref of a small set, so that refs repeat.
fn refs() -> impl Strategy<Value = String> {
    select(&["F1", "F2", "F3", "F4", "F5", "é"][..]).prop_map(str::to_owned)
}

fn metas() -> impl Strategy<Value = Value> {
    (refs(), proptest::option::weighted(0.4, refs()), others()).prop_map(|(own, prev, mut meta)| {
        meta.insert("phx_ref".into(), own.into());
        if let Some(prev) = prev {
            meta.insert("phx_ref_prev".into(), prev.into());
        }
        meta.into()
    })
}

fn entries() -> impl Strategy<Value = Value> {
    let metas = prop_oneof![4 => vec(metas(), 0..4), 1 => vec(metas(), 4..16)];
    let entry = (metas, others()).prop_map(|(metas, mut entry)| {
        entry.insert("metas".into(), metas.into());
        Value::from(entry)
    });
    vec((keys(), entry), 0..4).prop_map(|entries| entries.into_iter().collect())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => Just(Step::Joined),
        1 => Just(Step::Lost),
        3 => entries().prop_map(Step::State),
        6 => (entries(), entries()).prop_map(|(joins, leaves)| Step::Diff { joins, leaves }),
    ];
    vec(step, 1..16).prop_map(|mut steps| {
        steps.insert(0, Step::Joined);
        steps
    })
}

// The server.

/// A change on the server.
#[derive(Clone, Debug)]
enum Change {
    Track {
        key: String,
        data: Map<String, Value>,
    },
    Update {
        which: usize,
        data: Map<String, Value>,
    },
    Untrack {
        which: usize,
    },
    /// The connection is lost. The channel is joined again after `missed` further changes. The
    /// state is sent after another `before_state` changes, which it contains.
    Gap {
        missed: usize,
        before_state: usize,
    },
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        4 => (keys(), others()).prop_map(|(key, data)| Change::Track { key, data }),
        3 => (any::<usize>(), others()).prop_map(|(which, data)| Change::Update { which, data }),
        3 => any::<usize>().prop_map(|which| Change::Untrack { which }),
        1 => (0..5usize, 0..4usize)
            .prop_map(|(missed, before_state)| Change::Gap { missed, before_state }),
    ];
    vec(change, 1..40)
}

/// A server's list, and those of its events that reach the client.
#[derive(Default)]
struct Tracker {
    /// Keys and metas, in the order in which they were tracked.
    metas: Vec<(String, Value)>,
    drawn: u32,
    /// The number of changes until the channel is joined again.
    until_join: Option<usize>,
    /// The number of changes from that join until the state is sent.
    until_state: Option<usize>,
    /// The events that the client receives.
    steps: Vec<Step>,
}

impl Tracker {
    /// Applies all changes, from a first join to a last state.
    fn run(changes: Vec<Change>) -> Self {
        let mut this = Self { until_join: Some(0), until_state: Some(1), ..Self::default() };
        for change in changes {
            this.catch_up();
            this.perform(change);
        }
        this.until_join = this.until_join.map(|_| 0);
        this.until_state = this.until_state.map(|_| 0);
        this.catch_up();
        this
    }

    /// Joins and sends the state if they are due.
    fn catch_up(&mut self) {
        if self.until_join == Some(0) {
            self.until_join = None;
            self.steps.push(Step::Joined);
        }
        if self.until_join.is_none() && self.until_state == Some(0) {
            self.until_state = None;
            self.steps.push(Step::State(self.list().into_iter().collect()));
        }
    }

    fn perform(&mut self, change: Change) {
        let (joins, leaves) = match change {
            Change::Gap { missed, before_state } => {
                self.until_join = Some(missed);
                self.until_state = Some(before_state);
                self.steps.push(Step::Lost);
                return;
            }
            Change::Track { key, data } => {
                let meta = self.draw(data, None);
                self.metas.push((key.clone(), meta.clone()));
                (Some((key, meta)), None)
            }
            Change::Update { which, data } if !self.metas.is_empty() => {
                let which = which % self.metas.len();
                let (key, before) = self.metas[which].clone();
                let after = self.draw(data, Some(before["phx_ref"].clone()));
                self.metas[which].1 = after.clone();
                (Some((key.clone(), after)), Some((key, before)))
            }
            Change::Untrack { which } if !self.metas.is_empty() => {
                (None, Some(self.metas.remove(which % self.metas.len())))
            }
            Change::Update { .. } | Change::Untrack { .. } => return,
        };
        if let Some(changes) = &mut self.until_join {
            *changes -= 1;
            return;
        }
        if let Some(changes) = &mut self.until_state {
            *changes -= 1;
        }
        let entries = |of: Option<(String, Value)>| {
            of.into_iter().map(|(key, meta)| (key, json!({ "metas": [meta] }))).collect()
        };
        self.steps.push(Step::Diff { joins: entries(joins), leaves: entries(leaves) });
    }

    fn draw(&mut self, mut data: Map<String, Value>, prev: Option<Value>) -> Value {
        self.drawn += 1;
        data.insert("phx_ref".into(), format!("F{}", self.drawn).into());
        data.extend(prev.map(|prev| ("phx_ref_prev".to_owned(), prev)));
        data.into()
    }

    fn list(&self) -> List {
        let mut list = BTreeMap::<String, Vec<Value>>::new();
        for (key, meta) in &self.metas {
            list.entry(key.clone()).or_default().push(meta.clone());
        }
        list.into_iter().map(|(key, metas)| (key, json!({ "metas": metas }))).collect()
    }
}

// The comparison.

/// Runs both, compares after every step, and returns our list and all our changes.
fn compare(
    official: &Official,
    steps: &[Step],
) -> Result<(Presence, Vec<PresenceChange>), TestCaseError> {
    let mut answers = official.ask(official_steps(steps));
    let mut ours = Presence::<Value>::new();
    let mut all = Vec::new();
    let mut lost = false;
    for (nr, step) in steps.iter().enumerate() {
        let changes = match step {
            Step::Joined => {
                ours.joined();
                lost = false;
                // Diffs held back for the earlier join are dropped: see the last test.
                answers.pop_front();
                Vec::new()
            }
            Step::Lost => {
                ours.lost();
                lost = true;
                Vec::new()
            }
            Step::State(state) => ours.sync_state(&Payload::from(state.clone())).expect("a state"),
            Step::Diff { joins, leaves } => {
                let diff = json!({ "joins": joins, "leaves": leaves });
                ours.sync_diff(&Payload::from(diff)).expect("a diff")
            }
        };
        if lost {
            prop_assert!(changes.is_empty() && !ours.is_synced(), "step {nr}: {changes:?}");
            continue;
        }
        let theirs = answers.pop_front().expect("an answer for each step");
        let waiting = theirs["waiting"].as_bool().expect("waiting or not");
        prop_assert_eq!(!ours.is_synced(), waiting, "step {}", nr);
        prop_assert_eq!(list(&ours), their_list(&theirs), "the lists after step {}", nr);
        if let Err(difference) = same_changes(&changes, &theirs) {
            return Err(TestCaseError::fail(format!(
                "step {nr}: {difference}\nours {changes:#?}\ntheirs {}",
                theirs["calls"]
            )));
        }
        all.extend(changes);
    }
    prop_assert!(answers.is_empty());
    Ok((ours, all))
}

fn official_steps(steps: &[Step]) -> Vec<Value> {
    let mut official = Vec::new();
    let mut lost = false;
    for step in steps {
        match step {
            Step::Joined => {
                lost = false;
                official.push(json!({ "drop_held": true }));
                official.push(json!({ "joined": true }));
            }
            Step::Lost => lost = true,
            // The official client does not know that messages were lost; it just receives none.
            _ if lost => {}
            Step::State(state) => official.push(json!({ "state": state })),
            Step::Diff { joins, leaves } => {
                official.push(json!({ "diff": { "joins": joins, "leaves": leaves } }));
            }
        }
    }
    official
}

type List = BTreeMap<String, Value>;

fn list(ours: &Presence) -> List {
    let entry = |entry| as_doubles(serde_json::to_value(entry).expect("JSON"));
    ours.list().map(|(key, it)| (key.to_owned(), entry(it))).collect()
}

fn their_list(theirs: &Value) -> List {
    let pairs: Vec<(String, Value)> =
        serde_json::from_value(theirs["list"].clone()).expect("keys and entries");
    let count = pairs.len();
    let list: List = pairs.into_iter().map(|(key, entry)| (key, as_doubles(entry))).collect();
    assert_eq!(list.len(), count, "a key came twice");
    list
}

/// Converts all numbers to doubles, the only numbers of JavaScript.
fn as_doubles(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(items) => items.into_iter().map(as_doubles).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (name, as_doubles(value))).collect()
        }
        other => other,
    }
}

/// Whether the changes of phx equal the callbacks of the official client, key by key and in order.
/// The official client reports at most one join and one leave per key and diff. phx reports updates
/// for metas that are linked by `phx_ref_prev`, and a join and a leave for the rest.
fn same_changes(ours: &[PresenceChange], theirs: &Value) -> Result<(), String> {
    let mut by_key = BTreeMap::<&str, VecDeque<&PresenceChange>>::new();
    for change in ours {
        by_key.entry(change.key()).or_default().push_back(change);
    }
    let mut owed = BTreeMap::<&str, Vec<Value>>::new();
    for call in theirs["calls"].as_array().expect("calls") {
        let edge = call["edge"].as_bool().expect("an edge or not");
        let expected: Vec<Value> =
            call["metas"].as_array().expect("metas").iter().cloned().map(as_doubles).collect();
        let joined = call["join"].is_string();
        let key = call[if joined { "join" } else { "leave" }].as_str().expect("a key");
        let changes = by_key.entry(key).or_default();
        let owed = owed.entry(key).or_default();
        let mut got = if joined { Vec::new() } else { core::mem::take(owed) };
        let mut got_edge = false;
        if joined {
            while let Some(PresenceChange::Update { before, after, .. }) =
                changes.pop_front_if_update(got.len() < expected.len())
            {
                owed.push(meta(before));
                got.push(meta(after));
            }
        }
        // The metas that were not updates must be in one join or one leave.
        if got.len() < expected.len() || expected.is_empty() {
            let (metas, at_edge) = match (joined, changes.pop_front()) {
                (true, Some(PresenceChange::Join { metas, first, .. })) => (metas, *first),
                (false, Some(PresenceChange::Leave { metas, last, .. })) => (metas, *last),
                (_, change) => return Err(format!("{change:?} for {call}")),
            };
            got.extend(metas.iter().map(meta));
            got_edge = at_edge;
        }
        if in_any_order(got) != in_any_order(expected) || got_edge != edge {
            return Err(format!("not the same for {call}"));
        }
    }
    let left: Vec<_> = by_key.into_values().flatten().collect();
    if !left.is_empty() || owed.values().any(|metas| !metas.is_empty()) {
        return Err(format!("only ours: {left:?}, and leaves of updates {owed:?}"));
    }
    Ok(())
}

trait PopUpdate<'a> {
    fn pop_front_if_update(&mut self, more: bool) -> Option<&'a PresenceChange>;
}

impl<'a> PopUpdate<'a> for VecDeque<&'a PresenceChange> {
    fn pop_front_if_update(&mut self, more: bool) -> Option<&'a PresenceChange> {
        let is_update = matches!(self.front(), Some(PresenceChange::Update { .. }));
        (more && is_update).then(|| self.pop_front()).flatten()
    }
}

fn meta(meta: &PresenceMeta) -> Value {
    as_doubles(serde_json::to_value(meta).expect("JSON"))
}

fn in_any_order(metas: Vec<Value>) -> Vec<String> {
    let mut metas: Vec<String> = metas.iter().map(Value::to_string).collect();
    metas.sort();
    metas
}

// The tests.

/// Checks a property for many cases with one process, and prints the seed.
fn check<S: Strategy>(
    name: &str,
    count: u32,
    strategy: &S,
    property: impl Fn(&Official, S::Value) -> Result<(), TestCaseError>,
) {
    if !available(name) {
        return;
    }
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is a whole number")))
    };
    let seed = number("PHX_SEED").unwrap_or_else(|| {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        since.as_secs() ^ u64::from(since.subsec_nanos())
    });
    let cases = u64::from(count).saturating_mul(number("PHX_CASES").unwrap_or(1));
    println!("{name}: {cases} cases, PHX_SEED={seed}");
    let mut config = ProptestConfig::with_cases(u32::try_from(cases).unwrap_or(u32::MAX));
    config.rng_seed = RngSeed::Fixed(seed);
    config.max_shrink_iters = 5_000;
    let regressions =
        concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/peer_presence.txt");
    config.failure_persistence = Some(Box::new(FileFailurePersistence::Direct(regressions)));
    config.source_file = Some(file!());
    let official = Official::start();
    let result = TestRunner::new(config).run(strategy, |value| property(&official, value));
    if let Err(error) = result {
        panic!("PHX_SEED={seed}: {error}");
    }
    official.end();
}

/// The list and the changes, for random states and diffs.
/// Protocol: PRES-1, PRES-2, PRES-5.
#[test]
fn presence_equals_official_client() {
    check("random states and diffs", 2_000, &steps(), |official, steps| {
        compare(official, &steps).map(drop)
    });
}

/// A tracker acts as the server. It produces joins before their state, diffs that the state already
/// contains, and changes while messages are lost. In the end the list equals that of the server, it
/// can be built from the changes alone, and the official client agrees after every step.
#[test]
fn presence_converges_after_gaps() {
    check("gaps and resyncs", 1_000, &changes(), |official, changes| {
        let server = Tracker::run(changes);
        let (ours, changes) = compare(official, &server.steps)?;
        let refs = |metas: &Value| -> Vec<String> {
            let metas = metas["metas"].as_array().expect("metas");
            let mut refs: Vec<String> = metas.iter().map(|it| it["phx_ref"].to_string()).collect();
            // An updated meta keeps its place on the server and moves to the end at every client.
            refs.sort();
            refs
        };
        let by_refs = |list: List| -> BTreeMap<String, Vec<String>> {
            list.iter().map(|(key, entry)| (key.clone(), refs(entry))).collect()
        };
        prop_assert_eq!(by_refs(list(&ours)), by_refs(server.list()));
        prop_assert_eq!(added_up(&changes), list_of_metas(&ours));
        Ok(())
    });
}

type Metas = BTreeMap<String, BTreeMap<String, PresenceMeta>>;

fn list_of_metas(ours: &Presence) -> Metas {
    let metas = |metas: &[PresenceMeta]| {
        metas.iter().map(|meta| (meta.phx_ref.clone(), meta.clone())).collect()
    };
    ours.list().map(|(key, entry)| (key.to_owned(), metas(&entry.metas))).collect()
}

/// The list that results from the changes alone. `last` removes a key, and `first` must mark a new
/// key.
fn added_up(changes: &[PresenceChange]) -> Metas {
    let mut list = Metas::new();
    for change in changes {
        match change.clone() {
            PresenceChange::Join { key, metas, first } => {
                assert_eq!(first, !list.contains_key(&key), "{change:?}");
                let entry = list.entry(key).or_default();
                entry.extend(metas.into_iter().map(|meta| (meta.phx_ref.clone(), meta)));
            }
            PresenceChange::Leave { key, metas, last } => {
                let entry = list.get_mut(&key).expect("the key exists");
                for meta in metas {
                    entry.remove(&meta.phx_ref);
                }
                assert_eq!(last, entry.is_empty(), "{change:?}");
                if last {
                    list.remove(&key);
                }
            }
            PresenceChange::Update { key, before, after } => {
                let entry = list.get_mut(&key).expect("the key exists");
                entry.remove(&before.phx_ref);
                entry.insert(after.phx_ref.clone(), after);
            }
            other => panic!("unknown: {other:?}"),
        }
    }
    list
}

/// The one intended difference. If a channel is joined again before its state arrived, the official
/// client keeps the diffs that it held back and applies them to the state of the new join. So a
/// presence that joined before the interruption and left during it stays in the list forever. phx
/// drops these diffs, because the new state already includes them.
#[test]
fn presence_drops_diffs_of_earlier_join() {
    if !available("held back for another join") {
        return;
    }
    let ann = json!({"ann": {"metas": [{"phx_ref": "F1"}]}});
    let official = Official::start();
    let answers = official.ask(vec![
        json!({"joined": true}),
        json!({"diff": {"joins": ann, "leaves": {}}}),
        json!({"joined": true}),
        json!({"state": {}}),
    ]);
    let theirs = their_list(answers.back().expect("the state's answer"));
    assert_eq!(
        theirs,
        List::from([("ann".to_owned(), ann["ann"].clone())]),
        "the official client no longer keeps them"
    );
    official.end();

    let mut ours = Presence::<Value>::new();
    ours.joined();
    ours.sync_diff(&Payload::from(json!({"joins": ann, "leaves": {}}))).expect("a diff");
    ours.joined();
    assert_eq!(ours.sync_state(&Payload::from(json!({}))), Ok(Vec::new()));
    assert!(ours.is_empty());
}
