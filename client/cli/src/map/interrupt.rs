//! Handles Ctrl-C and similar signals: finished outputs are printed before the process ends.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Knows whether a signal has asked the process to end.
#[derive(Default)]
pub(super) struct Interrupt {
    /// The signal; 0: none.
    signal: AtomicI32,
    waker: Mutex<Option<Waker>>,
}

/// How long printing may take: a reader that does not read cannot delay Ctrl-C further.
const PRINT_TIMEOUT: Duration = Duration::from_millis(500);

impl Interrupt {
    /// Watches for signals that would end the process. Ignored ones stay ignored.
    pub(super) fn watch() -> io::Result<Arc<Interrupt>> {
        let interrupt = Arc::new(Interrupt::default());
        let ignored = ignored();
        let watched = [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
        let mut signals = Signals::new(watched)?;
        let shared = Arc::clone(&interrupt);
        thread::Builder::new().name("farpool-signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                shared.signal.store(signal, Ordering::SeqCst);
                let waker = shared.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
                waker.into_iter().for_each(Waker::wake);
                thread::sleep(PRINT_TIMEOUT);
                end_by(signal);
            }
        })?;
        Ok(interrupt)
    }

    /// Returns the signal that has arrived. Otherwise wakes the caller when one does.
    pub(super) fn poll(&self, waker: &Waker) -> Option<i32> {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
        Some(self.signal.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
    }
}

/// Ends this process as the signal would have.
pub(super) fn end_by(signal: i32) {
    // An error means that it is not one of the watched signals.
    let _ = emulate_default_handler(signal);
}

/// Returns the ignored signals as a bit mask from signal 1 on; 0 if it is unknown.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
