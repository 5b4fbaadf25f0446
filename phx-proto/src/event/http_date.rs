//! HTTP dates as numbers, and what `Retry-After` asks for.
//!
//! The core has no clock, and a server's clock need not agree with ours anyway: a `Retry-After`
//! date is measured against the `Date` that the same response carries.

use core::time::Duration;

/// The longest wait that [`retry_after`] reports, about 136 years. It only keeps later arithmetic
/// far away from overflow; how long to wait at most is the reconnect policy's business.
const LONGEST_WAIT: u64 = u32::MAX as u64;

const SECONDS_PER_DAY: i64 = 86_400;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// How long a `Retry-After` header asks to wait (RFC 9110 section 10.2.3).
///
/// `value` is a number of seconds, or a date, which is measured against `date_header`, the
/// response's own `Date`. A date that is not after it asks for no wait. `None` when the value is
/// neither, or a date without a readable `Date` beside it.
pub(crate) fn retry_after(value: &str, date_header: Option<&str>) -> Option<Duration> {
    let value = value.trim_ascii();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only an overflow can fail here: a wait too long to be written down.
        let seconds = value.parse().unwrap_or(LONGEST_WAIT);
        return Some(Duration::from_secs(seconds.min(LONGEST_WAIT)));
    }
    let wait = parse(value)? - parse(date_header?)?;
    let seconds = u64::try_from(wait).unwrap_or(0);
    Some(Duration::from_secs(seconds.min(LONGEST_WAIT)))
}

/// Reads an HTTP date (RFC 9110 section 5.6.7) as seconds since the Unix epoch, which may be
/// negative.
///
/// All three forms are read: `Sun, 06 Nov 1994 08:49:37 GMT`, the obsolete
/// `Sunday, 06-Nov-94 08:49:37 GMT`, and C's `Sun Nov  6 08:49:37 1994`. The name of the day must
/// be one, but is not checked against the date. Two-digit years from 70 on are of the twentieth
/// century: the RFC would have us ask a clock.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    match *words.as_slice() {
        [weekday, day, month, year, time, "GMT"] if is_short_day(weekday.strip_suffix(',')?) => {
            seconds(number(year, 4)?, month, number(day, 2)?, time)
        }
        [weekday, date, time, "GMT"] if is_long_day(weekday.strip_suffix(',')?) => {
            let [day, month, year] = fields(date, '-')?;
            let year = match number(year, 2)? {
                year @ 70.. => 1900 + year,
                year => 2000 + year,
            };
            seconds(year, month, number(day, 2)?, time)
        }
        [weekday, month, day, time, year] if is_short_day(weekday) => {
            seconds(number(year, 4)?, month, number(day, day.len().min(2))?, time)
        }
        _ => None,
    }
}

fn is_long_day(name: &str) -> bool {
    WEEKDAYS.iter().any(|day| day.eq_ignore_ascii_case(name))
}

fn is_short_day(name: &str) -> bool {
    WEEKDAYS.iter().any(|day| day[..3].eq_ignore_ascii_case(name))
}

/// Exactly `digits` decimal digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    let plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

fn fields(text: &str, separator: char) -> Option<[&str; 3]> {
    let mut parts = text.split(separator);
    let fields = [parts.next()?, parts.next()?, parts.next()?];
    if parts.next().is_none() { Some(fields) } else { None }
}

fn seconds(year: i64, month: &str, day: i64, time: &str) -> Option<i64> {
    let month = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(month))?;
    let [hour, minute, second] = fields(time, ':')?;
    let (hour, minute, second) = (number(hour, 2)?, number(minute, 2)?, number(second, 2)?);
    // A leap second is a legal 60.
    if !(1..=days_in_month(year, month)).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_before_year(year) - days_before_year(1970) + days_before_month(year, month);
    Some((days + day - 1) * SECONDS_PER_DAY + hour * 3_600 + minute * 60 + second)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days from the first day of year 0 to the first day of `year`, which is not negative.
