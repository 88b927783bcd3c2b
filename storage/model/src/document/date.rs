//! Points in time as text: read as JavaScript's `Date` reads the common forms, written as its `toISOString` writes.
//!
//! Read are ISO 8601 dates and times (a time without zone is UTC, as on a server whose zone is UTC; also with a space
//! instead of the `T`, and a zone without colon) and the form of HTTP headers. Everything else is no date.

use crate::time::UnixMillis;

const MILLIS_PER_DAY: i64 = 86_400_000;
/// The last point in time that a JavaScript `Date` can hold.
const MAX_MILLIS: i64 = 8_640_000_000_000_000;

/// The time that a text names; before 1970 it is taken for 1970. `None` when it names none.
#[must_use]
pub fn parse_date(text: &str) -> Option<UnixMillis> {
    let text = text.trim();
    let millis = parse_iso(text).or_else(|| parse_http(text))?;
    (millis <= MAX_MILLIS).then(|| UnixMillis(u64::try_from(millis).unwrap_or(0)))
}

/// ISO 8601 in UTC with milliseconds, as in `2030-01-31T12:00:00.000Z`.
#[must_use]
pub fn format_date(time: UnixMillis) -> String {
    let millis = i64::try_from(time.0).unwrap_or(MAX_MILLIS).min(MAX_MILLIS);
    let days = millis.div_euclid(MILLIS_PER_DAY);
    let of_day = millis.rem_euclid(MILLIS_PER_DAY);
    let (year, month, day) = civil(days);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, milli) = (of_day / 1000 % 60, of_day % 1000);
    let time = format!("{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z");
    if year <= 9999 {
        format!("{year:04}-{time}")
    } else {
        format!("+{year:06}-{time}")
    }
}

fn parse_iso(text: &str) -> Option<i64> {
    let mut rest = text.as_bytes();
    let year = match rest.first()? {
        sign @ (b'+' | b'-') => {
            rest = rest.get(1..)?;
            let year = digits(&mut rest, 6)?;
            if *sign == b'-' {
                0_i64.checked_sub(year)?
            } else {
                year
            }
        }
        _ => digits(&mut rest, 4)?,
    };
    let mut month = 1;
    let mut day = 1;
    if take(&mut rest, b"-") {
        month = digits(&mut rest, 2)?;
        if take(&mut rest, b"-") {
            day = digits(&mut rest, 2)?;
        }
    }
    let days = days_from_civil(year, month, day)?;
    let mut millis = days.checked_mul(MILLIS_PER_DAY)?;
    if let [b'T' | b't' | b' ', after @ ..] = rest {
        rest = after;
        millis = millis.checked_add(time_of_day(&mut rest)?)?;
        millis = millis.checked_sub(zone(&mut rest)?)?;
    }
    rest.is_empty().then_some(millis)
}

/// `hh:mm`, with seconds and a fraction if they are there, in milliseconds.
fn time_of_day(rest: &mut &[u8]) -> Option<i64> {
    let hour = digits(rest, 2)?;
    if !take(rest, b":") {
        return None;
    }
    let minute = digits(rest, 2)?;
    let mut second = 0;
    let mut milli = 0;
    if take(rest, b":") {
        second = digits(rest, 2)?;
        if take(rest, b".") || take(rest, b",") {
            milli = fraction(rest)?;
        }
    }
    let midnight = hour == 24 && minute == 0 && second == 0 && milli == 0;
    if (hour > 23 && !midnight) || minute > 59 || second > 59 {
        return None;
    }
    let minutes = hour.checked_mul(60)?.checked_add(minute)?;
    minutes
        .checked_mul(60)?
        .checked_add(second)?
        .checked_mul(1000)?
        .checked_add(milli)
}

/// Digits after the point; those beyond milliseconds are cut off.
fn fraction(rest: &mut &[u8]) -> Option<i64> {
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (fraction, after) = rest.split_at_checked(count).filter(|_| count > 0)?;
    *rest = after;
    let padded = fraction.iter().chain(b"00").take(3);
    padded
        .chain(b"0".iter().cycle())
        .take(3)
        .try_fold(0_i64, |sum, digit| {
            sum.checked_mul(10)?
                .checked_add(i64::from(digit.checked_sub(b'0')?))
        })
}

