//! Durations on the command line: `500ms`, `10s`, `2m`, `1h`; a plain number is seconds.

use core::time::Duration;

/// The longest duration: a hundred years.
const SECONDS_MAX: f64 = 100.0 * 366.0 * 86_400.0;

pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let bad = || "expected a duration such as 500ms, 10s, 2m or 1h".to_owned();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err(bad()),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_ascii_digit() || digit == '.') {
        return Err(bad());
    }
    let seconds = digits.parse::<f64>().map_err(|_| bad())? * unit;
    if seconds > SECONDS_MAX {
        return Err("the duration is too long".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Formats a duration for a message.
pub(crate) fn shown(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{} s", (duration.as_millis() as f64) / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse_with_units() {
        for (text, msec) in [
            ("5", 5_000),
            ("0", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("1.5s", 1_500),
            ("2m", 120_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(msec)), "{text}");
        }
        for text in ["", "s", "-1s", "1d", "1 s", "inf", "nan", "1e9", ".", "1..2", "99999999h"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(shown(Duration::from_millis(1_500)), "1.5 s");
        assert_eq!(shown(Duration::from_millis(20)), "20 ms");
    }
}
