//! What needs no main of its own: Rust's harness runs it.

mod compile_fail;
mod libtest;
mod stress;
