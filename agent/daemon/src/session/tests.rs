//! Sessions in which everybody else is played, and time passes at once.

mod cases;
mod coordinator;
mod workers;
