//! The weight of JSON text before it is parsed.

use serde_json::Value;

use crate::wire::weight::nodes_weight;

/// No byte of text becomes more memory than this: the five of `{"":}` around a value are a map.
const MOST_PER_BYTE: usize = (nodes_weight(1) + size_of::<Value>()) / 5 + 1;

/// Whether JSON text weighs more than `max` once it is parsed, as
/// [`tree_weight`](crate::wire::weight::tree_weight) weighs values. A short text is not looked at.
pub(super) fn text_exceeds(text: &[u8], max: usize) -> bool {
    text.len() > max / MOST_PER_BYTE && text_weight(text, max) > max
}

/// How deep serde_json reads.
const DEPTH_MAX: usize = 128;

/// The weight of the values of a JSON text, up to where it passes `max`. What is no JSON is counted
/// in some way, and found by the parser.
fn text_weight(text: &[u8], max: usize) -> usize {
    // Whether each open container is a map, and how many commas it has.
    let mut open = [(false, 0_usize); DEPTH_MAX];
    let mut depth = 0;
    let mut sum = size_of::<Value>();
    // Whether nothing has come since the last container was opened.
    let mut empty = false;
    let mut at = 0;
    while let (Some(byte), true) = (text.get(at), sum <= max) {
        at += 1;
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' | b':' => continue,
            b'"' => {
                let start = at;
                while let Some(byte) = text.get(at) {
                    at += if *byte == b'\\' { 2 } else { 1 };
                    if *byte == b'"' {
                        break;
                    }
                }
                sum += at.min(text.len()).saturating_sub(start + 1);
            }
            b'{' | b'[' => {
                if depth == DEPTH_MAX {
                    return sum;
                }
                open[depth] = (*byte == b'{', 0);
                depth += 1;
                empty = true;
                continue;
            }
            b',' => {
                if let Some(last) = depth.checked_sub(1) {
                    open[last].1 += 1;
                    sum += ITEM;
                }
            }
            b'}' | b']' => {
                let Some(last) = depth.checked_sub(1) else { return sum };
                depth = last;
                if !empty {
                    let (is_map, commas) = open[last];
                    sum +=
                        if is_map { nodes_weight(commas + 1) + size_of::<Value>() } else { ITEM };
                    // The commas were counted as they came, in case that this had no end.
                    sum -= if is_map { commas * (ITEM - size_of::<Value>()) } else { 0 };
                }
            }
            _ => {}
        }
        empty = false;
    }
    sum
}

/// The weight of a plain value in a list that grows by doubling.
const ITEM: usize = 2 * size_of::<Value>();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::weight::tree_weight;
    use serde_json::{Map, json};

    fn parsed(text: &str) -> usize {
        tree_weight(&serde_json::from_str(text).expect("JSON"))
    }

    /// The weight of a text is that of its values, and at no byte more than the most.
    #[test]
    fn text_weighs_what_its_values_weigh() {
        let many = |item: &str| format!("[{}]", vec![item; 1_000].join(","));
        let members: Map<String, Value> = (0..100).map(|at| (at.to_string(), json!(at))).collect();
        let nested = format!("{}0{}", "{\"\":".repeat(100), "}".repeat(100));
        for text in [
            "{}".to_owned(),
            "[ ]".to_owned(),
            many("{\"\":0}"),
            many("[0]"),
            many("[]"),
            many("\"a\\\"b,[{\""),
            many(&nested),
            json!({"a": {"b": [1, 2, "three"], "c": null}, "d": [{"e": true}]}).to_string(),
            Value::from(members).to_string(),
        ] {
            let (weight, estimated) = (parsed(&text), text_weight(text.as_bytes(), usize::MAX));
            let start = &text[..text.len().min(20)];
            // An escape is longer as text.
            assert!(estimated >= weight, "{start}: {estimated} < {weight}");
            assert!(estimated <= weight + weight / 50, "{start}: {estimated} of {weight}");
            assert!(weight <= text.len() * MOST_PER_BYTE, "{start}: {weight} of {}", text.len());
        }
    }

    #[test]
    fn text_that_is_too_heavy_is_not_read_to_its_end() {
        for item in ["{\"\":0},", "[],", "0,", "\"a\",", "{\"a\":[{}],\"b\":0},"] {
            let text = format!("[{}0]", item.repeat(100_000));
            let weight = text_weight(text.as_bytes(), usize::MAX);
            assert!(!text_exceeds(text.as_bytes(), weight), "{item}");
            assert!(text_exceeds(text.as_bytes(), weight - 1), "{item}");
            let bounded = text_weight(text.as_bytes(), 10_000);
            assert!((10_001..20_000).contains(&bounded), "{item}: {bounded}");
        }
        for broken in ["}", "]", "\"", "\"\\", ",", "{\"a", "\u{fffd}", "", &"[".repeat(9_999)] {
            assert!(text_weight(broken.as_bytes(), usize::MAX) < 1_000, "{broken}");
        }
    }
}
