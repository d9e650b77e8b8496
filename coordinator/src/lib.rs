//! The coordinator of farpool: takes jobs from clients, hands chunks to agents, and passes outcomes back.
//!
//! [`Coordinator`] is everything but the sending: messages of `farpool.v1` and the time go in, messages come out
//! through an [`Outbox`]. A server carries them over gRPC, local mode passes the structs themselves; both drive it the
//! same way, from one loop that owns it:
//!
//! 1. take in what has come, as many messages as are there: [`Coordinator::client_message`] and
//!    [`Coordinator::agent_event`]; a [`Refused`] one ends its session and no other;
//! 2. [`Coordinator::schedule`], once;
//! 3. drain the outbox.
//!
//! Decisions are made by `farpool-core`, which knows no bytes. Here are the bytes (`store`), the checks on what
//! peers say (`convert`), who is connected (`clients`, `agents`, `pools`, `places`), how what a former coordinator knew comes back
//! (`reopen`, `adopt`) and what it takes for that (`settled`), and what operators see and do (`status`, `operate`).

mod adopt;
mod agents;
mod clients;
pub mod convert;
mod coordinator;
mod follow;
mod ids;
mod jobs;
mod labels;
mod lends;
mod operate;
mod outbox;
mod places;
mod pools;
mod principal;
mod rate;
mod refused;
mod reopen;
mod settled;
mod status;
mod store;
mod unheard;

pub use coordinator::{Config, Coordinator};
pub use farpool_core::{AgentId, JobId};
pub use ids::ClientId;
pub use outbox::Outbox;
pub use principal::Principal;
pub use refused::{Refused, RefusedKind};
