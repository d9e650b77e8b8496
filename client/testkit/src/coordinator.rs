//! A fake coordinator, controlled by a test.

pub mod agents;
