//! Which thread drives a session.
//!
//! The conversation with the coordinator is a task of a runtime, and runs on the thread that blocks on that runtime.
//! Usually this is the session's own thread. But waking another thread costs more than everything else in a call. So a
//! thread that makes one call and waits for it (`apply`) takes the runtime while the session is idle: no job is open
//! and nothing is queued to send. Then the coordinator's answer wakes that thread directly.
//!
//! A caller leaves the runtime free for the next one. The session's thread takes it back when a caller leaves work behind, when
//! a message is sent that no thread waits for, and when there was no call for [`LEFT_FREE`]. Messages to an idle session, such
//! as pings or new agents, can wait that long.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio::sync::Notify;

use super::shared::Shared;
use crate::error::Error;

/// How long an idle session may be without a driver.
const LEFT_FREE: Duration = Duration::from_millis(20);

#[derive(Default)]
pub(super) struct SessionDriver {
    turn: Mutex<DriverTurn>,
    /// The session's thread sleeps here while it does not have the runtime, and callers while they ask for it.
    changed: Condvar,
    answered: Condvar,
    asked: Notify,
}

#[derive(Default)]
struct DriverTurn {
    runtime: Holder,
    /// The session's thread must take the runtime.
    wanted: bool,
    /// The session's thread sleeps until a caller has given the runtime back.
    awaits_caller: bool,
    /// A caller sleeps until the session's thread has decided whether to leave the runtime free.
    asked: bool,
    /// Calls that have driven the session.
    calls: u64,
}

#[derive(Default)]
enum Holder {
    #[default]
    SessionThread,
    Caller,
    Nobody(Runtime),
}

/// The session thread's side.
impl SessionDriver {
    /// Runs the conversation until its end.
    pub(super) fn run(
        &self,
        shared: &Shared,
        mut runtime: Runtime,
        conversation: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut conversation = runtime.spawn(conversation);
        let ended = loop {
            let ended = runtime.block_on(async {
                tokio::select! {
                    biased;
                    ended = &mut conversation => Some(ended),
                    () = self.asked.notified() => None,
                }
            });
            match ended {
                Some(ended) => break ended,
                None => runtime = self.leave_free(shared, runtime),
            }
        };
        if let Err(error) = ended {
            let error = Error::protocol(format_args!("the pool's session ended unexpectedly: {error}"));
            shared.end(Some(error));
        }
        // A session that has ended gets no requests.
        drop(self.answer());
        // Does not wait for threads that read a file or look up a name.
        runtime.shutdown_background();
    }

    /// Leaves the runtime to callers while the session is idle.
    fn leave_free(&self, shared: &Shared, runtime: Runtime) -> Runtime {
        let mut turn = self.answer();
        if !shared.is_idle() {
            return runtime;
        }
        (turn.runtime, turn.wanted) = (Holder::Nobody(runtime), false);
        let mut was_idle = false;
        loop {
            if (turn.wanted || was_idle)
                && let Some(runtime) = turn.take(Holder::SessionThread)
            {
                return runtime;
            }
            let calls = turn.calls;
            if let Holder::Caller = turn.runtime {
                turn.awaits_caller = true;
                turn = self.changed.wait(turn).unwrap_or_else(PoisonError::into_inner);
            } else {
                let (after, waited) =
                    self.changed.wait_timeout(turn, LEFT_FREE).unwrap_or_else(PoisonError::into_inner);
                turn = after;
                was_idle = waited.timed_out() && turn.calls == calls;
            }
        }
    }
}

/// The program's side.
impl SessionDriver {
    /// Takes the runtime for a call, if the session is idle and this thread can drive it.
    pub(super) fn take<'a>(&'a self, shared: &'a Shared) -> Option<Driving<'a>> {
        if !may_drive() {
            return None;
        }
        let mut turn = self.turn();
        if matches!(turn.runtime, Holder::SessionThread) && !turn.asked && shared.is_idle() {
            turn.asked = true;
            self.asked.notify_one();
            while turn.asked {
                turn = self.answered.wait(turn).unwrap_or_else(PoisonError::into_inner);
            }
        }
        let runtime = Some(turn.take(Holder::Caller)?);
        Some(Driving { driver: self, shared, runtime })
    }

    /// Makes the session's thread take the runtime, for a message that no thread here waits for.
    pub(super) fn wake_session_thread(&self) {
        let mut turn = self.turn();
        if matches!(turn.runtime, Holder::Nobody(_)) && !std::mem::replace(&mut turn.wanted, true) {
            drop(turn);
            self.changed.notify_one();
        }
    }

    /// Returns how many calls have driven the session.
    pub(super) fn calls(&self) -> u64 {
        self.turn().calls
    }

    /// Answers callers that ask for the runtime: they see its new state when the returned guard is dropped.
    fn answer(&self) -> MutexGuard<'_, DriverTurn> {
        let mut turn = self.turn();
        if std::mem::take(&mut turn.asked) {
            self.answered.notify_all();
        }
        turn
    }

    fn turn(&self) -> MutexGuard<'_, DriverTurn> {
        // The turn is consistent between statements: a panic elsewhere does not corrupt it.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DriverTurn {
    fn take(&mut self, taker: Holder) -> Option<Runtime> {
        match std::mem::replace(&mut self.runtime, taker) {
            Holder::Nobody(runtime) => Some(runtime),
            other => {
                self.runtime = other;
                None
            }
        }
    }
}

/// A thread that is within a runtime already cannot block on another one.
fn may_drive() -> bool {
    Handle::try_current().is_err_and(|error| error.is_missing_context())
}

/// A caller's turn, which ends when this is dropped.
pub(super) struct Driving<'a> {
    driver: &'a SessionDriver,
    shared: &'a Shared,
    /// `Some` until this is dropped.
    runtime: Option<Runtime>,
}

impl Driving<'_> {
    /// Drives the session until the call has ended.
    pub(super) fn until<T>(&self, call: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("the runtime is gone").block_on(call)
    }
}

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        let mut turn = self.driver.turn();
        turn.calls += 1;
        turn.runtime = Holder::Nobody(runtime);
        turn.wanted = !self.shared.is_idle();
        if turn.wanted | std::mem::take(&mut turn.awaits_caller) {
            drop(turn);
            self.driver.changed.notify_one();
        }
    }
}
