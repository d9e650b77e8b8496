//! Tests that run under Rust's own harness.

mod compile_fail;
mod libtest;
mod stress;
