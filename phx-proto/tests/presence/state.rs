//! Presence as a value: the list, its changes, and diffs that are held back until the state arrives.

use phx_proto::Frame;
use phx_proto::presence::{PresenceChange, PresenceError};
use phx_proto::wire::{Body, Codec, V2};
use phx_proto::{Payload, Presence};
use serde_json::{Value, json};

/// Metas with these values of `phx_ref` and no further members.
fn metas(refs: &[&str]) -> Value {
    let metas: Vec<Value> = refs.iter().map(|phx_ref| json!({ "phx_ref": phx_ref })).collect();
    json!({ "metas": metas })
}

fn state(presence: &mut Presence, state: Value) -> Vec<String> {
    described(presence.sync_state(&Payload::from(state)).expect("a state"))
}

fn diff(presence: &mut Presence, joins: Value, leaves: Value) -> Vec<String> {
    let payload = Payload::from(json!({ "joins": joins, "leaves": leaves }));
    described(presence.sync_diff(&payload).expect("a diff"))
}

fn described(changes: Vec<PresenceChange>) -> Vec<String> {
    let refs = |metas: Vec<phx_proto::presence::PresenceMeta>| {
        metas.into_iter().map(|meta| meta.phx_ref).collect::<Vec<_>>().join(" ")
    };
    changes
        .into_iter()
        .map(|change| match change {
            PresenceChange::Join { key, metas, first } => {
                format!("+{key} {}{}", refs(metas), if first { " first" } else { "" })
            }
            PresenceChange::Leave { key, metas, last } => {
                format!("-{key} {}{}", refs(metas), if last { " last" } else { "" })
            }
            PresenceChange::Update { key, before, after } => {
                format!("~{key} {} {}", before.phx_ref, after.phx_ref)
            }
            other => format!("{other:?}"),
        })
        .collect()
}

fn listed(presence: &Presence) -> Vec<String> {
    presence
        .list()
        .map(|(key, entry)| {
            let refs: Vec<&str> = entry.metas.iter().map(|meta| meta.phx_ref.as_str()).collect();
            format!("{key} {}", refs.join(" "))
        })
        .collect()
}

/// A diff that arrives before the state is held back, and applied when the state arrives. It is not
/// lost, and is not mistaken for the whole list. Reported in phoenixframework/phoenix#2255 and
/// phoenixframework/phoenix#3475.
/// Protocol: PRES-1, PRES-2, PRES-4.
#[test]
fn diff_before_state_is_held_back() {
    let mut presence = Presence::new();
    presence.joined();
    assert!(diff(&mut presence, json!({"bob": metas(&["b1"])}), json!({})).is_empty());
    assert!(presence.is_empty() && !presence.is_synced());
    let changes = state(&mut presence, json!({"ann": metas(&["a1"])}));
    assert_eq!(changes, ["+ann a1 first", "+bob b1 first"]);
    assert_eq!(listed(&presence), ["ann a1", "bob b1"]);
    assert!(presence.is_synced());
}

/// The state already contains the meta that the earlier diff adds
/// (`wire/presence_state_and_own_diff`).
/// Protocol: PRES-3.
#[test]
fn repeated_meta_is_listed_once() {
    let mut presence = Presence::new();
    diff(&mut presence, json!({"ann": metas(&["a1"])}), json!({}));
    state(&mut presence, json!({"ann": metas(&["a1"])}));
    assert_eq!(listed(&presence), ["ann a1"]);
    diff(&mut presence, json!({"ann": metas(&["a1", "a2"])}), json!({}));
    assert_eq!(listed(&presence), ["ann a1 a2"]);
}

/// Keys that left during a gap are reported as leaves. Reported in phoenixframework/phoenix#2255
/// and phoenixframework/phoenix#3475.
/// Protocol: PRES-7, PRES-8.
#[test]
fn resync_reports_joins_and_leaves() {
    let mut presence = Presence::new();
    state(&mut presence, json!({"ann": metas(&["a1", "a2"]), "bob": metas(&["b1"])}));
    presence.joined();
    assert_eq!(listed(&presence), ["ann a1 a2", "bob b1"], "the last thing known");
    let changes = state(&mut presence, json!({"ann": metas(&["a2", "a3"]), "cy": metas(&["c1"])}));
    assert_eq!(changes, ["+ann a3", "+cy c1 first", "-ann a1", "-bob b1 last"]);
    assert_eq!(listed(&presence), ["ann a2 a3", "cy c1"]);
}

