//! Durations as people write them.

use std::time::Duration;

/// Reads `10s`, `1.5h`, `500ms`; a number alone is seconds.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return Err("write a number and one of ms, s, m, h, d, as in 10s or 1.5h".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "write a number before the unit, as in 10s".to_owned())?;
    match Duration::try_from_secs_f64(number * unit) {
        Ok(Duration::ZERO) => Err("it must be above zero".to_owned()),
        Ok(duration) => Ok(duration),
        Err(_) => Err("it is too long".to_owned()),
    }
}

/// Reads the same, or no time at all.
pub(crate) fn parse_or_zero(text: &str) -> Result<Duration, String> {
    let is_zero = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()) == "0";
    if is_zero { parse(&text.replacen('0', "1", 1)).map(|_| Duration::ZERO) } else { parse(text) }
}

/// Writes it as [`parse`] reads it, for messages: rounded to what matters.
pub(crate) fn show(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{}s", (duration.as_secs_f64() * 10.0).round() / 10.0),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {:02}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_units() {
        for (text, milliseconds) in
            [("10s", 10_000), ("10", 10_000), ("1.5h", 5_400_000), ("500ms", 500), (".5s", 500), ("2m", 120_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in ["", "s", "0", "0ms", "-1s", "10x", "10 s", "1e3", "1.2.3s", "99999999999999999999d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn messages_round() {
        let shown = |milliseconds| show(Duration::from_millis(milliseconds));
        assert_eq!([shown(7), shown(1000), shown(1340), shown(61_000)], ["7ms", "1s", "1.3s", "1m 01s"]);
        assert_eq!([shown(3_660_000), shown(90_000_000)], ["1h 01m", "1d 01h"]);
    }
}
