//! A session without workers, for tests: a test sees every request and writes every outcome.

mod jobs;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{Failure, FailureKind, Label};
use farpool_session::detached::DetachSettings;
use farpool_session::{Carrier, Error, Inbox, Session};

use crate::args::{Args, Data};
use crate::codec;
use crate::pool::Pool;
use jobs::Jobs;
pub(crate) use jobs::WINDOW;

/// The outcome of one item.
pub(crate) enum Answer {
    Done(Vec<u8>),
    Failed(Failure),
}

/// Returns the outcome of an item, given its index and its encoded arguments.
type Script = Box<dyn Fn(u64, &[u8]) -> Answer + Send + Sync>;

/// The order in which items finish.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pick {
    First,
    Last,
    Random,
}

pub(crate) struct FakeSession {
    /// Whether a waiting thread makes items finish; otherwise the test does, with [`FakeSession::deliver`].
    drives: bool,
    answer: Script,
    jobs: Mutex<Jobs>,
    idle_waits: AtomicU32,
    detach_settings: Option<DetachSettings>,
}

impl FakeSession {
    /// Answers item `n` of type `T` with `f(n)`.
    pub(crate) fn mapping<T: Data, R: Data>(f: fn(T) -> R) -> Self {
        Self::answering(move |_, bytes| {
            let (item,) = <(T,)>::decode(bytes).unwrap();
            done(&f(item))
        })
    }

    pub(crate) fn answering(answer: impl Fn(u64, &[u8]) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            drives: true,
            answer: Box::new(answer),
            jobs: Mutex::default(),
            idle_waits: AtomicU32::new(0),
            detach_settings: None,
        }
    }

    pub(crate) fn picking(self, pick: Pick) -> Self {
        self.jobs().pick = pick;
        self
    }

    /// Items finish only when the test calls [`FakeSession::deliver`].
    pub(crate) fn manual_delivery(self) -> Self {
        Self { drives: false, ..self }
    }

    /// A chunk runs only when all its items have arrived.
    pub(crate) fn whole_chunks(self) -> Self {
        self.jobs().whole_chunks = true;
        self
    }

    /// Each job may have this many bytes in flight; the test grants more with [`FakeSession::grant`].
    pub(crate) fn window(self, bytes: u64) -> Self {
        let mut jobs = self.jobs();
        (jobs.window, jobs.grants) = (bytes, false);
        drop(jobs);
        self
    }

    /// Sends detached jobs to the coordinator in these settings.
    pub(crate) fn with_detach_settings(self, detach_settings: DetachSettings) -> Self {
        Self { detach_settings: Some(detach_settings), ..self }
    }

    pub(crate) fn pool(self) -> (Arc<Self>, Pool) {
        self.pool_with_limit(1 << 30)
    }

    pub(crate) fn pool_with_limit(self, payload_limit: u64) -> (Arc<Self>, Pool) {
        let session = Arc::new(self);
        (Arc::clone(&session), Pool::with_session(Session::over(session), payload_limit))
    }

    /// Makes up to `items` items finish; returns how many did.
    pub(crate) fn deliver(&self, items: usize) -> usize {
        let mut jobs = self.jobs();
        (0..items).take_while(|_| jobs.finish_one(&self.answer)).count()
    }

    /// Grants the free room to the jobs.
    pub(crate) fn grant(&self) {
        self.jobs().grant_all();
    }

    pub(crate) fn fail(&self, error: &Error) {
        self.jobs().fail(error);
    }

    /// Returns the number of jobs cancelled so far.
    pub(crate) fn cancelled(&self) -> u32 {
        self.jobs().cancelled
    }

    /// Returns the number of jobs that have not ended.
    pub(crate) fn open(&self) -> usize {
        self.jobs().open()
    }

    /// Returns the most bytes of input that were held at once.
    pub(crate) fn most_bytes(&self) -> usize {
        self.jobs().most_bytes
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap()
    }
}

impl Carrier for FakeSession {
    fn submit(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        let mut jobs = self.jobs();
        jobs.open_job(inbox, messages)?;
        jobs.accept(messages);
        Ok(())
    }

    fn send(&self, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.jobs().accept(messages);
        Ok(())
    }

    fn wait(&self, inbox: &Inbox, deadline: Option<Instant>) {
        if self.drives && self.deliver(1) == 1 {
            self.idle_waits.store(0, Ordering::Relaxed);
            return;
        }
        let soon = Instant::now() + Duration::from_millis(1);
        inbox.park(Some(deadline.map_or(soon, |deadline| deadline.min(soon))));
        let idle = self.idle_waits.fetch_add(1, Ordering::Relaxed);
        assert!(idle < 5000, "nothing is left to finish, but a thread still waits");
    }

    fn wait_closed(&self, deadline: Option<Instant>) -> bool {
        loop {
            if self.drives {
                self.deliver(usize::MAX);
            }
            if self.jobs().closed() {
                return true;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn processes(&self) -> u32 {
        self.slots()
    }

    fn slots(&self) -> u32 {
        2
    }

    fn window(&self) -> u64 {
        self.jobs().window
    }

    fn failure(&self) -> Option<Error> {
        self.jobs().failure.clone()
    }

    fn detach_settings(&self) -> Option<DetachSettings> {
        self.detach_settings.clone()
    }

    fn check_labels(&self, _: &[Label]) -> Result<(), Error> {
        Ok(())
    }
}

pub(crate) fn done<R: Data>(result: &R) -> Answer {
    let mut bytes = Vec::new();
    codec::encode(result, &mut bytes).unwrap();
    Answer::Done(bytes)
}

pub(crate) fn panicked(message: &str) -> Answer {
    let kind = FailureKind::Panicked.into();
    Answer::Failed(Failure { kind, message: message.to_owned(), attempts: 1, ..Failure::default() })
}