/// An update is reported as one change, and not as a leave and a join (`wire/presence_update`).
/// Reported in phoenixframework/phoenix#2255 and phoenixframework/phoenix#3475.
/// Protocol: PRES-5, PRES-6.
#[test]
fn update_is_one_change() {
    let mut presence = Presence::new();
    state(&mut presence, json!({"ann": metas(&["a1", "x"])}));
    let changes = diff(
        &mut presence,
        json!({"ann": {"metas": [{"phx_ref": "a2", "phx_ref_prev": "a1"}, {"phx_ref": "y"}]}}),
        json!({"ann": metas(&["a1", "x"])}),
    );
    assert_eq!(changes, ["~ann a1 a2", "+ann y", "-ann x"]);
    assert_eq!(listed(&presence), ["ann a2 y"]);
}

#[test]
fn resync_recognises_updates() {
    let mut presence = Presence::new();
    state(&mut presence, json!({"ann": metas(&["a1"])}));
    presence.joined();
    let after = json!({"ann": {"metas": [{"phx_ref": "a2", "phx_ref_prev": "a1"}]}});
    assert_eq!(state(&mut presence, after), ["~ann a1 a2"]);
}

/// Every meta is in exactly one change. If two metas name the same predecessor, the second is a
/// join. If two metas leave with the same ref, the second is a leave.
#[test]
fn meta_appears_in_one_change() {
    let linked = |to: &str| json!({"phx_ref": to, "phx_ref_prev": "a1"});
    let mut presence = Presence::new();
    state(&mut presence, json!({"ann": metas(&["a1"])}));
    let joins = json!({"ann": {"metas": [linked("a2"), linked("a3")]}});
    let changes = diff(&mut presence, joins, json!({"ann": metas(&["a1"])}));
    assert_eq!(changes, ["~ann a1 a2", "+ann a3"]);

    let mut presence = Presence::new();
    state(&mut presence, json!({"ann": metas(&["a1", "a1"])}));
    let joins = json!({"ann": {"metas": [linked("a2")]}});
    let changes = diff(&mut presence, joins, json!({"ann": metas(&["a1", "a1"])}));
    assert_eq!(changes, ["~ann a1 a2", "-ann a1"]);
}

/// A consumer that counts keys by `first` and `last` gets the right number of keys.
#[test]
fn update_keeps_first_and_last() {
    let after = || json!({"ann": {"metas": [{"phx_ref": "a2", "phx_ref_prev": "a1"}]}});
    let mut presence = Presence::new();
    state(&mut presence, json!({}));
    let changes = diff(&mut presence, after(), json!({"ann": metas(&["a1"])}));
    assert_eq!(changes, ["+ann a2 first", "-ann a1"]);

    let mut presence = Presence::new();
    state(&mut presence, json!({"ann": metas(&["a1"])}));
    let itself = json!({"ann": {"metas": [{"phx_ref": "a1", "phx_ref_prev": "a1"}]}});
    let changes = diff(&mut presence, itself, json!({"ann": metas(&["a1"])}));
    assert_eq!(changes, ["+ann a1", "-ann a1 last"]);
    assert!(presence.is_empty());
}

/// A diff with a leave of a key that is not in the list changes nothing.
/// Protocol: PRES-3.
#[test]
fn leave_of_absent_key_is_ignored() {
    let mut presence = Presence::new();
    state(&mut presence, json!({}));
    assert!(diff(&mut presence, json!({}), json!({"ann": metas(&["a1"])})).is_empty());
}

/// At most 256 diffs are held back. After that, the channel must be joined again.
#[test]
fn too_many_held_diffs_are_an_error() {
    let mut presence: Presence = Presence::new();
    let payload = Payload::from(json!({"joins": {"ann": metas(&["a1"])}, "leaves": {}}));
    for _ in 0..256 {
        assert_eq!(presence.sync_diff(&payload), Ok(Vec::new()));
    }
    assert_eq!(presence.sync_diff(&payload), Err(PresenceError::OutOfSync));
    // The error is returned once. The state of the old join and its diffs are discarded.
    assert_eq!(presence.sync_diff(&payload), Ok(Vec::new()));
    assert!(state(&mut presence, json!({"bob": metas(&["b1"])})).is_empty());
    assert!(presence.is_empty() && !presence.is_synced());
    presence.joined();
    assert_eq!(state(&mut presence, json!({"bob": metas(&["b1"])})), ["+bob b1 first"]);
}

