//! An estimate of the memory that a JSON text takes once it is parsed.

use serde_json::Value;

use crate::wire::weight::nodes_weight;

/// The maximum memory, in bytes, that one byte of text takes once it is parsed. The worst case is `{"":}`
/// around a value: these five bytes become a map.
const MAX_PER_BYTE: usize = (nodes_weight(1) + size_of::<Value>()) / 5 + 1;

/// Whether a JSON text takes more than `max` bytes once it is parsed, by the measure of
/// [`tree_weight`](crate::wire::weight::tree_weight). A text that is too short to exceed `max` is not
/// scanned.
pub(super) fn text_exceeds(text: &[u8], max: usize) -> bool {
    text.len() > max / MAX_PER_BYTE && text_weight(text, max) > max
}

/// The deepest nesting that serde_json reads.
const DEPTH_MAX: usize = 128;

/// The weight of the values of a JSON text. It stops once the sum exceeds `max`. For text that is not
/// JSON the result is arbitrary; the parser rejects such text later.
fn text_weight(text: &[u8], max: usize) -> usize {
    // For each open container, whether it is a map, and its number of commas.
    let mut open = [(false, 0_usize); DEPTH_MAX];
    let mut depth = 0;
    let mut sum = size_of::<Value>();
    // Whether the innermost container has no content so far.
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
                    // Each comma was counted as a list item when it was read, so that it counts even
                    // if the text ends inside the container. The commas of a map weigh less.
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

    /// The weight of a text matches that of its values, and never exceeds [`MAX_PER_BYTE`] for each byte.
    #[test]
    fn text_weight_matches_parsed_values() {
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
            assert!(estimated >= weight, "{start}: {estimated} < {weight}");
            // An escape is longer in the text than in the value.
            let escapes = text.matches('\\').count();
            assert!(
                estimated <= weight + weight / 100 + escapes,
                "{start}: {estimated} of {weight}"
            );
            assert!(weight <= text.len() * MAX_PER_BYTE, "{start}: {weight} of {}", text.len());
        }
    }

    #[test]
    fn heavy_text_is_not_scanned_to_its_end() {
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
