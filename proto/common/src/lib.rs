//! Code that farpool's programs share and that needs none of farpool's messages.
//!
//! Local mode uses only what needs no feature, so it pays for nothing else.

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