/// A malformed presence message is an error and changes nothing.
#[test]
fn malformed_message_changes_nothing() {
    let mut presence = Presence::<Value>::new();
    state(&mut presence, json!({"ann": metas(&["a1"])}));
    for bad in [json!([]), json!({"ann": {}}), json!({"ann": {"metas": [{}]}}), json!(null)] {
        let error = presence.sync_state(&Payload::from(bad.clone()));
        assert!(matches!(error, Err(PresenceError::Malformed(_))), "{bad}");
        let error = presence.sync_diff(&Payload::from(json!({ "joins": bad.clone() })));
        assert!(matches!(error, Err(PresenceError::Malformed(_))), "{bad}");
    }
    let error = presence.sync_diff(&Payload::binary("x"));
    assert!(matches!(error, Err(PresenceError::Malformed(_))));
    assert_eq!(listed(&presence), ["ann a1"]);
    assert!(presence.is_synced());
}

/// Metas have the type that the application chooses, and entries keep the members that `fetch` added
/// on the server.
/// Protocol: PRES-11.
#[test]
fn metas_are_typed_and_entries_complete() {
    #[derive(Clone, Debug, PartialEq, serde::Deserialize)]
    struct Device {
        name: String,
    }
    let mut presence = Presence::<Device>::new();
    let payload = json!({"7": {
        "metas": [{"phx_ref": "a1", "name": "phone"}],
        "user": {"nick": "ann"},
    }});
    presence.sync_state(&Payload::from(payload)).expect("a state");
    let entry = presence.get("7").expect("ann");
    assert_eq!(entry.metas[0].data, Device { name: "phone".into() });
    assert_eq!(entry.extra["user"], json!({"nick": "ann"}));
    let other = json!({"8": {"metas": [{"phx_ref": "b1", "nome": "?"}]}});
    let error = presence.sync_state(&Payload::from(other)).expect_err("no name");
    assert!(error.to_string().contains("name"), "{error}");
}

/// One diff may contain a meta and its successor. The list can still be built from the changes.
#[test]
fn replaced_new_meta_is_join_and_leave() {
    let mut presence = Presence::new();
    state(&mut presence, json!({"ann": metas(&["a1"])}));
    let joins = json!({"ann": {"metas": [
        {"phx_ref": "a3", "phx_ref_prev": "a2"},
        {"phx_ref": "a2"},
    ]}});
    let changes = diff(&mut presence, joins, json!({"ann": metas(&["a2"])}));
    assert_eq!(changes, ["+ann a3 a2", "-ann a2"]);
    assert_eq!(listed(&presence), ["ann a1 a3"]);
}

/// A number in a meta stays a number, even if another crate enables features of serde_json that
/// represent numbers differently.
#[test]
fn meta_numbers_stay_numbers() {
    #[derive(Clone, Debug, PartialEq, serde::Deserialize)]
    struct Meta {
        online_at: u64,
        score: f64,
        #[serde(default)]
        delta: Option<i32>,
    }
    let state = Payload::from(json!({"ann": {
        "metas": [{"phx_ref": "F1", "online_at": 1_700_000_000, "score": 0.5, "delta": -3}],
        "age": 42,
    }}));
    let mut typed = Presence::<Meta>::new();
    typed.joined();
    typed.sync_state(&state).expect("metas of that type");
    let entry = typed.get("ann").unwrap();
    let meta = Meta { online_at: 1_700_000_000, score: 0.5, delta: Some(-3) };
    assert_eq!((&entry.metas[0].data, &entry.extra["age"]), (&meta, &json!(42)));
    let mut untyped = Presence::<Value>::new();
    untyped.joined();
    untyped.sync_state(&state).expect("any metas");
    let entry = untyped.get("ann").unwrap();
    let again = serde_json::to_string(entry).expect("JSON");
    assert_eq!(serde_json::from_str::<Value>(&again).unwrap(), state.to_value().unwrap()["ann"]);
    for bad in [
        json!({"ann": {"metas": [{"online_at": 1, "score": 1.0}]}}),
        json!({"ann": {"metas": [{"phx_ref": 1, "online_at": 1, "score": 1.0}]}}),
        json!({"ann": {"metas": [{"phx_ref": "F", "online_at": -1, "score": 1.0}]}}),
        json!({"ann": {}}),
        json!({"ann": []}),
    ] {
        typed.joined();
        assert!(typed.sync_state(&Payload::from(bad.clone())).is_err(), "{bad}");
    }
}

