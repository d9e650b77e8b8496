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
//! Decisions are made by `farpool-core`, which knows no bytes.
//!
//! # Where what is
//!
//! Four storeys, and nobody calls upwards:
//!
//! | | |
//! |---|---|
//! | `coordinator` | the doors: each begins a round |
//! | `inputs/` | one function for each kind of message or wish: `client`, `job`, `agent`, `place`; `questions` and `status` change nothing |
//! | `steps/` | what follows: `recovery` > `adoption`, `review` > `ending` > `follow` > `start`; beside them `settling` |
//! | `parts/` | who owns what: `clients`, `agents` (and their `mail`), `pools` (their `places`), `jobs`; what a `former` coordinator knew; the `settlement` of reports |
//!
//! Below all of them are the `round`, the items' bytes (`payloads`), and the checks on what peers say (`convert`).
//!
//! # The order of a round
//!
//! A door makes a `Round` and hands it down with the `Parts`: `now`, the core, the outbox, and notes of what is to follow.
//!
//! 1. The input checks that the message fits the session. If not, it is [`Refused`], and nothing has changed.
//! 2. It changes the parts, and tells the core of an event.
//! 3. `follow` does what the core asks for, in that order: it delivers, fails, hands out, starts and stops. A place that was
//!    given up before it had started is stopped as soon as the list is done; that may make the core ask for more.
//! 4. What stands above `follow` is noted for it: places that start with what an agent holds, pools whose last job has ended, pools
//!    whose client may have to hear something. `adoption` takes up the first before its input returns.
//! 5. When the input is done, the door works off the others until there are none: pools end first, then clients are told.
//!
//! [`Coordinator::schedule`] is two such rounds, one for deadlines and one for what can run. Then agents are sent the mail that
//! has gathered since the last time, are told which reports are settled, and whose slots to lend.

mod config;
pub mod convert;
mod coordinator;
mod ids;
mod inputs;
mod outbox;
mod parts;
mod payloads;
mod principal;
mod rate;
mod refused;
mod round;
mod steps;

pub use config::Config;
pub use coordinator::Coordinator;
pub use farpool_core::{AgentId, JobId};
pub use ids::ClientId;
pub use outbox::Outbox;
pub use principal::Principal;
pub use refused::{Refused, RefusedKind};
