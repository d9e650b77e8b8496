//! The coordinator of farpool: takes jobs from clients, hands chunks to agents, and passes outcomes back.
//!
//! [`Coordinator`] does everything but the sending. Messages of `farpool.v1` and the time go in, and messages come out
//! through an [`Outbox`]. A server carries them over gRPC; local mode passes the structs. Both drive it the same way,
//! from one loop that owns it:
//!
//! 1. pass in all messages that have arrived: [`Coordinator::client_message`] and [`Coordinator::agent_event`]; a
//!    [`Refused`] one ends only its own session;
//! 2. [`Coordinator::schedule`], once;
//! 3. drain the outbox.
//!
//! The scheduler `farpool-core` makes the decisions. It never sees payloads.
//!
//! # Modules
//!
//! There are four layers, and each calls only those below it:
//!
//! | | |
//! |---|---|
//! | `coordinator` | the entry points: each begins a round |
//! | `inputs/` | one function for each kind of message or request: `client`, `job`, `agent`, `place`; `queries` and `status` change nothing |
//! | `steps/` | the consequences: `recovery` > `adoption`, `review` > `ending` > `follow` > `start`; besides them `settling` |
//! | `parts/` | the state: `clients`, `agents` (and their `mail`), `pools` (their `places`), `jobs`; what a `former` coordinator knew; the `settlement` of reports |
//!
//! Below all of them are the `round`, the items' bytes (`payloads`), and the checks of peers' messages (`convert`).
//!
//! # The order of a round
//!
//! An entry point makes a `Round` and passes it down with the `Parts`. It has `now`, the core, the outbox, and notes of
//! further steps.
//!
//! 1. The input checks that the message fits the session. If not, it is [`Refused`], and nothing has changed.
//! 2. It changes the parts, and sends the core an event.
//! 3. `follow` carries out the core's actions in order: it delivers, fails, hands out, starts and stops. Then it
//!    tells the core which places were given up before they started, which may cause more actions.
//! 4. `follow` notes work for the steps above it: places that start with what an agent holds, pools whose last job has
//!    ended, and pools whose client may need a message. `adoption` handles the first kind before the input returns.
//! 5. When the input is done, the entry point handles the other notes until there are none: pools end first, then
//!    clients get their messages.
//!
//! [`Coordinator::schedule`] is two such rounds, one for deadlines and one for what can run. Then it sends agents the
//! mail that has gathered since the last time, the reports that are settled, and the slots to lend.

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
