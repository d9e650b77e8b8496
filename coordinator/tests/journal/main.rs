//! The journal on a real disk: killed at any moment, and with no space left.

mod full;
mod killed;
mod scratch;
