//! What comes from outside, one function for each kind of message or wish.

pub(crate) mod agent;
pub(crate) mod client;
pub(crate) mod job;
pub(crate) mod place;
pub(crate) mod questions;
pub(crate) mod status;
