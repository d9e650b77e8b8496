//! The messages that farpool's parts exchange: package `farpool.v1`.
//!
//! Everything here is generated from `farpool/v1/*.proto` and committed, so that a build needs neither protoc
//! nor a code generator. `cargo run --manifest-path proto/generate/Cargo.toml` generates it, and
//! `cargo test -p farpool-proto` fails when that was forgotten.
//!
//! On a cluster these messages travel over gRPC; in local mode the same structs are passed by value.

#![allow(missing_docs, reason = "the generated code carries the comments of the .proto files where there are any")]
#![allow(clippy::allow_attributes, reason = "the code generator writes them")]

mod batch;
pub mod decode;
pub mod ends;
pub mod limits;
pub mod parts;
mod program;
mod secrets;
pub mod text;

pub use batch::Batch;

/// Version 1 of the messages.
pub mod v1 {
    include!("farpool.v1.rs");

    /// The files that this was generated from, encoded, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!("farpool.v1.bin");
}

/// The protocol version, which covers the messages and the memory that agents share with workers. Both sides of a
/// session must have the same one.
pub const PROTOCOL: u32 = 12;

/// The version that this build sends at the start of a session.
pub fn version() -> v1::Version {
    v1::Version { release: env!("CARGO_PKG_VERSION").to_owned(), protocol: PROTOCOL }
}