/// A list that exceeds its bound is freed, and the same state is accepted under a larger bound.
#[test]
fn list_over_bound_is_a_typed_error() {
    let users = |count: usize| {
        let user = |at| (format!("user{at}"), metas(&[&format!("r{at}")]));
        Payload::from(Value::Object((0..count).map(user).collect()))
    };
    let mut presence = Presence::<Value>::new().bytes_max(100_000);
    assert!(presence.sync_state(&users(20)).is_ok());
    let too_large = PresenceError::TooLarge { max: 100_000 };
    for _ in 0..2 {
        assert_eq!(presence.sync_state(&users(10_000)), Err(too_large.clone()));
        assert!(presence.is_empty() && !presence.is_synced());
        assert_eq!(presence.sync_state(&users(1)), Ok(Vec::new()), "not before the next join");
        presence.joined();
    }
    assert_eq!(presence.sync_state(&users(20)).map(|changes| changes.len()), Ok(20));

    // Diffs are applied one after another, and the final list is compared with the bound.
    let mut added = 0;
    let ended = loop {
        let joins = json!({ format!("more{added}"): metas(&["m"]) });
        match presence.sync_diff(&Payload::from(json!({ "joins": joins, "leaves": {} }))) {
            Ok(changes) => assert_eq!(changes.len(), 1),
            Err(error) => break error,
        }
        added += 1;
    };
    assert_eq!(ended, too_large);
    assert!((30..1_000).contains(&added), "{added}");
    let mut presence = Presence::<Value>::new().bytes_max(40 << 20);
    assert_eq!(presence.sync_state(&users(10_000)).map(|changes| changes.len()), Ok(10_000));
}

/// When keys join and leave again and again, their memory is freed.
#[test]
fn list_with_churn_stays_within_bound() {
    let mut presence = Presence::<Value>::new().bytes_max(20_000);
    state(&mut presence, json!({"ann": metas(&["a"])}));
    for at in 0..2_000 {
        let meta = |at: usize| json!({"ann": metas(&[&format!("r{at}")])});
        let left = if at == 0 { json!({}) } else { meta(at - 1) };
        assert_eq!(diff(&mut presence, meta(at), left).len(), if at == 0 { 1 } else { 2 });
    }
    assert_eq!(listed(&presence), ["ann a r1999"]);
}

/// Diffs that are held back count with the memory that they take, which is many times the length of
/// their text.
#[test]
fn held_diffs_count_their_memory() {
    let empty = vec![json!({"": 0}); 4_000];
    let meta = json!({"phx_ref": "f", "x": empty});
    let diff = json!({"joins": {"ann": {"metas": [meta]}}, "leaves": {}});
    let diff = Payload::from(diff);
    assert!(diff.len() < 100_000);
    let mut presence = Presence::<Value>::new();
    let held = (0..9).take_while(|_| presence.sync_diff(&diff).is_ok()).count();
    // A value of serde_json takes half the memory on a 32-bit machine.
    let held = held * size_of::<usize>() / 8;
    assert!((1..=3).contains(&held), "{held}");
    assert!(!presence.is_synced());
}

/// A key and a meta of it.
type Shape = fn(usize) -> (String, Value);

/// Metas that have a short text, or are large in one place.
const HOSTILE: [(&str, Shape); 7] = [
    ("small", |at| (at.to_string(), json!({"phx_ref": at.to_string(), "n": 1}))),
    ("one key", |at| ("all".to_owned(), json!({"phx_ref": at.to_string()}))),
    ("maps", |at| (at.to_string(), json!({"phx_ref": "r", "x": vec![json!({"": 0}); 20]}))),
    ("lists", |at| (at.to_string(), json!({"phx_ref": "r", "x": vec![json!([0]); 20]}))),
    ("deep", |at| {
        let deep = (0..30).fold(json!(0), |deep, _| json!({ "": deep }));
        (at.to_string(), json!({"phx_ref": "r", "x": deep}))
    }),
    ("long key", |at| (at.to_string() + &"k".repeat(5_000), json!({"phx_ref": "r"}))),
    ("long ref", |at| ("all".to_owned(), json!({"phx_ref": at.to_string() + &"r".repeat(5_000)}))),
];

