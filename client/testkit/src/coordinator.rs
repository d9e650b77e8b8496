//! A fake coordinator, controlled by a test: its side of sessions with agents and with clients.

pub mod agents;
pub mod clients;
