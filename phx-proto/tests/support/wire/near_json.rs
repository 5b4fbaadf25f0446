//! Text that is JSON or nearly JSON, in the places where a scanner and a parser most likely disagree.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// The text between two tokens: mostly nothing, else any whitespace, or characters that only look
/// like it.
fn space() -> impl Strategy<Value = String> {
    prop_oneof![
        300 => Just(String::new()),
        100 => "[ \t\r\n]{1,3}",
        1 => select(vec!["\u{a0}", "\u{b}", "\u{feff}", "\0"]).prop_map(str::to_owned),
    ]
}

/// The inside of a string, escapes included.
fn characters() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        80 => "[a-z:_]{0,6}",
        40 => select(vec![
            r#"\""#, r"\\", r"\/", r"\b", r"\n", r"\u0000", r"\u00e9", r"\ud83d\ude00", "é", "😀",
            "]", "}", "[", "{", ",", ":", " ", "\u{7f}", "\u{2028}", r"\u0070hx_reply",
        ]).prop_map(str::to_owned),
        1 => select(vec![
            r"\ud83d", r"\ude00", r"\ud83dx", r"\ud83d\u0041", r"\u12", r"\x", r"\", "\n", "\0",
            "\u{1f}", "\"",
        ]).prop_map(str::to_owned),
    ];
    vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

fn string() -> impl Strategy<Value = String> {
    characters().prop_map(|inside| format!("\"{inside}\""))
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        90 => string(),
        60 => select(vec![
            "null", "true", "false", "0", "-0", "1", "-1", "12.5", "1e5", "1E-5", "1e999", "{}",
            "[]", "18446744073709551615", "18446744073709551616",
        ]).prop_map(str::to_owned),
        1 => select(vec![
            "nul", "nulll", "True", "01", "-", "1.", ".5", "1e", "+1", "NaN", "Infinity", "0x1",
            "'a'", "undefined", "{,}", "[,]", "[1,]", r#"{"a"}"#, r#"{"a":1,}"#, "{1:2}", "//", "",
            "1 2", "[}", "{]", "]", "}", ",", ":", "\"",
        ]).prop_map(str::to_owned),
    ]
}

/// A value of any kind, some nesting included.
pub fn value() -> impl Strategy<Value = String> {
    let deep = (1_usize..300).prop_map(|depth| "[".repeat(depth) + &"]".repeat(depth));
    let nested = scalar().prop_recursive(3, 16, 4, |inner| {
        let member = (space(), string(), space(), space(), inner.clone(), space())
            .prop_map(|(a, key, b, c, value, d)| format!("{a}{key}{b}:{c}{value}{d}"));
        let item =
            (space(), inner, space()).prop_map(|(before, value, after)| before + &value + &after);
        prop_oneof![
            vec(member, 1..4).prop_map(|members| format!("{{{}}}", members.join(","))),
            vec(item, 1..4).prop_map(|items| format!("[{}]", items.join(","))),
        ]
    });
    prop_oneof![20 => nested, 1 => deep]
}

fn reference() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => Just("null".to_owned()),
        8 => (1_u64..200).prop_map(|number| format!("\"{number}\"")),
        1 => select(vec![
            "1", "\"01\"", "\"0\"", "0", "\"\"", "\"a\"", "\"-1\"", "\"18446744073709551615\"",
            "\"18446744073709551616\"", "\" 1\"", "\"\\u0031\"", "1.0", "nul", "null1", "1e2",
        ]).prop_map(str::to_owned),
        1 => value(),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        20 => "\"[a-z]{1,8}\"",
        20 => string(),
        1 => value(),
    ]
}

fn event() -> impl Strategy<Value = String> {
    prop_oneof![
        1 => Just("\"phx_reply\"".to_owned()),
        1 => name(),
    ]
}

type MakeValue = fn() -> BoxedStrategy<String>;

