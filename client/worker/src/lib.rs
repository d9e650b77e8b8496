//! The code inside fork servers and workers, independent of the language of the functions.
//!
//! A program becomes a worker when it calls [`init`] with its [`Language`], which finds the function that a client
//! names by some bytes. `farpool::init()` does so for Rust functions. In `examples/expressions.rs`, the functions are
//! expressions such as `x * x + 1`.
//!
//! # What a worker can rely on
//! - **Who starts it.** An agent runs the pool's executable with the client's arguments as a *fork server*: one for each
//!   pool, in its own process group. When the program calls [`init`], the fork server forks a worker for each request of
//!   the agent. If the program has started threads before, the fork server runs the executable again instead. The variable
//!   `FARPOOL_ROLE` names the role of a process. A process believes it only if its stdin is a socket whose other end
//!   belongs to its parent.
//! - **What it gets.** On a cluster the environment is what the client chose, plus `FARPOOL_ADDRESS`, `FARPOOL_HOST`,
//!   `FARPOOL_PROGRAM` (the executable's digest) and `FARPOOL_ITEM` (the item that a process belongs to, which changes with
//!   each item). Everything else comes through shared memory: first the pool's settings with the initializer, then functions
//!   and items.
//! - **Which descriptors it has.** 0: empty; 1 and 2: the agent's pipes, or on one machine the client's own; one socket,
//!   which only wakes the other side and shows when it has ended. The shared memory is mapped, and its descriptor is
//!   closed. No other descriptor of the agent or fork server.
//! - **Who may kill it.** The agent, when an item takes too long or is cancelled, and when the pool ends. It does so
//!   through the fork server, which kills the process, its process group, and what it started. The kernel, when the fork
//!   server ends. At the agent's request the worker calls `exit`, so that exit handlers run.
//! - **What it may do.** Anything that a program may. If it dies, the items that it was running are retried or reported,
//!   and no other item is lost. A process that a task has forked must not return from the task: it exits if it does.

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
pub mod shared;
mod slot;
mod starter;
mod threads;

pub use item_token::inherited as inherited_item;
pub use items::{Done, Encoded, Items, run};
pub use language::{Language, Task};
pub use lend::{LendGuard, lend};
pub use program::digest as program_digest;
use role::Role;
pub use role::{Initialised, arguments, initialised};
pub use slot::slot;

/// Lets this program serve as the fork server and the workers of its own pools; in these, it does not return. Call it
/// in the first line of `main`.
///
/// If several threads call it at once, one of them runs the fork server or worker, and the others never return.
pub fn init(language: &'static dyn Language) {
    match role::decide() {
        Role::Program => {}
        Role::ForkServer(agent) => fork_server::serve(agent, language),
        Role::Worker(fork_server) => process::started_again(fork_server, language),
        Role::Bystander => loop {
            std::thread::park();
        },
    }
}
