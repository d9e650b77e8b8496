//! What farpool's tests share. Tests of every crate may use it: it stands on none that a test would have to build for its sake.

pub mod doses;
