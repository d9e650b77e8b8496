//! Inputs from outside, one function for each kind of message or request.

pub(crate) mod agent;
pub(crate) mod client;
pub(crate) mod job;
pub(crate) mod place;
pub(crate) mod queries;
pub(crate) mod status;