/// An object with some of these keys and others, in any order, some of them twice.
fn object(known: &'static [(&'static str, MakeValue)]) -> BoxedStrategy<String> {
    let member = prop_oneof![
        10 => select(known.to_vec()).prop_flat_map(|(key, value)| {
            (Just(format!("\"{key}\"")), value())
        }),
        4 => (string(), value()),
    ];
    let member = (space(), member, space(), space(), space())
        .prop_map(|(a, (key, value), b, c, d)| format!("{a}{key}{b}:{c}{value}{d}"))
        .boxed();
    // Usually every known key occurs once, in any order. The other case has arbitrary members.
    let complete: Vec<BoxedStrategy<String>> = known
        .iter()
        .map(|(key, value)| {
            (space(), space(), value(), space())
                .prop_map(move |(a, b, value, c)| format!("{a}\"{key}\"{b}:{value}{c}"))
                .boxed()
        })
        .collect();
    let complete = (complete, vec(member.clone(), 0..2))
        .prop_map(|(members, more)| [members, more].concat())
        .prop_shuffle();
    prop_oneof![4 => complete.boxed(), 1 => vec(member, 0..5).boxed()]
        .prop_map(|members| format!("{{{}}}", members.join(",")))
        .boxed()
}

fn payload() -> BoxedStrategy<String> {
    let reply = object(&[("status", || name().boxed()), ("response", || value().boxed())]);
    prop_oneof![1 => value(), 2 => reply].boxed()
}

/// A vsn 2.0.0 text frame, or text that is nearly one.
pub fn v2_frame() -> impl Strategy<Value = Vec<u8>> {
    let five = (reference(), reference(), name(), event(), payload());
    let members = five.prop_flat_map(|(join_ref, msg_ref, topic, event, payload)| {
        let five = vec![join_ref, msg_ref, topic, event, payload];
        prop_oneof![
            40 => Just(five.clone()),
            1 => (0_usize..5).prop_map({
                let five = five.clone();
                move |count| five[..count].to_vec()
            }),
            1 => value().prop_map(move |more| [five.clone(), vec![more]].concat()),
        ]
    });
    let spaced = members.prop_flat_map(|members| {
        let count = members.len();
        (Just(members), vec((space(), space()), count))
    });
    let text = (spaced, ends()).prop_map(|((members, spaces), (front, back))| {
        let members = members.iter().zip(&spaces).map(|(member, (a, b))| format!("{a}{member}{b}"));
        format!("{front}[{}]{back}", members.collect::<Vec<_>>().join(","))
    });
    damaged(text)
}

/// A reply of vsn 2.0.0 as Phoenix writes it, or nearly, with further members that Phoenix never
/// writes.
pub fn compact_reply() -> impl Strategy<Value = Vec<u8>> {
    let status = || select(vec!["\"ok\"", "\"error\"", "\"okay\"", "\"\"", "ok", "null"]);
    let key = select(vec!["\"response\"", "\"status\"", "\"x\"", "\"\\\"\"", "\"\"", "x"]);
    let status_or_value = prop_oneof![1 => status().prop_map(str::to_owned), 2 => value()];
    let more = vec((space(), key, status_or_value), 0..3).prop_map(|members| {
        let member = |(space, key, value)| format!("{space},{key}:{value}");
        members.into_iter().map(member).collect::<String>()
    });
    let usual = prop_oneof![4 => Just(String::new()), 1 => more];
    let text = (any::<bool>(), status(), value(), usual, reference()).prop_map(
        |(status_first, status, response, more, msg_ref)| {
            let reply = if status_first {
                format!("{{\"status\":{status},\"response\":{response}{more}}}")
            } else {
                format!("{{\"response\":{response}{more},\"status\":{status}}}")
            };
            format!("[null,{msg_ref},\"room:a\",\"phx_reply\",{reply}]")
        },
    );
    damaged(text)
}

