//! What runs inside fork servers and workers, whatever language the functions are written in.
//!
//! A program becomes a worker when it calls [`init`] with its [`Language`]: what finds the function that a client names by
//! some bytes. `farpool::init()` does so for functions of Rust; `examples/expressions.rs` is a program whose functions are
//! expressions such as `x * x + 1`.
//!
//! # What a worker can rely on
//! - **Who starts it.** An agent runs the pool's executable with the arguments that the client gave, as a *fork server*: one for each pool,
//!   in a session and process group of its own. When the program calls [`init`], the fork server forks a worker each time the agent asks
//!   for one; if the program has started threads before, it starts the executable anew instead. The variable `FARPOOL_ROLE` says
//!   which of both a process is. A process believes it only if its stdin is a socket whose other end belongs to its parent.
//! - **What it is told.** On a cluster the environment is what the client chose, and `FARPOOL_ADDRESS`, `FARPOOL_HOST`, `FARPOOL_PROGRAM` (the
//!   executable's digest) and `FARPOOL_ITEM` (which says what item a process belongs to, and changes with each item). Everything else
//!   comes through shared memory: first the pool's settings with the initializer, then functions and items.
//! - **Which descriptors it holds.** 0: nothing to read; 1 and 2: the agent's pipes, or on one machine the client's own; the shared memory (mapped
//!   and closed); one socket, which only wakes the other side and shows its end. No other descriptor of agent or fork server.
//! - **Who may kill it.** The agent (by way of the fork server: its process, its process group, and what it started) when an item takes too
//!   long or is cancelled, and when the pool ends; the kernel when the fork server ends. At the agent's wish it leaves by `exit`,
//!   so that exit handlers run.
//! - **What it may do.** Anything that a program may. If it dies, the items that it was running are retried or reported, and no other item is
//!   lost. A process that a task has forked must not return from the task: it is ended where it comes back.

mod bell;
mod children;
mod descriptors;
mod fork_server;
mod inherited;
mod input;
mod item_token;
mod items;
mod kill;
mod language;
mod leave;
mod lend;
mod output;
mod panics;
mod process;
mod program;
mod role;
mod runtime;
mod starter;
mod threads;

pub use item_token::inherited as inherited_item;
pub use items::{Done, Encoded, Items, run};
pub use language::{Language, Task};
pub use lend::{LendGuard, lend};
pub use program::told as told_program;
use role::Role;
pub use role::{Initialised, arguments, initialised};

/// Lets this program run as its own pool's workers: in those it does not return. To be called in the first line of `main`.
///
/// Should several threads come here at once, one of them becomes what the process was started as, and the others stay here.
pub fn init(language: &'static dyn Language) {
    match role::decide() {
        Role::Program => {}
        Role::ForkServer(agent) => fork_server::serve(agent, language),
        Role::Worker(fork_server) => process::started_anew(fork_server, language),
        Role::Bystander => loop {
            std::thread::park();
        },
    }
}
