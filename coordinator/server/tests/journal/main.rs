//! The journal on a real disk: killed at any moment, damaged, and with no space left.

mod damaged;
mod full;
mod killed;
mod scratch;
