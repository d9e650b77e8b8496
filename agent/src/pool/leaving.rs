//! Workers on their way out: they were told to leave, or are being ended, and may take their time for it. Others take their
//! places at once, so there is a bound on how many of them there are.

use nix::sys::signal::Signal;

use super::WorkerPool;
use super::stop::CLOSE_GRACE_NS;
use super::worker::{Ending, State, Worker};

/// So many of them there may be beside one for each slot of the host.
const SPARE: usize = 4;

/// Kills workers that leave too slowly, where a host with so many slots has too many of them: those first that were told first, and of the
/// pool that has most.
pub(crate) fn limit_leaving(pools: &mut [WorkerPool], slots: u32, now: u64) {
    let most = most(slots);
    // Mostly there are not even so many workers.
    if pools.iter().map(|pool| pool.workers.len()).sum::<usize>() <= most {
        return;
    }
    let leaving: usize = pools.iter().map(WorkerPool::leaving).sum();
    for _ in most..leaving {
        if let Some(pool) = pools.iter_mut().max_by_key(|pool| pool.leaving()) {
            pool.kill_the_longest_leaving(now);
        }
    }
}

impl WorkerPool {
    /// Whether no more workers are started before some that are on their way out are gone. These are killed already, so that
    /// does not take long.
    pub(super) fn waits_for_leaving(&self) -> bool {
        let most = most(self.host.settings.slots);
        self.workers.len() > most && self.workers.iter().filter(|worker| worker.is_leaving()).count() > most
    }

    /// Workers on their way out that were not killed.
    fn leaving(&self) -> usize {
        self.workers.iter().filter(|worker| worker.leaves_slowly()).count()
    }

    fn kill_the_longest_leaving(&mut self, now: u64) {
        let slow = self.workers.iter_mut().filter(|worker| worker.leaves_slowly());
        let Some(worker) = slow.min_by_key(|worker| worker.gone_by) else { return };
        let Some(ending) = &mut worker.ending else { return };
        *ending = Ending { at: now + CLOSE_GRACE_NS, asked: true, insisted: true, ..*ending };
        worker.state = State::Dying;
        // An error means that the fork server is gone, and the worker with it.
        let _ = self.supervision.fork_server.kill(worker.number, Signal::SIGKILL);
    }
}

impl Worker {
    fn is_leaving(&self) -> bool {
        matches!(self.state, State::Leaving | State::Dying)
    }

    fn leaves_slowly(&self) -> bool {
        self.is_leaving() && self.ending.is_some_and(|ending| !ending.insisted)
    }
}

fn most(slots: u32) -> usize {
    slots as usize + SPARE
}
