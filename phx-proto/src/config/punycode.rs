//! Punycode (RFC 3492): the ASCII form of a host name, suggested in an error.
//!
//! It covers only names that IDNA normalises by conversion to lower case alone. Other names need Unicode
//! tables, and a wrong name would lead to a wrong host.

/// Returns the `xn--` form of a host, or `None` if a label needs Unicode tables.
pub(super) fn to_ascii(host: &str) -> Option<String> {
    // The dots of RFC 3490 section 3.1.
    let labels = host.split(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}']);
    let labels: Option<Vec<String>> = labels
        .map(|label| {
            let label = label.to_lowercase();
            if label.is_ascii() { Some(label) } else { encode(&label) }
        })
        .collect();
    labels.map(|labels| labels.join("."))
}

const BASE: u32 = 36;
const T_MIN: u32 = 1;
const T_MAX: u32 = 26;
const SKEW: u32 = 38;
const DAMP: u32 = 700;

/// Encodes one label, which must be in lower case, with its prefix (RFC 3492 section 6.3).
fn encode(label: &str) -> Option<String> {
    if label.chars().any(needs_tables) {
        return None;
    }
    let mut output: String = label.chars().filter(char::is_ascii).collect();
    let basic = u32::try_from(output.len()).ok()?;
    let mut handled = basic;
    if basic > 0 {
        output.push('-');
    }
    let total = u32::try_from(label.chars().count()).ok()?;
    let (mut n, mut delta, mut bias) = (0x80_u32, 0_u32, 72_u32);
    while handled < total {
        let next = label.chars().map(u32::from).filter(|&point| point >= n).min()?;
        delta = delta.checked_add((next - n).checked_mul(handled + 1)?)?;
        n = next;
        for point in label.chars().map(u32::from) {
            if point < n {
                delta = delta.checked_add(1)?;
            }
            if point == n {
                push_number(&mut output, delta, bias);
                bias = adapt(delta, handled + 1, handled == basic);
                delta = 0;
                handled += 1;
            }
        }
        delta = delta.checked_add(1)?;
        n += 1;
    }
    // A DNS label has at most 63 bytes.
    (output.len() <= 63 - "xn--".len()).then(|| format!("xn--{output}"))
}

/// Appends a generalised variable-length integer (RFC 3492 section 3.3).
fn push_number(output: &mut String, mut number: u32, bias: u32) {
    const DIGITS: &[u8; BASE as usize] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut k = BASE;
    loop {
        let threshold = k.saturating_sub(bias).clamp(T_MIN, T_MAX);
        if number < threshold {
            output.push(char::from(DIGITS[number as usize]));
            return;
        }
        let digit = threshold + (number - threshold) % (BASE - threshold);
        output.push(char::from(DIGITS[digit as usize]));
        number = (number - threshold) / (BASE - threshold);
        k += BASE;
    }
}

fn adapt(delta: u32, points: u32, first: bool) -> u32 {
    let mut delta = if first { delta / DAMP } else { delta / 2 };
    delta += delta / points;
    let mut k = 0;
    while delta > ((BASE - T_MIN) * T_MAX) / 2 {
        delta /= BASE - T_MIN;
        k += BASE;
    }
    k + (BASE - T_MIN + 1) * delta / (delta + SKEW)
}

/// Whether IDNA composes, maps or refuses a character: combining marks, presentation and compatibility
/// forms, general punctuation, and characters without a glyph.
const fn needs_tables(c: char) -> bool {
    matches!(c,
        '\u{80}'..='\u{bf}'
        | '\u{300}'..='\u{36f}'
        | '\u{1ab0}'..='\u{1aff}'
        | '\u{1dc0}'..='\u{1dff}'
        | '\u{2000}'..='\u{2bff}'
        | '\u{3000}'
        | '\u{3099}'..='\u{309c}'
        | '\u{e000}'..='\u{faff}'
        | '\u{fb00}'..='\u{fffd}'
        | '\u{1d400}'..='\u{1d7ff}'
        | '\u{e0000}'..)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The samples of RFC 3492 section 7.1 without upper case, and names that are in use.
    #[test]
    fn host_name_has_ascii_form() {
        for (name, ascii) in [
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.Example", "xn--bcher-kva.example"),
            ("münchen.de", "xn--mnchen-3ya.de"),
            ("straße.de", "xn--strae-oqa.de"),
            ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
            ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
            ("他们为什么不说中文", "xn--ihqwcrb4cv8a8dqg056pqjye"),
            ("почемужеонинеговорятпорусски", "xn--b1abfaaepdrnnbgefbadotcwatmq2g4l"),
            ("למההםפשוטלאמדבריםעברית", "xn--4dbcagdahymbxekheh6e0a7fei0b"),
            ("3年b組金八先生", "xn--3b-ww4c5e180e575a65lsy2b"),
            ("☃ok", ""),
            ("bu\u{308}cher.example", ""),
            ("ａ.example", ""),
            ("a\u{202e}b.example", ""),
        ] {
            let expected = (!ascii.is_empty()).then(|| ascii.to_owned());
            assert_eq!(to_ascii(name), expected, "{name}");
        }
        assert_eq!(to_ascii(&"ü".repeat(200)), None);
    }
}
