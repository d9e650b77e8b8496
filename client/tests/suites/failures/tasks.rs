//! Functions for workers to run, correct and faulty ones.

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::log;
pub(crate) use crate::plain_tasks::{identity, nap, pid_after, square};
use crate::report_pipe;

/// Longer than any test waits.
pub(crate) const FOREVER: u64 = 3_600_000;

/// Reports its worker's pid, and never ends.
pub(crate) fn hang(path: String) {
    report_pipe::report(&path, std::process::id());
    nap(FOREVER);
}

/// How a task can end its worker, or block it forever.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Fault {
    Exit(i32),
    Abort,
    Kill,
    Segfault,
    Overflow,
    Allocate,
    Spin,
    /// Ignores SIGTERM.
    SpinIgnoringSigterm,
    Stop,
}

impl Fault {
    /// Does it.
    pub(crate) fn trigger(self) {
        match self {
            Fault::Exit(code) => std::process::exit(code),
            Fault::Abort => std::process::abort(),
            Fault::Kill => raise(Signal::SIGKILL),
            Fault::Stop => raise(Signal::SIGSTOP),
            // SAFETY: unsound on purpose: nothing is mapped there, so the kernel kills the process. That is the point.
            Fault::Segfault => unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(1) },
            Fault::Overflow => {
                overflow(0);
            }
            Fault::Allocate => allocate(),
            Fault::Spin => spin(),
            Fault::SpinIgnoringSigterm => {
                // SAFETY: a signal is ignored, no handler is installed.
                unsafe { nix::sys::signal::signal(Signal::SIGTERM, nix::sys::signal::SigHandler::SigIgn) }
                    .expect("cannot ignore SIGTERM");
                spin();
            }
        }
    }
}

fn raise(signal: Signal) {
    nix::sys::signal::raise(signal).expect("cannot signal this process");
}

#[expect(unconditional_recursion, reason = "overflows the stack on purpose")]
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

/// Logs the item, then triggers the fault, if there is one.
pub(crate) fn log_and_fault(path: String, item: u64, fault: Option<Fault>) -> u64 {
    log::note(&path, item);
    if let Some(fault) = fault {
        fault.trigger();
    }
    item
}

/// Logs the item, and dies in its first `deaths` runs.
pub(crate) fn die_at_first(path: String, item: u64, deaths: usize) -> u64 {
    log::note(&path, item);
    let runs = std::fs::read_to_string(&path).unwrap();
    if runs.lines().filter(|line| *line == item.to_string()).count() <= deaths {
        raise(Signal::SIGKILL);
    }
    item
}
