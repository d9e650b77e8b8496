use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use farpool_session::{End, Inbox, Interest, fork};

use super::decode::Decode;
use crate::callbacks;
use crate::error::{Error, ErrorKind};
use crate::map::ended_early;
use crate::panics;

type Callback<T> = Box<dyn FnOnce(&Result<T, Error>) + Send>;

/// The outcome of a job, shared with the callbacks that wait for it.
pub(super) struct SharedOutcome<T> {
    inbox: Arc<Inbox>,
    decode: Decode<T>,
    state: Mutex<OutcomeState<T>>,
    callbacks_ran: Condvar,
}

struct OutcomeState<T> {
    value: Value<T>,
    /// Callbacks that have not run yet. They borrow the value, so it is taken only after them.
    callbacks: usize,
    waker: Option<Waker>,
}

enum Value<T> {
    Encoded,
    Decoded(Result<T, Error>),
    /// Borrowed by a callback, which returns it.
    Lent,
    Taken {
        succeeded: bool,
    },
}

impl<T> SharedOutcome<T> {
    pub(super) fn new(inbox: Arc<Inbox>, decode: Decode<T>) -> Self {
        let state = Mutex::new(OutcomeState { value: Value::Encoded, callbacks: 0, waker: None });
        Self { inbox, decode, state, callbacks_ran: Condvar::new() }
    }

    pub(super) fn failed(verb: &'static str, label: &str, error: Error) -> Self {
        let inbox = Inbox::new(0, verb, label, Interest::End);
        inbox.break_with(error);
        inbox.end(End::Cancelled).wake();
        Self::new(Arc::new(inbox), |inbox| Err(ended_early(inbox)))
    }

    pub(super) fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// Returns whether the job has ended and every callback has run.
    pub(super) fn settled(&self) -> bool {
        self.inbox.ended() && self.state().callbacks == 0
    }

    /// Waits until every callback has run or the deadline has passed; returns whether they have run.
    pub(super) fn wait_for_callbacks(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.state();
        while state.callbacks > 0 {
            drop(state);
            let helped = callbacks::help();
            state = self.state();
            if state.callbacks == 0 || helped {
                continue;
            }
            let Some(deadline) = deadline else {
                state = self.callbacks_ran.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            (state, _) = self.callbacks_ran.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Takes the value of a settled outcome, and decodes it if no callback has.
    pub(super) fn take(&self) -> Result<T, Error> {
        let mut state = self.state();
        match std::mem::replace(&mut state.value, Value::Taken { succeeded: false }) {
            Value::Encoded => {
                let value = (self.decode)(&self.inbox);
                state.value = Value::Taken { succeeded: value.is_ok() };
                value
            }
            Value::Decoded(value) => {
                state.value = Value::Taken { succeeded: value.is_ok() };
                value
            }
            Value::Taken { succeeded } => {
                state.value = Value::Taken { succeeded };
                Err(self
                    .inbox
                    .add_context(Error::invalid("the outcome was already taken, and it can be taken only once")))
            }
            Value::Lent => unreachable!("a settled call runs no callback"),
        }
    }

    /// Returns whether a settled outcome is a success.
    pub(super) fn succeeded(&self) -> bool {
        let mut state = self.state();
        if let Value::Encoded = state.value {
            state.value = Value::Decoded((self.decode)(&self.inbox));
        }
        match &state.value {
            Value::Decoded(value) => value.is_ok(),
            Value::Taken { succeeded } => *succeeded,
            Value::Encoded | Value::Lent => unreachable!("the value was decoded just now, and no callback runs"),
        }
    }

    /// Wakes the task when the last callback has run; returns whether it already has.
    pub(super) fn wake_after_callbacks(&self, waker: &Waker) -> bool {
        if self.state().callbacks == 0 {
            return true;
        }
        // Cloning or dropping a waker runs an executor's code, which may do anything, so not under the lock.
        let waker = waker.clone();
        let mut state = self.state();
        let ran = state.callbacks == 0;
        let unused = if ran { Some(waker) } else { state.waker.replace(waker) };
        drop(state);
        drop(unused);
        ran
    }

    /// Records that the handle was dropped: only callbacks still use the value.
    pub(super) fn abandon(&self) {
        if self.state().callbacks == 0 {
            self.inbox.discard();
        }
    }

    fn state(&self) -> MutexGuard<'_, OutcomeState<T>> {
        // A panicking decoder leaves the value as it was.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> SharedOutcome<T> {
    /// Runs the callback on the callbacks' thread, once the outcome has arrived.
    pub(super) fn call_back(self: &Arc<Self>, callback: Callback<T>) {
        self.state().callbacks += 1;
        let outcome = Arc::clone(self);
        self.inbox.at_end(Box::new(move || callbacks::schedule(Box::new(move || outcome.run(callback)))));
    }

    fn run(&self, callback: Callback<T>) {
        let ran = self.lend().map(|value| {
            let generation = fork::generation();
            let ran = panic::catch_unwind(AssertUnwindSafe(|| callback(&value)));
            fork::end_if_forked(generation, "a callback");
            self.state().value = Value::Decoded(value);
            ran
        });
        let mut state = self.state();
        state.callbacks -= 1;
        let waker = if state.callbacks == 0 { state.waker.take() } else { None };
        drop(state);
        self.callbacks_ran.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
        if let Some(Err(panic)) = ran {
            // Reported by the thread that runs callbacks.
            panic::resume_unwind(panic);
        }
    }

    /// Borrows the value for a callback; `None` if it was taken before.
    fn lend(&self) -> Option<Result<T, Error>> {
        let mut state = self.state();
        if let Value::Taken { .. } = state.value {
            return None;
        }
        let value = match std::mem::replace(&mut state.value, Value::Lent) {
            Value::Decoded(value) => value,
            // Without the lock, because decoding runs user code.
            _ => {
                drop(state);
                self.decode_guarded()
            }
        };
        Some(value)
    }

    fn decode_guarded(&self) -> Result<T, Error> {
        panic::catch_unwind(AssertUnwindSafe(|| (self.decode)(&self.inbox))).unwrap_or_else(|panic| {
            let message = format!("decoding the outcome panicked: {}", panics::message(&*panic));
            Err(self.inbox.add_context(Error::new(ErrorKind::Codec, message)))
        })
    }
}
