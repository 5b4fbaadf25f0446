//! What `Retry-After` asks for.
//!
//! The core has no clock, and a server's clock need not agree with ours anyway: a `Retry-After`
//! date is measured against the `Date` that the same response carries.

use core::time::Duration;

use httpdate::parse_http_date;

/// The longest wait that [`retry_after`] reports, about 136 years. It only keeps later arithmetic
/// far away from overflow; how long to wait at most is the reconnect policy's business.
const LONGEST_WAIT: u64 = u32::MAX as u64;

/// How long a `Retry-After` header asks to wait (RFC 9110 section 10.2.3).
///
/// `value` is a number of seconds, or a date in one of the three forms of RFC 9110 section 5.6.7,
/// which is measured against `date_header`, the response's own `Date`. A date that is not after it
/// asks for no wait. `None` when the value is neither, or a date without a readable `Date` beside
/// it.
pub(crate) fn retry_after(value: &str, date_header: Option<&str>) -> Option<Duration> {
    let value = value.trim_ascii();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only an overflow can fail here: a wait too long to be written down.
        let seconds = value.parse().unwrap_or(LONGEST_WAIT);
        return Some(Duration::from_secs(seconds.min(LONGEST_WAIT)));
    }
    // Two dates that were read are subtracted; no clock is.
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
    fn three_date_forms_are_read() {
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

    /// Seconds since the epoch, by `date -u -d`.
    #[test]
    fn known_dates_are_exact() {
        for (date, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Tue, 29 Feb 2000 12:00:00 GMT", 951_825_600),
            ("Mon, 01 Mar 2100 00:00:00 GMT", 4_107_542_400),
            ("Tue, 19 Jan 2038 03:14:08 GMT", 2_147_483_648),
            // A year of two digits is of the twentieth century from 70 on.
            ("Thursday, 01-Jan-70 00:00:00 GMT", 0),
            ("Tuesday, 01-Jan-69 00:00:00 GMT", 3_124_224_000),
        ] {
            let wait = retry_after(date, Some("Thu, 01 Jan 1970 00:00:00 GMT"));
            assert_eq!(wait, Some(Duration::from_secs(expected)), "{date}");
        }
    }

    #[test]
    fn invalid_date_is_none() {
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
    fn absurd_wait_is_cut() {
        let longest = Duration::from_secs(LONGEST_WAIT);
        assert_eq!(retry_after("99999999999999999999999999", None), Some(longest));
        assert_eq!(retry_after("18446744073709551615", None), Some(longest));
        let (never, epoch) = ("Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(retry_after(never, Some(epoch)), Some(longest));
    }

    #[test]
    fn date_is_measured_against_response_date() {
        let (at, date) = ("Sun, 06 Nov 1994 08:50:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(retry_after(at, Some(date)), Some(Duration::from_secs(60)));
        assert_eq!(retry_after(date, Some(at)), Some(Duration::ZERO), "in the past");
        assert_eq!(retry_after(at, None), None, "nothing to measure against");
        assert_eq!(retry_after(at, Some("yesterday")), None, "an unreadable Date");
    }

    proptest! {
        #[test]
        fn any_text_never_panics(value in any::<String>(), date in any::<String>()) {
            let _ = retry_after(&value, Some(&date));
        }
    }
}
