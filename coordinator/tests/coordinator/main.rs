//! The coordinator between fake clients and agents.

mod exactly_once;
mod fakes;
mod operators;
mod places;
mod refused;
mod reopen;
mod restarts;
mod sessions;
mod settled;
mod unacknowledged;
