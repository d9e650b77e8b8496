//! The environment variables that farpool's client reads.

use std::env::{self, VarError};
use std::sync::OnceLock;
use std::time::Duration;

use crate::error::Error;

/// The address of the cluster that pools run on; not set or empty: this machine.
pub(crate) const ADDRESS: &str = "FARPOOL_ADDRESS";
/// The digest of this program, in a worker on a cluster.
pub(crate) const PROGRAM: &str = "FARPOOL_PROGRAM";

/// How long a pool on a cluster tries to get its coordinator back, as in `60s`; not set or empty: the default.
pub(crate) const RECONNECT_TIMEOUT: &str = "FARPOOL_RECONNECT_TIMEOUT";

static TOLD_PROGRAM: OnceLock<String> = OnceLock::new();

/// The value of [`ADDRESS`], if there is one.
pub(crate) fn address() -> Result<Option<String>, Error> {
    text(ADDRESS, "write an address such as http://node1:7070")
}

/// This process was started by an agent, which may have said the program's digest. Whatever else inherits the variable
/// is another program, for all that is known.
pub(crate) fn remember_program() {
    if let Ok(digest) = env::var(PROGRAM) {
        let _ = TOLD_PROGRAM.set(digest);
    }
}

/// The program's digest, if an agent has said it.
pub(crate) fn program() -> Option<&'static str> {
    TOLD_PROGRAM.get().map(String::as_str)
}

/// The value of [`RECONNECT_TIMEOUT`], if there is one.
pub(crate) fn reconnect_timeout() -> Result<Option<Duration>, Error> {
    let advice = "write a number and ms, s, m or h, as in 60s, or 0";
    let Some(text) = text(RECONNECT_TIMEOUT, advice)? else { return Ok(None) };
    duration(&text).map(Some).ok_or_else(|| Error::invalid(format!("{RECONNECT_TIMEOUT} is {text:?}: {advice}")))
}

/// The value of a variable; not set or empty: none.
fn text(name: &str, advice: &str) -> Result<Option<String>, Error> {
    match env::var(name) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => Ok(Some(text)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(value)) => {
            Err(Error::invalid(format!("{name} is {value:?}, which is not UTF-8: {advice}")))
        }
    }
}

fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let number: f64 = number.parse().ok()?;
    let seconds = match unit.trim_start() {
        "ms" => 0.001,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "" if number == 0.0 => 1.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, expected) in [
            ("60s", Some(60_000)),
            (" 1.5 s", Some(1500)),
            ("250ms", Some(250)),
            ("2min", Some(120_000)),
            ("2m", Some(120_000)),
            ("1h", Some(3_600_000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("60", None),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1.2.3s", None),
            ("5 days", None),
            ("99999999999999999999999h", None),
        ] {
            assert_eq!(duration(text), expected.map(Duration::from_millis), "{text:?}");
        }
    }
}