/// The memory of a list exceeds its bound by at most a quarter, whatever the shape of the list.
#[test]
fn list_memory_stays_within_bound() {
    const MAX: usize = 256 << 10;
    for (name, shape) in HOSTILE {
        let diff = |at| {
            let (key, meta) = shape(at);
            Payload::from(json!({"joins": {key: {"metas": [meta]}}, "leaves": {}}))
        };
        let mut presence = Presence::<Value>::new().bytes_max(MAX);
        state(&mut presence, json!({}));
        let fits = (0..9_000).take_while(|at| presence.sync_diff(&diff(*at)).is_ok()).count();
        assert!((3..9_000).contains(&fits), "{name}: {fits}");
        let diffs: Vec<Payload> = (0..fits).map(diff).collect();
        let mut presence = Presence::<Value>::new().bytes_max(MAX);
        state(&mut presence, json!({}));
        let held = allocation_counter::measure(|| {
            diffs.iter().for_each(|diff| drop(presence.sync_diff(diff).expect("it fits")));
        });
        let held = usize::try_from(held.bytes_current).expect("a list");
        assert!(held <= MAX + MAX / 4, "{name}: {held} bytes");
        // Maps are counted with their largest possible size, which depends on the features of
        // serde_json.
        assert!(held >= MAX / 6, "{name}: {held} bytes");
    }
}

/// A message whose values alone would exceed the bound is not parsed.
#[test]
fn message_above_bound_is_not_parsed() {
    let meta = json!({"phx_ref": "f", "x": vec![json!({"": 0}); 400_000]});
    let hostile = json!({"ann": {"metas": [meta]}});
    let diff = Payload::from(json!({"joins": hostile, "leaves": {}}));
    let hostile = Payload::from(hostile);
    let mut presence = Presence::<Value>::new();
    let mut seen = Vec::new();
    let held = allocation_counter::measure(|| {
        seen.push(presence.sync_state(&hostile));
        presence.joined();
        seen.push(presence.sync_diff(&diff));
    });
    let too_large = Err(PresenceError::TooLarge { max: 64 << 20 });
    assert_eq!(seen, [too_large.clone(), too_large]);
    assert!(held.bytes_max < 10_000, "{} bytes for {}", held.bytes_max, hostile.len());
}

/// If a key occurs several times, the last value counts, in every order of the keys.
#[test]
fn last_of_repeated_key_counts() {
    let mut presence = Presence::<Value>::new();
    let state = r#"{"zoe":{"metas":[{"phx_ref":"z1"}]},"ann":{"metas":[{"phx_ref":"a1"}]},
        "bob":{"metas":[{"phx_ref":"b1"}]},"ann":{"metas":[{"phx_ref":"a2"}]}}"#;
    presence.sync_state(&received(state)).expect("a state");
    assert_eq!(listed(&presence), ["ann a2", "bob b1", "zoe z1"]);
    let diff = r#"{"joins":{"bob":{"metas":[{"phx_ref":"b2","phx_ref_prev":"b1"}]},
        "al":{"metas":[{"phx_ref":"x"}]},"bob":{"metas":[{"phx_ref":"b3","phx_ref_prev":"b1"}]}},
        "leaves":{"zoe":{"metas":[]},"bob":{"metas":[{"phx_ref":"b1"}]},
        "zoe":{"metas":[{"phx_ref":"z1"}]}}}"#;
    let changes = described(presence.sync_diff(&received(diff)).expect("a diff"));
    assert_eq!(changes, ["+al x first", "~bob b1 b3", "-zoe z1 last"]);
    assert_eq!(listed(&presence), ["al x", "ann a2", "bob b3"]);
}

/// A payload as it comes from a server.
fn received(text: &str) -> Payload {
    let frame = Frame::from(format!(r#"[null,null,"t","e",{text}]"#));
    match V2.decode(&frame).expect("a message").body {
        Body::Event { payload, .. } => payload,
        other => panic!("{other:?}"),
    }
}

/// Each update contains the key, so a long key with many metas would take many times the size of its
/// message.
#[test]
fn updates_under_long_key_are_bounded() {
    let entry = |generation: usize| {
        let meta = |at| {
            let prev = format!("{}-{at}", generation.wrapping_sub(1));
            json!({"phx_ref": format!("{generation}-{at}"), "phx_ref_prev": prev})
        };
        json!({"k".repeat(300_000): {"metas": (0..1_000).map(meta).collect::<Vec<_>>()}})
    };
    let states = [Payload::from(entry(0)), Payload::from(entry(1))];
    let mut presence = Presence::<Value>::new();
    let mut results = Vec::new();
    let held = allocation_counter::measure(|| {
        results.extend(states.iter().map(|state| presence.sync_state(state).map(drop)));
    });
    let too_large = Err(PresenceError::TooLarge { max: 64 << 20 });
    assert!(results.contains(&too_large), "{results:?}");
    assert!(held.bytes_max < 64 << 20, "{} bytes", held.bytes_max);
}