/// The tokens of a reply of vsn 2.0.0, with some wrong or superfluous ones. No two neighbours can be
/// read as one token, so whitespace may be put between any two.
pub fn reply_tokens() -> impl Strategy<Value = Vec<String>> {
    let plain = |text: &'static str| Just(text.to_owned());
    let wrong = || {
        prop_oneof![
            2 => select(vec![
                "\"status\"", "\"response\"", "\"ok\"", "\"error\"", "\"okay\"", "\"x\"", "\"\\\\\"",
                "\"a,\\\"status\\\":\\\"ok\\\"}\"", "\"é\"", "\"1\"",
            ]),
            1 => select(vec!["{", "}", "[", "]", ",", ":"]),
        ]
        .prop_map(str::to_owned)
    };
    let scalar = select(vec!["null", "{}", "1", "[1]", "nul"]).prop_map(str::to_owned);
    let token = prop_oneof![1 => wrong(), 1 => scalar].boxed();
    let usual = prop_oneof![4 => plain("\"ok\""), 1 => plain("\"error\""), 2 => token.clone()];
    let status = (plain("\"status\""), usual);
    let response = (plain("\"response\""), token.clone());
    let more = vec((token.clone(), token.clone()), 0..3);
    let members = (status, response, more, any::<bool>()).prop_map(
        |(status, response, more, status_first)| {
            let usual = if status_first { vec![status, response] } else { vec![response, status] };
            [usual, more].concat()
        },
    );
    let members = prop_oneof![2 => members.clone(), 1 => members.prop_shuffle()];
    let msg_ref = prop_oneof![plain("null"), plain("\"7\""), token];
    let damage = (any::<Index>(), wrong(), any::<bool>());
    let damage = prop_oneof![4 => Just(None), 1 => damage.prop_map(Some)];
    (members, msg_ref, damage).prop_map(|(members, msg_ref, damage)| {
        let topic = ["\"room:a\"", ",", "\"phx_reply\"", ",", "{"];
        let front = ["[", "null", ",", &msg_ref, ","].into_iter().chain(topic);
        let mut tokens: Vec<String> = front.map(str::to_owned).collect();
        for (at, (key, value)) in members.into_iter().enumerate() {
            tokens.extend((at > 0).then(|| ",".to_owned()));
            tokens.extend([key, ":".to_owned(), value]);
        }
        tokens.extend(["}".to_owned(), "]".to_owned()]);
        if let Some((at, token, more)) = damage {
            let at = at.index(tokens.len());
            tokens.splice(at..at + usize::from(!more), [token]);
        }
        tokens
    })
}

/// A vsn 1.0.0 text frame, or text that is nearly one.
pub fn v1_frame() -> impl Strategy<Value = Vec<u8>> {
    let message = object(&[
        ("topic", || name().boxed()),
        ("event", || event().boxed()),
        ("payload", payload),
        ("ref", || reference().boxed()),
        ("join_ref", || reference().boxed()),
    ]);
    let text = (message, ends()).prop_map(|(message, (front, back))| front + &message + &back);
    damaged(text)
}

/// The text before and after the frame.
fn ends() -> impl Strategy<Value = (String, String)> {
    let back = prop_oneof![
        30 => space(),
        1 => select(vec!["]", "}", "x", ",", "[]", "null", "]]", "\u{feff}", "\0", " 1", "//"])
            .prop_map(str::to_owned),
    ];
    (space(), back)
}

/// A change to some bytes.
#[derive(Clone, Debug)]
enum Damage {
    Truncate(Index),
    Remove(Index),
    Insert(Index, u8),
    Replace(Index, u8),
    Duplicate(Index, Index),
}

fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        4 => select(b"[]{},:\"\\ \n0123456789nulltrue-.eE".to_vec()),
        1 => any::<u8>(),
    ]
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<Index>().prop_map(Damage::Truncate),
        any::<Index>().prop_map(Damage::Remove),
        (any::<Index>(), byte()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        (any::<Index>(), byte()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Duplicate(from, to)),
    ]
}

fn apply(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        if bytes.is_empty() {
            break;
        }
        let len = bytes.len();
        match damage {
            Damage::Truncate(at) => bytes.truncate(at.index(len)),
            Damage::Remove(at) => {
                bytes.remove(at.index(len));
            }
            Damage::Insert(at, byte) => bytes.insert(at.index(len), *byte),
            Damage::Replace(at, byte) => bytes[at.index(len)] = *byte,
            Damage::Duplicate(from, to) => {
                let (from, to) = (from.index(len), to.index(len));
                let part = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.splice(from..from, part);
            }
        }
    }
    bytes
}

/// The bytes of a text: mostly unchanged, else with a few changes.
pub fn damaged(text: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    damaged_bytes(text.prop_map(String::into_bytes))
}

/// Bytes: mostly unchanged, else with a few changes.
pub fn damaged_bytes(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let damages = prop_oneof![4 => Just(Vec::new()), 1 => vec(damage(), 1..4)];
    (bytes, damages).prop_map(|(bytes, damages)| apply(bytes, &damages))
}
