//! Functions for workers to run, well-behaved ones and others.

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::line;
use crate::log;
pub(crate) use crate::plain_tasks::{identity, nap, pid_after, square};

/// Longer than any test waits.
pub(crate) const FOR_EVER: u64 = 3_600_000;

/// Tells its worker's pid on a line, and never ends.
pub(crate) fn hang(path: String) {
    line::report(&path, std::process::id());
    nap(FOR_EVER);
}

/// How a task can end its worker, or hold it up for ever.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Way {
    Exit(i32),
    Abort,
    Kill,
    Segfault,
    Overflow,
    Allocate,
    Spin,
    /// Cannot be asked to end, only killed.
    SpinDeaf,
    Stop,
}

impl Way {
    /// Takes it.
    pub(crate) fn take(self) {
        match self {
            Way::Exit(code) => std::process::exit(code),
            Way::Abort => std::process::abort(),
            Way::Kill => raise(Signal::SIGKILL),
            Way::Stop => raise(Signal::SIGSTOP),
            // SAFETY: not safe at all: nothing is mapped there, so that the kernel ends the process. That is the point.
            Way::Segfault => unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(1) },
            Way::Overflow => {
                overflow(0);
            }
            Way::Allocate => allocate(),
            Way::Spin => spin(),
            Way::SpinDeaf => {
                // SAFETY: a signal is ignored, no handler is installed.
                unsafe { nix::sys::signal::signal(Signal::SIGTERM, nix::sys::signal::SigHandler::SigIgn) }
                    .expect("SIGTERM can be ignored");
                spin();
            }
        }
    }
}

fn raise(signal: Signal) {
    nix::sys::signal::raise(signal).expect("a process may signal itself");
}

#[expect(unconditional_recursion, reason = "the stack is to overflow")]
fn overflow(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 128]);
    overflow(frame[7] + 1) + frame[3]
}

fn allocate() {
    let mut held = Vec::new();
    loop {
        held.push(std::hint::black_box(vec![1_u8; 16 << 20]));
    }
}

fn spin() {
    loop {
        std::hint::spin_loop();
    }
}

/// Notes the item in the log, then takes the way, if there is one.
pub(crate) fn perish(path: String, item: u64, way: Option<Way>) -> u64 {
    log::note(&path, item);
    if let Some(way) = way {
        way.take();
    }
    item
}

/// As `perish`, but an item dies only as often as told.
pub(crate) fn perish_at_first(path: String, item: u64, deaths: usize) -> u64 {
    log::note(&path, item);
    let runs = std::fs::read_to_string(&path).unwrap();
    if runs.lines().filter(|line| *line == item.to_string()).count() <= deaths {
        raise(Signal::SIGKILL);
    }
    item
}