fn days_before_year(year: i64) -> i64 {
    // The leap years before `year`, year 0 among them.
    let leaps = (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
    year * 365 + leaps
}

fn days_before_month(year: i64, month: usize) -> i64 {
    (0..month).map(|month| days_in_month(year, month)).sum()
}

/// `month` counts from 0.
fn days_in_month(year: i64, month: usize) -> i64 {
    match month {
        1 if is_leap(year) => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of RFC 9110, in seconds since the epoch.
    const EXAMPLE: i64 = 784_111_777;

    #[test]
    fn the_three_forms_of_the_rfc_are_the_same_second() {
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT"), Some(EXAMPLE));
        assert_eq!(parse("Sunday, 06-Nov-94 08:49:37 GMT"), Some(EXAMPLE));
        assert_eq!(parse("Sun Nov  6 08:49:37 1994"), Some(EXAMPLE));
        assert_eq!(parse("Sun Nov 16 08:49:37 1994"), Some(EXAMPLE + 10 * SECONDS_PER_DAY));
    }

    #[test]
    fn known_seconds_come_out_right() {
        for (text, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Wed, 31 Dec 1969 23:59:59 GMT", -1),
            ("Tue, 29 Feb 2000 12:00:00 GMT", 951_825_600),
            ("Thu, 01 Mar 1900 00:00:00 GMT", -2_203_891_200),
            ("Mon, 01 Mar 2100 00:00:00 GMT", 4_107_542_400),
            ("Tue, 19 Jan 2038 03:14:08 GMT", 2_147_483_648),
            ("Sat, 01 Jan 0000 00:00:00 GMT", -62_167_219_200),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
            // The leap second at the end of 2016 is the first second of 2017.
            ("Sat, 31 Dec 2016 23:59:60 GMT", 1_483_228_800),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn two_digit_years_pivot_at_seventy() {
        assert_eq!(parse("Thursday, 01-Jan-70 00:00:00 GMT"), Some(0));
        assert_eq!(parse("Sunday, 01-Jan-69 00:00:00 GMT"), Some(3_124_224_000));
    }

    #[test]
    fn what_is_not_a_date_is_none() {
        for text in [
            "",
            "now",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 PST",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 29 Feb 1900 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Now 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 1994 08:49:37:00 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Son, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-94 08:49:37 GMT",
            "Sunday, 06-Nov-1994 08:49:37 GMT",
            "Sun Nov 006 08:49:37 1994",
            "Sün, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse(text), None, "{text}");
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
    fn an_absurd_wait_is_cut_before_it_can_overflow_anything() {
        let longest = Duration::from_secs(LONGEST_WAIT);
        assert_eq!(retry_after("99999999999999999999999999", None), Some(longest));
        assert_eq!(retry_after("18446744073709551615", None), Some(longest));
        let (never, epoch) = ("Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(retry_after(never, Some(epoch)), Some(longest));
    }

    #[test]
    fn a_retry_after_date_is_measured_against_the_date_of_the_same_response() {
        let (at, date) = ("Sun, 06 Nov 1994 08:50:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(retry_after(at, Some(date)), Some(Duration::from_secs(60)));
        assert_eq!(retry_after(date, Some(at)), Some(Duration::ZERO), "in the past");
        assert_eq!(retry_after(at, None), None, "nothing to measure against");
        assert_eq!(retry_after(at, Some("yesterday")), None, "an unreadable Date");
    }

    proptest! {
        #[test]
        fn any_text_parses_or_does_not_but_never_panics(value in any::<String>(), date in any::<String>()) {
            let _ = parse(&value);
            let _ = retry_after(&value, Some(&date));
        }

        #[test]
        fn every_second_of_the_calendar_survives_being_written_down(second in -62_167_219_200_i64..=253_402_300_799) {
            // Counted by walking years and months, to owe nothing to the arithmetic under test.
            let (mut days, clock) = (second.div_euclid(SECONDS_PER_DAY), second.rem_euclid(SECONDS_PER_DAY));
            let mut year = 1970;
            while days < 0 {
                year -= 1;
                days += if is_leap(year) { 366 } else { 365 };
            }
            while days >= if is_leap(year) { 366 } else { 365 } {
                days -= if is_leap(year) { 366 } else { 365 };
                year += 1;
            }
            let mut month = 0;
            while days >= days_in_month(year, month) {
                days -= days_in_month(year, month);
                month += 1;
            }
            let text = format!(
                "Mon, {:02} {} {year:04} {:02}:{:02}:{:02} GMT",
                days + 1, MONTHS[month], clock / 3_600, clock / 60 % 60, clock % 60,
            );
            prop_assert_eq!(parse(&text), Some(second), "{}", text);
        }
    }
}
