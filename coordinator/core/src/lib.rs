//! The scheduler of farpool: what runs where, and what has become of it.
//!
//! [`Core`] takes [`Event`]s and the time and answers with [`Action`]s. It knows items by their indices only: no
//! payload, no clock, no socket, no message format. Whoever drives it keeps the bytes, reads the clock and sends.
//! That makes every decision repeatable, so the tests of this crate can run through more interleavings in a second
//! than a cluster sees in a year.
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
//! # Where what is
//!
//! `queue` holds a job's items that are nowhere yet and `adapt` says how many to cut off at once; `chunk`, `held` and `done`
//! are about items that are at an agent.
//!
//! A `pool` has places: the agents that have its labels and were told to start it. `places` lets them come and go, and `allot` says
//! how many workers each gets if the pool has a limit. A pool's jobs are in `lane`s, one for each set of labels that
//! jobs of it require. What joins lanes and agents is a `reach`: lanes, and agents that each of them may run on. Every
//! lane has a reach of its own, and lanes that require the same `share` one (`shares`), so that hundreds of pools on thousands of
//! agents cost no more than one.
//!
//! `adopt` takes in what agents hold from before the scheduler knew of it.
//!
//! `fair` says who goes next: pools by slot time, and a pool's jobs by priority and then by slot time. `schedule` hands out to the
//! lane that goes next in the first reach that has both, to the least loaded `agent` there, and `take_back` corrects that
//! when slots idle, and `speculate` has them run copies of what takes too long. `report` takes in what agents say, `life` opens and ends jobs, `fleet` is what all agents have in sum, and
//! `check` states what must always hold. `window` stands by itself: how far a client may go on sending.

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
mod ran;
mod reach;
mod report;
mod run;
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
