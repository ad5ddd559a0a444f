//! Wall-clock times: milliseconds since 1970, written as RFC 3339 in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds of a day; there are no leap seconds in times since 1970.
pub const DAY_MS: i64 = 86_400_000;

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMs(pub i64);

impl UnixMs {
    /// The system's clock. A clock before 1970 reads as 1970.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the time of day is asked for"
    )]
    pub fn now() -> Self {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMs(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    }

    /// So many days later.
    pub fn plus_days(self, days: u32) -> Self {
        UnixMs(self.0.saturating_add(i64::from(days) * DAY_MS))
    }

    /// Reads RFC 3339 in UTC, to the millisecond: `2026-11-22T08:30:00Z`, with any
    /// number of decimals of the second.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix(['Z', 'z'])?;
        let (date, time) = text.split_once(['T', 't'])?;
        let (time, fraction) = match time.split_once('.') {
            Some((time, fraction)) if !fraction.is_empty() => (time, fraction),
            Some(_) => return None,
            None => (time, "0"),
        };
        let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
        let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
        if hour > 23 || minute > 59 || second > 59 || !fraction.bytes().all(|b| b.is_ascii_digit())
        {
            return None;
        }
        let ms: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
        let days = days_of(year, month, day)?;
        Some(UnixMs(((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + ms))
    }

    /// `Sun, 22 Nov 2026 08:30:00 +0000`, as the heads of letters have it (RFC 5322, 3.3).
    pub fn rfc2822(self) -> String {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let name = |names: &[&'static str], at: i64| {
            usize::try_from(at).ok().and_then(|at| names.get(at)).copied().unwrap_or("")
        };
        let days = self.0.div_euclid(DAY_MS);
        let s = self.0.rem_euclid(DAY_MS) / 1000;
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (s / 3600, s / 60 % 60, s % 60);
        let (weekday, month) = (name(&DAYS, days.rem_euclid(7)), name(&MONTHS, month - 1));
        format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} +0000")
    }

    /// `2026-11-22T08:30:00.125Z`.
    pub fn rfc3339(self) -> String {
        let days = self.0.div_euclid(DAY_MS);
        let ms = self.0.rem_euclid(DAY_MS);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        let ms = ms % 1000;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

/// Three numbers of so many digits.
fn numbers(text: &str, separator: char, digits: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(separator);
    let mut number = |digits: usize| {
        let part = parts.next().filter(|part| part.len() == digits)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let found = [number(digits[0])?, number(digits[1])?, number(digits[2])?];
    parts.next().is_none().then_some(found)
}

/// The inverse of [`civil`]; `None` for a day that there is not.
fn days_of(year: i64, month: i64, day: i64) -> Option<i64> {
    let (of_march, month_from_march) =
        if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = of_march.div_euclid(400);
    let year_of_era = of_march.rem_euclid(400);
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    // A month or day out of range comes back as another.
    (civil(days) == (year, month, day)).then_some(days)
}

/// Year, month and day of a day counted from 1970-01-01, by counting 400-year
/// eras of 146,097 days with years that begin in March, so that leap days come last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_times_that_there_are_are_read() {
        assert_eq!(UnixMs::parse("1970-01-01t00:00:01z"), Some(UnixMs(1000)));
        assert_eq!(UnixMs::parse("1970-01-01T00:00:00.0019Z"), Some(UnixMs(1)));
        for text in [
            "",
            "2026-11-22",
            "2026-11-22T08:30:00",
            "2026-11-22T08:30:00+01:00",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-10T00:00:00Z",
            "2026-11-31T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T08:60:00Z",
            "2026-11-22T08:30:00.Z",
            "2026-11-22T08:30:00.xZ",
            "26-11-22T08:30:00Z",
            "+026-11-22T08:30:00Z",
            "2026-11-22T08:30:00:00Z",
        ] {
            assert_eq!(UnixMs::parse(text), None, "{text}");
        }
    }

    #[test]
    fn known_days_are_written_rightly() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_795_336_200_125, "2026-11-22T08:30:00.125Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(UnixMs(ms).rfc3339(), text);
            assert_eq!(UnixMs::parse(text), Some(UnixMs(ms)));
        }
    }

    #[test]
    fn letters_name_the_day_of_the_week() {
        for (ms, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 +0000"),
            (951_782_400_000, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (1_795_336_200_125, "Sun, 22 Nov 2026 08:30:00 +0000"),
        ] {
            assert_eq!(UnixMs(ms).rfc2822(), text);
        }
    }
}