/// How far the zone is ahead of UTC, in milliseconds; without one it is UTC.
fn zone(rest: &mut &[u8]) -> Option<i64> {
    if rest.is_empty() || take(rest, b"Z") || take(rest, b"z") {
        return Some(0);
    }
    take(rest, b" ");
    let ahead = take(rest, b"+");
    if !ahead && !take(rest, b"-") {
        return None;
    }
    let hours = digits(rest, 2)?;
    take(rest, b":");
    let minutes = if rest.is_empty() { 0 } else { digits(rest, 2)? };
    if hours > 23 || minutes > 59 {
        return None;
    }
    let millis = hours
        .checked_mul(60)?
        .checked_add(minutes)?
        .checked_mul(60_000)?;
    if ahead {
        Some(millis)
    } else {
        0_i64.checked_sub(millis)
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, also without the weekday.
fn parse_http(text: &str) -> Option<i64> {
    let date = text.split_once(", ").map_or(text, |(_, date)| date);
    let mut words = date.split_ascii_whitespace();
    let day: i64 = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = MONTHS
        .iter()
        .position(|month| name.eq_ignore_ascii_case(month))?;
    let year: i64 = words.next().filter(|year| year.len() == 4)?.parse().ok()?;
    let month = i64::try_from(month).ok()?.checked_add(1)?;
    let days = days_from_civil(year, month, day)?;
    let mut time = words.next().unwrap_or("00:00:00").as_bytes();
    let of_day = time_of_day(&mut time).filter(|_| time.is_empty())?;
    if !matches!(words.next(), None | Some("GMT" | "UTC" | "Z")) || words.next().is_some() {
        return None;
    }
    days.checked_mul(MILLIS_PER_DAY)?.checked_add(of_day)
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

fn digits(rest: &mut &[u8], count: usize) -> Option<i64> {
    let (digits, after) = rest.split_at_checked(count)?;
    *rest = after;
    digits.iter().try_fold(0_i64, |sum, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        sum.checked_mul(10)?.checked_add(i64::from(digit))
    })
}

fn take(rest: &mut &[u8], prefix: &[u8]) -> bool {
    match rest.strip_prefix(prefix) {
        Some(after) => {
            *rest = after;
            true
        }
        None => false,
    }
}

/// Days from 1970-01-01 to a day of the Gregorian calendar, which must exist.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0);
    let length = match month {
        2 => 28_i64.checked_add(i64::from(leap))?,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Years begin in March here, so that the leap day is the last of one.
    let year = if month <= 2 {
        year.checked_sub(1)?
    } else {
        year
    };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let months = month.checked_add(9)?.rem_euclid(12);
    let day_of_year = months
        .checked_mul(153)?
        .checked_add(2)?
        .div_euclid(5)
        .checked_add(day)?
        .checked_sub(1)?;
    let leap_days = year_of_era
        .div_euclid(4)
        .checked_sub(year_of_era.div_euclid(100))?;
    let day_of_era = year_of_era
        .checked_mul(365)?
        .checked_add(leap_days)?
        .checked_add(day_of_year)?;
    era.checked_mul(146_097)?
        .checked_add(day_of_era)?
        .checked_sub(719_468)
}

/// Year, month and day of a day counted from 1970-01-01; not before it, so nothing here is negative.
const fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = day_of_era
        .saturating_sub(day_of_era / 1_460)
        .saturating_add(day_of_era / 36_524)
        .saturating_sub(day_of_era / 146_096)
        / 365;
    let before_year = year_of_era
        .saturating_mul(365)
        .saturating_add(year_of_era / 4)
        .saturating_sub(year_of_era / 100);
    let day_of_year = day_of_era.saturating_sub(before_year);
    let months = day_of_year.saturating_mul(5).saturating_add(2) / 153;
    let day = day_of_year
        .saturating_sub(months.saturating_mul(153).saturating_add(2) / 5)
        .saturating_add(1);
    let month = if months < 10 {
        months.saturating_add(3)
    } else {
        months.saturating_sub(9)
    };
    let year = year_of_era.saturating_add(era.saturating_mul(400));
    (
        if month <= 2 {
            year.saturating_add(1)
        } else {
            year
        },
        month,
        day,
    )
}

#[cfg(test)]
mod tests {
    use super::{format_date, parse_date};
    use crate::time::UnixMillis;

    #[test]
    fn common_forms_are_read_as_javascript_reads_them() {
        for (text, iso) in [
            ("2030-01-31T12:00:00.000Z", "2030-01-31T12:00:00.000Z"),
            ("2030-01-31T12:00:00Z", "2030-01-31T12:00:00.000Z"),
            ("2030-01-31T12:00Z", "2030-01-31T12:00:00.000Z"),
            (
                "2030-01-31T12:00:00.123456+02:00",
                "2030-01-31T10:00:00.123Z",
            ),
            ("2030-01-31T12:00:00.5-0130", "2030-01-31T13:30:00.500Z"),
            ("2030-01-31 12:00:00", "2030-01-31T12:00:00.000Z"),
            ("2030-01-31", "2030-01-31T00:00:00.000Z"),
            ("2030-01", "2030-01-01T00:00:00.000Z"),
            ("2030", "2030-01-01T00:00:00.000Z"),
            ("2028-02-29T24:00:00Z", "2028-03-01T00:00:00.000Z"),
            ("Sun, 06 Nov 1994 08:49:37 GMT", "1994-11-06T08:49:37.000Z"),
            ("+012030-01-31T12:00:00.000Z", "+012030-01-31T12:00:00.000Z"),
            ("1960-01-01", "1970-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(
                parse_date(text).map(format_date).as_deref(),
                Some(iso),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "soon",
            "2030-13-01",
            "2030-02-30",
            "2029-02-29",
            "2030-01-31T25:00Z",
            "2030-01-31T12:60Z",
            "2030-01-31T12",
            "2030-01-31Tx",
            "20300131",
            "2030-01-31T12:00:00.Z",
            "2030-01-31T12:00:00Zx",
            "06 Nov",
            "99 Nov 1994",
            "+999999-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_five_centuries_comes_back() {
        for day in 0..182_622_u64 {
            let time = UnixMillis(day * 86_400_000 + day);
            assert_eq!(parse_date(&format_date(time)), Some(time));
        }
        assert_eq!(
            format_date(UnixMillis(u64::MAX)),
            "+275760-09-13T00:00:00.000Z"
        );
    }
}
