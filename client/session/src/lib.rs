//! The client side of farpool without a language: functions, items and results are bytes. Every language's API is built on it.
//!
//! A [`Session`] is a pool as its client sees it, on this machine or on a cluster. Its jobs call a function that bytes
//! identify, with items and results that are bytes. Their meaning is up to the language of the workers' program (see
//! `farpool-worker`) and to the front: the API or program that uses this crate.
//!
//! - [`Session::open`] opens a pool with a [`Program`], [`Settings`], and a [`Front`] that shows what workers print.
//! - [`Session::job`] opens a [`Job`]: items are sent as far as there is room, outcomes are taken as they arrive.
//! - The module `detached` has jobs that the coordinator keeps.
//! - Errors say what happened. The front adds what to do about it, in terms of its own API ([`Error::story`]).
//!
//! Pools on clusters need the feature `cluster`, which is on by default.
//!
//! A front that decodes results in place uses [`Call`], [`Inbox`] and [`Results`] instead of [`Job`].

#![cfg_attr(not(feature = "cluster"), expect(dead_code, reason = "some of it is for clusters only"))]

mod call;
mod carrier;
#[cfg(feature = "cluster")]
mod cluster;
mod counted;
mod dropped_values;
mod error;
mod front;
mod gate;
mod inbox;
mod inboxes;
mod item_limit;
mod job;
mod local;
mod program;
mod results;
mod session;
mod settings;
mod shared_value;
mod waits;

#[cfg(feature = "cluster")]
pub mod detached;
pub mod environment;
pub mod fork;
pub mod labels;

#[cfg(feature = "cluster")]
pub use farpool_common::address::Address;

pub use call::{Call, cancel};
pub use carrier::Carrier;
#[cfg(feature = "cluster")]
pub use cluster::address;
#[cfg(feature = "cluster")]
#[doc(hidden)]
pub use cluster::caller_driven;
pub use counted::Counted;
pub use error::{Error, ErrorKind, Remedy};
pub use front::Front;
pub use gate::{Gate, Held};
pub use inbox::{Delivery, End, EndHook, Inbox, Interest, Room, Wakes};
pub use item_limit::ItemLimit;
pub use job::{Job, Outcome};
pub use program::Program;
pub use results::{Results, check_items_exist};
pub use session::Session;
pub use settings::{RECONNECT_TIMEOUT, Settings, Target};
pub use shared_value::SharedValue;

/// Stack size in bytes of threads that hold users' values. It is as large as a main thread's, so that the deepest value that can
/// be encoded can also be dropped there.
pub const STACK: usize = 8 << 20;
