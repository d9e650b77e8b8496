//! The messages that farpool's parts exchange: package `farpool.v1`.
//!
//! Everything here is generated from `farpool/v1/*.proto` and committed, so that a build needs neither protoc
//! nor a code generator; `cargo test -p farpool-proto` fails when the two have drifted apart and
//! `FARPOOL_REGENERATE=1 cargo test -p farpool-proto` brings them together again.
//!
//! On a cluster these messages travel over gRPC; in local mode the same structs are passed by value.

#![allow(missing_docs, reason = "the generated code carries the comments of the .proto files where there are any")]

/// Version 1 of the messages.
pub mod v1 {
    include!("farpool.v1.rs");
}
