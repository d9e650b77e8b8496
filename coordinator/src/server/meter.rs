//! What is on its way between the network and the loop: bytes that gRPC has taken in and the loop has not.
//!
//! Frames are decoded when they are whole, and many peers may have half of one here. So each stream's body goes through a
//! [`Meter`], and while more than a small part of the memory is on its way, only streams with little of it are read on, and one
//! of the others, until its frame is whole. So it is until the stream's session begins: then the loop stops it, in the midst of a frame too,
//! by what all of it holds.
//!
//! This is above HTTP/2's flow control: what is not read here stays in the window of its connection.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};
use tonic::Status;

/// So much may be on its way on each stream, whatever others have: what keeps sessions alive is smaller.
const FREE: usize = 64 << 10;

/// The meters of all streams.
#[derive(Clone, Debug)]
pub(super) struct Meters(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// What may be on its way on all of them.
    room: usize,
    /// How long the one that is read on may take to become whole.
    patience: Duration,
    bytes: AtomicUsize,
    next: AtomicU64,
    /// Somebody waits, or is read on alone.
    crowded: AtomicBool,
    crowd: Mutex<Crowd>,
}

#[derive(Debug, Default)]
struct Crowd {
    favoured: Option<u64>,
    waiting: BTreeMap<u64, Waker>,
}

/// What is on its way on one stream.
pub(super) struct Meter {
    shared: Arc<Shared>,
    number: u64,
    bytes: AtomicUsize,
    stopped: AtomicBool,
    /// It is that of a session, which the loop stops where there is no room.
    is_session: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// What came on a stream. When it is dropped, it was taken in.
pub(super) struct Passed {
    meter: Arc<Meter>,
    /// The room of an opening.
    _room: Option<OwnedSemaphorePermit>,
}

impl Meters {
    pub(super) fn new(room: usize, patience: Duration) -> Self {
        Self(Arc::new(Shared {
            room,
            patience,
            bytes: AtomicUsize::new(0),
            next: AtomicU64::new(0),
            crowded: AtomicBool::new(false),
            crowd: Mutex::default(),
        }))
    }

    /// That of a new stream.
    pub(super) fn meter(&self) -> Arc<Meter> {
        let (shared, number) = (Arc::clone(&self.0), self.0.next.fetch_add(1, Relaxed));
        let (bytes, stopped, is_session) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Meter { shared, number, bytes, stopped, is_session, waker: Mutex::default() })
    }

    #[cfg(test)]
    fn bytes(&self) -> u64 {
        self.0.bytes.load(Relaxed) as u64
    }
}

impl Shared {
    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream leaves the crowd: the others look again.
    fn leave(&self, number: u64) {
        if !self.crowded.load(Relaxed) {
            return;
        }
        let mut crowd = self.crowd();
        crowd.waiting.remove(&number);
        if crowd.favoured == Some(number) {
            crowd.favoured = None;
        }
        if crowd.favoured.is_none() {
            self.crowded.store(false, Relaxed);
            let waiting = std::mem::take(&mut crowd.waiting);
            drop(crowd);
            waiting.into_values().for_each(Waker::wake);
        }
    }
}

impl Meter {
    /// What came so far since this was called last.
    pub(super) fn passed(self: &Arc<Self>, room: Option<OwnedSemaphorePermit>) -> Passed {
        Passed { meter: Arc::clone(self), _room: room }
    }

    /// All that came was taken in.
    pub(super) fn settle(&self) {
        let bytes = self.bytes.swap(0, Relaxed);
        self.shared.bytes.fetch_sub(bytes, Relaxed);
        self.shared.leave(self.number);
    }

    /// It is that of a session from now on: the loop knows what it holds, and stops it. It does not wait for other streams any more, which
    /// may not go on before it does.
    pub(super) fn begin_session(&self) {
        self.is_session.store(true, Relaxed);
        self.shared.leave(self.number);
    }

    /// Whether nothing more is to be read of it for now.
    pub(super) fn stop(&self, stopped: bool) {
        if self.stopped.swap(stopped, Relaxed) == stopped {
            return;
        }
        if stopped {
            self.shared.leave(self.number);
        } else {
            let waker = self.waker().take();
            waker.into_iter().for_each(Waker::wake);
        }
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether more may come. With `true` only since it is the one that is read on.
    fn poll_admitted(&self, context: &mut Context<'_>) -> Poll<bool> {
        if self.stopped.load(Relaxed) {
            *self.waker() = Some(context.waker().clone());
            // It may have been let go before the waker was there.
            if self.stopped.load(Relaxed) {
                return Poll::Pending;
            }
        }
        if self.is_session.load(Relaxed) {
            return Poll::Ready(false);
        }
        if self.bytes.load(Relaxed) < FREE || self.shared.bytes.load(Relaxed) < self.shared.room {
            return Poll::Ready(false);
        }
        let mut crowd = self.shared.crowd();
        self.shared.crowded.store(true, Relaxed);
        match crowd.favoured.get_or_insert(self.number) {
            favoured if *favoured == self.number => Poll::Ready(true),
            _ => {
                crowd.waiting.insert(self.number, context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn count(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Relaxed);
        self.shared.bytes.fetch_add(bytes, Relaxed);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.settle();
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").field("number", &self.number).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Passed {
    pub(super) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        self.meter.settle();
    }
}

/// The body of a request, which passes a meter.
pub(super) struct Metered<B> {
    body: Pin<Box<B>>,
    meter: Arc<Meter>,
    /// When the rest of its frame must be here, while it is the one that is read on.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<B> Metered<B> {
    pub(super) fn new(body: B, meter: Arc<Meter>) -> Self {
        Self { body: Box::pin(body), meter, deadline: None }
    }
}

impl<B: Body<Data = Bytes, Error = Status>> Body for Metered<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, meter, deadline } = &mut *self;
        if ready!(meter.poll_admitted(context)) {
            let patience = meter.shared.patience;
            let deadline = deadline.get_or_insert_with(|| Box::pin(sleep(patience)));
            if deadline.as_mut().poll(context).is_ready() {
                let message = format!("the memory is full, and a message was not complete within {patience:?}");
                return Poll::Ready(Some(Err(Status::resource_exhausted(message))));
            }
        } else if deadline.is_some() {
            *deadline = None;
        }
        let frame = ready!(body.as_mut().poll_frame(context));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            meter.count(data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(meter: &Meter) -> Option<bool> {
        match meter.poll_admitted(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(alone) => Some(alone),
            Poll::Pending => None,
        }
    }

    #[test]
    fn where_there_is_no_room_one_goes_on_at_a_time() {
        let meters = Meters::new(3 * FREE, Duration::from_secs(1));
        let [first, second, small] = [(); 3].map(|()| meters.meter());
        first.count(2 * FREE);
        assert_eq!((admits(&first), admits(&second)), (Some(false), Some(false)));
        second.count(2 * FREE);
        assert_eq!((admits(&second), admits(&first), admits(&small)), (Some(true), None, Some(false)));
        second.settle();
        assert_eq!((admits(&first), meters.bytes()), (Some(false), 2 * FREE as u64));
        second.count(FREE);
        assert_eq!((admits(&second), admits(&first)), (Some(true), None));
        // Whoever is stopped leaves its place to others, and so does who is gone.
        second.stop(true);
        assert_eq!((admits(&second), admits(&first)), (None, Some(true)));
        second.stop(false);
        assert_eq!(admits(&second), None);
        drop(first);
        assert_eq!((admits(&second), meters.bytes()), (Some(false), FREE as u64));
        let passed = second.passed(None);
        drop(passed);
        assert_eq!(meters.bytes(), 0);
    }
}
