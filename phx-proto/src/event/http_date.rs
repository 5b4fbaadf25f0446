//! The delay of a `Retry-After` header.
//!
//! The core has no clock, and the clock of a server may differ from the client's. So a date in
//! `Retry-After` is compared with the `Date` of the same response.

use core::time::Duration;

use httpdate::parse_http_date;

/// The longest delay that [`retry_after`] returns, about 136 years. This limit only prevents overflows in
/// later sums; the reconnect policy limits the delay.
const LONGEST_WAIT: u64 = u32::MAX as u64;

/// Returns the delay that a `Retry-After` header requests (RFC 9110 section 10.2.3).
///
/// `value` is a number of seconds, or a date in one of the three forms of RFC 9110 section 5.6.7. A date
/// is compared with `date_header`, the `Date` of the response; if it is not later, the delay is zero.
/// Returns `None` if `value` is invalid, or if it is a date and `date_header` is missing or invalid.
pub(crate) fn retry_after(value: &str, date_header: Option<&str>) -> Option<Duration> {
    let value = value.trim_ascii();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Parsing digits can only fail because of an overflow.
        let seconds = value.parse().unwrap_or(LONGEST_WAIT);
        return Some(Duration::from_secs(seconds.min(LONGEST_WAIT)));
    }
    // This subtracts two parsed dates and reads no clock.
    let (until, date) = (parse_http_date(value).ok()?, parse_http_date(date_header?).ok()?);
    let wait = until.duration_since(date).unwrap_or_default();
    Some(wait.min(Duration::from_secs(LONGEST_WAIT)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of RFC 9110.
    const EXAMPLE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn seconds_after_example(date: &str) -> Option<u64> {
        retry_after(date, Some(EXAMPLE)).map(|wait| wait.as_secs())
    }

    #[test]
    fn http_date_has_three_forms() {
        for date in [
            "Sun, 06 Nov 1994 08:50:37 GMT",
            "Sunday, 06-Nov-94 08:50:37 GMT",
            "Sun Nov  6 08:50:37 1994",
        ] {
            assert_eq!(seconds_after_example(date), Some(60), "{date}");
            let earlier = retry_after(EXAMPLE, Some(date));
            assert_eq!(earlier, Some(Duration::ZERO), "{date}");
        }
        assert_eq!(seconds_after_example("Wed Nov 16 08:49:37 1994"), Some(864_000));
    }

    /// The seconds since the epoch are from `date -u -d`.
    #[test]
    fn http_date_is_exact() {
        for (date, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Tue, 29 Feb 2000 12:00:00 GMT", 951_825_600),
            ("Mon, 01 Mar 2100 00:00:00 GMT", 4_107_542_400),
            ("Tue, 19 Jan 2038 03:14:08 GMT", 2_147_483_648),
            // A year of two digits is in the twentieth century from 70 on.
            ("Thursday, 01-Jan-70 00:00:00 GMT", 0),
            ("Tuesday, 01-Jan-69 00:00:00 GMT", 3_124_224_000),
        ] {
            let wait = retry_after(date, Some("Thu, 01 Jan 1970 00:00:00 GMT"));
            assert_eq!(wait, Some(Duration::from_secs(expected)), "{date}");
        }
    }

    #[test]
    fn invalid_http_date_is_none() {
        for date in [
            "",
            "now",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 PST",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Wed, 31 Dec 1969 23:59:59 GMT",
            "Sat, 31 Dec 2016 23:59:60 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Now 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Son, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-94 08:49:37 GMT",
            "Sunday, 06-Nov-1994 08:49:37 GMT",
            "Sun Nov 006 08:49:37 1994",
            "Sün, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(retry_after(date, Some(EXAMPLE)), None, "{date}");
            assert_eq!(retry_after(EXAMPLE, Some(date)), None, "{date}");
        }
    }

    #[test]
    fn retry_after_counts_seconds() {
        assert_eq!(retry_after("1", None), Some(Duration::from_secs(1)));
        assert_eq!(retry_after(" 120 ", None), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("0", None), Some(Duration::ZERO));
        for nonsense in ["", "-1", "+1", "1.5", "1s", "soon"] {
            assert_eq!(retry_after(nonsense, None), None, "{nonsense}");
        }
    }

    #[test]
    fn retry_after_is_limited() {
        let longest = Duration::from_secs(LONGEST_WAIT);
        assert_eq!(retry_after("99999999999999999999999999", None), Some(longest));
        assert_eq!(retry_after("18446744073709551615", None), Some(longest));
        let (never, epoch) = ("Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(retry_after(never, Some(epoch)), Some(longest));
    }

    #[test]
    fn retry_after_date_needs_response_date() {
        let (at, date) = ("Sun, 06 Nov 1994 08:50:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(retry_after(at, Some(date)), Some(Duration::from_secs(60)));
        assert_eq!(retry_after(date, Some(at)), Some(Duration::ZERO), "in the past");
        assert_eq!(retry_after(at, None), None, "nothing to measure against");
        assert_eq!(retry_after(at, Some("yesterday")), None, "an unreadable Date");
    }

    proptest! {
        #[test]
        fn retry_after_accepts_any_text(value in any::<String>(), date in any::<String>()) {
            let _ = retry_after(&value, Some(&date));
        }
    }
}
