//! Sizes and times as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The first four are also what sizes are shown in. A letter alone is binary, as for `head -c` and `split -b`.
const SIZES: [(&str, u64); 13] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
    ("T", 1 << 40),
    ("G", 1 << 30),
    ("M", 1 << 20),
    ("K", 1 << 10),
];

/// In milliseconds. Times are shown in all but the last.
const TIMES: [(&str, u64); 6] =
    [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1), ("m", 60_000)];

/// A number of bytes: `4GiB`, `512 MiB`, `1.5GB`, `64k` or just `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text);
        let factor = match SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
            Some(&(_, factor)) => Some(factor),
            None if unit.is_empty() => Some(1),
            None => None,
        };
        let bytes = factor.and_then(|factor| scale(number, factor));
        bytes.map(Self).ok_or_else(|| {
            "a size is a number of bytes, or a number and KiB, MiB, GiB, kB, MB or GB, as in 4GiB".to_owned()
        })
    }
}

/// Shown in the largest unit in which it is a whole number.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |&&(_, factor): &&(&str, u64)| self.0 >= factor && self.0.is_multiple_of(factor);
        let (unit, factor) = SIZES[..4].iter().find(fits).copied().unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// Parses a time above 0: `5s`, `500ms`, `1.5min`, `2h`, `7d`; a number alone is seconds.
///
/// # Errors
/// If it is not a time.
pub fn duration(text: &str) -> Result<Duration, String> {
    let time = time(text).filter(|time| !time.is_zero());
    time.ok_or_else(|| "a time is a number of seconds above 0, or a number and ms, s, min, h or d, as in 5s".to_owned())
}

/// Parses a time that may be `0`.
///
/// # Errors
/// If it is not a time.
pub fn duration_or_zero(text: &str) -> Result<Duration, String> {
    time(text).ok_or_else(|| {
        "a time is a number of seconds, or a number and ms, s, min, h or d, as in 5s; it may be 0".to_owned()
    })
}

fn time(text: &str) -> Option<Duration> {
    let (number, unit) = split(text);
    let unit = if unit.is_empty() { "s" } else { unit };
    let factor = TIMES.iter().find(|(name, _)| *name == unit).map(|&(_, factor)| factor);
    factor.and_then(|factor| scale(number, factor)).map(Duration::from_millis)
}

/// Formats a time as it would be written: in the largest unit in which it is a whole number. Less than a millisecond
/// is left out.
pub fn format_exact(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let fits = |&&(_, factor): &&(&str, u64)| {
        milliseconds >= u128::from(factor) && milliseconds.is_multiple_of(u128::from(factor))
    };
    let (unit, factor) = TIMES[..5].iter().find(fits).copied().unwrap_or(("s", 1_000));
    format!("{}{unit}", milliseconds / u128::from(factor))
}

/// Parses a count: a whole number of at least 1.
///
/// # Errors
/// If it is not such a number, or above 4,294,967,295.
pub fn count(text: &str) -> Result<u32, String> {
    count_or_zero(text).ok().filter(|&count| count > 0).ok_or_else(|| wrong_count(1))
}

/// Parses a whole number that may be 0.
///
/// # Errors
/// If it is not such a number, or above 4,294,967,295.
pub fn count_or_zero(text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_| wrong_count(0))
}

fn wrong_count(least: u32) -> String {
    format!("write a whole number from {least} to {}", u32::MAX)
}

/// Formats a time for messages: rounded to what matters.
pub fn format_rounded(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{}s", (duration.as_secs_f64() * 10.0).round() / 10.0),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {:02}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

fn scale(number: &str, factor: u64) -> Option<u64> {
    match number.parse::<u64>() {
        Ok(number) => number.checked_mul(factor),
        // A number with a decimal point: 53 bits of precision are enough.
        Err(_) => {
            let scaled = number.parse::<f64>().ok()? * factor as f64;
            (scaled < u64::MAX as f64).then_some(scaled as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(text.parse::<ByteSize>().ok().map(|size| size.0), expected, "{text}");
        };
        check("4GiB", Some(4 << 30));
        check(" 512 mib ", Some(512 << 20));
        check("1.5kB", Some(1500));
        check("4096", Some(4096));
        check("0", Some(0));
        for (text, bytes) in [("1M", 1 << 20), ("64k", 64 << 10), ("2G", 2 << 30), ("1 T", 1 << 40)] {
            check(text, Some(bytes));
        }
        check("20000000TiB", None);
        check("99999999999999999999", None);
        for text in ["", "GiB", "4 potatoes", "-1", "4GiB4", "1.2.3MB", "."] {
            check(text, None);
        }
    }

    #[test]
    fn sizes_are_shown_as_they_would_be_written() {
        let check = |bytes: u64, expected: &str| assert_eq!(ByteSize(bytes).to_string(), expected);
        check(4 << 30, "4GiB");
        check(1536 << 20, "1536MiB");
        check(1000, "1000B");
        check(0, "0B");
    }

    #[test]
    fn times_are_shown_as_they_would_be_written() {
        for (milliseconds, expected) in [
            (604_800_000, "7d"),
            (90_000, "90s"),
            (120_000, "2min"),
            (5_400_000, "90min"),
            (1_500, "1500ms"),
            (0, "0s"),
        ] {
            let time = Duration::from_millis(milliseconds);
            assert_eq!(format_exact(time), expected);
            assert_eq!(duration_or_zero(expected), Ok(time));
        }
    }

    #[test]
    fn counts_are_whole_numbers() {
        assert_eq!([count("1"), count(" 16 ")], [Ok(1), Ok(16)]);
        assert_eq!([count_or_zero("0"), count_or_zero("4294967295")], [Ok(0), Ok(u32::MAX)]);
        for text in ["0", "", "x", "-1", "1.5", "4294967296"] {
            assert_eq!(count(text), Err("write a whole number from 1 to 4294967295".to_owned()), "{text}");
        }
        assert!(count_or_zero("x").is_err_and(|why| why.contains("from 0")));
    }

    #[test]
    fn times() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(duration_or_zero(text).ok(), expected.map(Duration::from_millis), "{text}");
            let more_than_none = expected.filter(|&time| time > 0).map(Duration::from_millis);
            assert_eq!(duration(text).ok(), more_than_none, "{text}");
        };
        check("5s", Some(5000));
        check(" 500 ms", Some(500));
        check("1.5min", Some(90_000));
        check("2m", Some(120_000));
        check("1.5h", Some(5_400_000));
        check("7d", Some(604_800_000));
        check(".5s", Some(500));
        check("60", Some(60_000));
        for none in ["0", "0s", "0ms"] {
            check(none, Some(0));
        }
        for text in ["", "s", "5 parsecs", "5 days", "-1s", "1e3", "1.2.3s", "99999999999999999999999h"] {
            check(text, None);
        }
    }

    #[test]
    fn messages_round() {
        let shown = |milliseconds| format_rounded(Duration::from_millis(milliseconds));
        assert_eq!([shown(7), shown(1000), shown(1340), shown(61_000)], ["7ms", "1s", "1.3s", "1m 01s"]);
        assert_eq!([shown(3_660_000), shown(90_000_000)], ["1h 01m", "1d 01h"]);
    }
}
