//! Seeds of histories in which something went wrong once, and what that was.

/// Each is played whatever is asked for.
pub(crate) const SEEDS: &[(u64, &str)] = &[];
