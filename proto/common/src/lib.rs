//! What farpool's programs share and what knows no message of theirs: one of each.
//!
//! Local mode uses what needs no feature, and pays for nothing else.

#[cfg(feature = "net")]
pub mod address;
pub mod backoff;
pub mod causes;
#[cfg(feature = "commit")]
pub mod commit;
#[cfg(feature = "log")]
pub mod log;
#[cfg(feature = "settings")]
pub mod settings;
pub mod time;
pub mod units;
