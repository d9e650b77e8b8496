//! The environment variables that a client reads.

use std::env::{self, VarError};
use std::time::Duration;

use farpool_common::units::duration_or_zero;

use crate::error::Error;

/// The variable with the address of the cluster that pools run on. Unset or empty: this machine.
pub const ADDRESS: &str = "FARPOOL_ADDRESS";

/// The variable with how long a pool on a cluster tries to reconnect, as in `60s`. Unset or empty: the default.
pub const RECONNECT_TIMEOUT: &str = "FARPOOL_RECONNECT_TIMEOUT";

/// Returns the value of [`ADDRESS`], if it is set.
pub fn address() -> Result<Option<String>, Error> {
    text(ADDRESS, "write an address such as http://node1:7070")
}

/// Returns the value of [`RECONNECT_TIMEOUT`], if it is set.
pub fn reconnect_timeout() -> Result<Option<Duration>, Error> {
    let advice = "write a number and ms, s, m, h or d, as in 60s, or 0";
    let Some(text) = text(RECONNECT_TIMEOUT, advice)? else { return Ok(None) };
    duration_or_zero(&text).map(Some).map_err(|_| Error::invalid(format!("{RECONNECT_TIMEOUT} is {text:?}: {advice}")))
}

/// Returns the value of a variable; `None` if it is unset or empty.
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
