//! Points in time for people.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A time in UTC, to the millisecond. It is shown in the format of RFC 3339: `2026-11-30T02:13:38.007Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    millisecond: u32,
}

impl Utc {
    /// Returns the current time. Before 1970 it is the beginning of 1970.
    pub fn now() -> Self {
        Self::since_1970(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// Returns the time at this distance from the beginning of 1970.
    pub fn since_1970(since: Duration) -> Self {
        let (days, time) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        // Years begin in March here, so that a leap day is the last day of its year.
        let days = days + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = 400 * era + year + later;
        let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
        Self { year, month, day, hour, minute, second, millisecond: since.subsec_millis() }
    }

    /// Formats it for names of files: `20261130T021338Z`.
    pub fn compact(&self) -> String {
        let Self { year, month, day, hour, minute, second, .. } = self;
        format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second, millisecond } = self;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        let check = |milliseconds, expected: &str| {
            let shown = Utc::since_1970(Duration::from_millis(milliseconds));
            assert_eq!(shown.to_string(), expected);
        };
        check(0, "1970-01-01T00:00:00.000Z");
        check(951_868_799_999, "2000-02-29T23:59:59.999Z");
        check(951_868_800_000, "2000-03-01T00:00:00.000Z");
        check(1_796_004_818_007, "2026-11-30T02:13:38.007Z");
        check(4_107_542_400_000, "2100-03-01T00:00:00.000Z");
        check(951_782_399_000, "2000-02-28T23:59:59.000Z");
    }

    #[test]
    fn names_of_files_have_seconds() {
        let compact = |seconds| Utc::since_1970(Duration::from_secs(seconds)).compact();
        assert_eq!([compact(0), compact(1_796_004_818)], ["19700101T000000Z", "20261130T021338Z"]);
    }
}
