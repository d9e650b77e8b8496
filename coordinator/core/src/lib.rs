//! The scheduler of farpool: it decides what runs where, and tracks the outcomes.
//!
//! [`Core`] takes [`Event`]s and the time and answers with [`Action`]s. It knows items only by their indices: no
//! payload, no clock, no socket, no message format. Its caller keeps the bytes, reads the clock and sends. So every
//! decision is repeatable, and the tests of this crate run through more interleavings in a second than a cluster sees
//! in a year.
//!
//! ```
//! use farpool_core::{Action, AgentId, Core, Config, Event, Id, JobId, JobPolicy, Labels, PoolId};
//!
//! let (agent, pool, job) = (AgentId::new(0, 1), PoolId::new(0, 1), JobId::new(0, 1));
//! let mut core = Core::new(Config::default());
//! let mut actions = Vec::new();
//! for event in [
//!     Event::AgentJoined { agent, slots: 2, labels: Labels::default() },
//!     Event::AgentCredit { agent, chunks: 3, bytes: 0 },
//!     Event::PoolOpened { pool, slots: None, weight: 1, require: Labels::default(), held: Vec::new() },
//!     Event::PlaceStarted { pool, agent },
//!     Event::JobOpened { job, pool, policy: JobPolicy::default(), require: Labels::default() },
//!     Event::ItemsArrived { job, first: 0, count: 1, bytes: 100 },
//! ] {
//!     core.handle(event, &mut actions);
//! }
//! core.schedule(0, &mut actions);
//! assert!(matches!(actions[..], [Action::StartPool { .. }, Action::StartJob { .. }, Action::Assign { first: 0, count: 1, attempt: 1, .. }]));
//! ```
//!
//! # Modules
//!
//! `queue` holds a job's items that wait to be handed out, and `adapt` chooses the size of the next chunk. `chunk`,
//! `held` and `done` are about items that are at an agent.
//!
//! A `pool` has places: the agents that have its labels and were told to start it. `places` adds and removes them, and
//! `allot` chooses how many workers each gets if the pool has a limit. A pool's jobs are in `lane`s, one for each set
//! of labels that jobs of it require. A `reach` joins lanes and agents: each of its lanes may run on each of its
//! agents. Every lane has a reach of its own, and lanes that require the same labels `share` one (`shares`), so that
//! hundreds of pools on thousands of agents cost no more than one.
//!
//! `adopt` adopts chunks that agents hold from before the scheduler knew of them.
//!
//! `fair` decides the order: pools by slot time, and a pool's jobs by priority and then by slot time. `schedule` finds
//! the first reach with a lane to serve and an `agent` with room, and gives the lane's next chunk to the least loaded
//! agent. `take_back` corrects that when slots idle, and `speculate` has them run copies of what takes too long.
//! `report` handles agents' reports, `life` opens and ends jobs, `fleet` has the totals of all agents, and `check`
//! states the invariants. `window` is separate: it decides how much more a client may send.

mod action;
mod adapt;
mod adopt;
mod agent;
mod allot;
mod check;
mod chunk;
mod core;
mod done;
mod event;
mod fair;
mod fleet;
mod heap;
mod held;
mod ids;
mod job;
mod labels;
mod lane;
mod life;
mod memberships;
mod places;
mod pool;
mod queue;
mod reach;
mod report;
mod run;
mod run_report;
mod schedule;
mod share;
mod shares;
mod slab;
mod speculate;
mod take_back;
mod unhealthy;
mod window;

pub use action::{Action, Cause};
pub use adopt::Claim;
pub use core::{Config, Core, Progress};
pub use event::{Event, Fault, JobPolicy};
pub use ids::{AgentId, ChunkId, Id, JobId, PoolId};
pub use labels::Labels;
pub use run::{Run, Runs};
pub use slab::{Slab, Table};
pub use window::Window;
