//! Counts bytes in flight between the network and the loop: bytes that gRPC has received and the loop has not handled.
//!
//! Frames are decoded when they are whole, and many peers may have sent half of one. So each stream's body passes a
//! [`Meter`]. While more than a small part of the memory is in flight, only streams with few bytes are read, plus one
//! of the others at a time until its frame is whole. Streams that have not begun a session have a turn of their own,
//! since they may wait for what sessions hold. A session that the loop has stopped gets no turn.
//!
//! This is above HTTP/2's flow control: unread bytes stay in the window of their connection.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tonic::Status;

use super::refusal::shutting_down;

/// Each stream may always have this much in flight: messages that keep sessions alive are smaller.
const FREE: usize = 64 << 10;

/// The meters of all streams.
#[derive(Clone, Debug)]
pub(super) struct Meters(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// How much may be in flight on all of them.
    room: usize,
    /// How long the stream that has the turn may take to complete its frame.
    patience: Duration,
    bytes: AtomicUsize,
    /// The turns of openings while there is no room.
    of_openings: Arc<Semaphore>,
    of_sessions: Arc<Semaphore>,
}

/// The bytes in flight on one stream.
pub(super) struct Meter {
    shared: Arc<Shared>,
    bytes: AtomicUsize,
    /// How much may be in flight at most: see [`Reading`].
    most: AtomicUsize,
    is_session: AtomicBool,
    waker: Mutex<Option<Waker>>,
    turn: Mutex<Option<ReadTurn>>,
}

/// How much of a session is read at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reading {
    #[default]
    All,
    /// Small frames, and the beginning of a large one.
    Small,
    Nothing,
}

impl Reading {
    /// Returns how many bytes may be in flight.
    fn most(self) -> usize {
        match self {
            Self::All => usize::MAX,
            Self::Small => FREE,
            Self::Nothing => 0,
        }
    }
}

/// A turn to read while there is no room.
enum ReadTurn {
    Awaited(Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>),
    /// The rest of the frame must arrive in time.
    Taken {
        _permit: OwnedSemaphorePermit,
        deadline: Pin<Box<Sleep>>,
    },
}

/// Bytes that arrived on a stream. Dropping this means that they were handled.
pub(super) struct Passed {
    meter: Arc<Meter>,
    /// The room of an opening.
    _room: Option<OwnedSemaphorePermit>,
}

impl Meters {
    pub(super) fn new(room: usize, patience: Duration) -> Self {
        let [of_openings, of_sessions] = [(); 2].map(|()| Arc::new(Semaphore::new(1)));
        Self(Arc::new(Shared { room, patience, bytes: AtomicUsize::new(0), of_openings, of_sessions }))
    }

    /// Makes the meter of a new stream.
    pub(super) fn meter(&self) -> Arc<Meter> {
        Arc::new(Meter {
            shared: Arc::clone(&self.0),
            bytes: AtomicUsize::new(0),
            most: AtomicUsize::new(Reading::All.most()),
            is_session: AtomicBool::new(false),
            waker: Mutex::default(),
            turn: Mutex::default(),
        })
    }

    #[cfg(test)]
    fn bytes(&self) -> u64 {
        self.0.bytes.load(Relaxed) as u64
    }
}

impl Meter {
    /// Returns what arrived since the last call.
    pub(super) fn passed(self: &Arc<Self>, room: Option<OwnedSemaphorePermit>) -> Passed {
        Passed { meter: Arc::clone(self), _room: room }
    }

    /// Notes that everything that arrived was handled.
    pub(super) fn settle(&self) {
        let bytes = self.bytes.swap(0, Relaxed);
        self.shared.bytes.fetch_sub(bytes, Relaxed);
        *self.turn() = None;
    }

    /// Notes that the stream belongs to a session from now on.
    pub(super) fn begin_session(&self) {
        self.is_session.store(true, Relaxed);
        *self.turn() = None;
    }

    /// Sets how much of it is read from now on.
    pub(super) fn read(&self, reading: Reading) {
        if self.most.swap(reading.most(), Relaxed) == reading.most() {
            return;
        }
        *self.turn() = None;
        let waker = self.waker().take();
        waker.into_iter().for_each(Waker::wake);
    }

    fn is_at_its_limit(&self) -> bool {
        self.bytes.load(Relaxed) >= self.most.load(Relaxed)
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self) -> MutexGuard<'_, Option<ReadTurn>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until more may arrive.
    fn poll_admitted(&self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if self.is_at_its_limit() {
            *self.waker() = Some(context.waker().clone());
            // It may have been admitted before the waker was set.
            if self.is_at_its_limit() {
                return Poll::Pending;
            }
        }
        let Shared { room, patience, bytes, of_openings, of_sessions } = &*self.shared;
        let mut turn = self.turn();
        if self.bytes.load(Relaxed) < FREE || bytes.load(Relaxed) < *room {
            *turn = None;
            return Poll::Ready(Ok(()));
        }
        let turns = if self.is_session.load(Relaxed) { of_sessions } else { of_openings };
        loop {
            match turn.get_or_insert_with(|| ReadTurn::Awaited(Box::pin(Arc::clone(turns).acquire_owned()))) {
                ReadTurn::Awaited(permit) => {
                    // A stopped stream no longer waits for its turn; this wakes it when that changes.
                    *self.waker() = Some(context.waker().clone());
                    let permit = ready!(permit.as_mut().poll(context)).map_err(|_| shutting_down())?;
                    *turn = Some(ReadTurn::Taken { _permit: permit, deadline: Box::pin(sleep(*patience)) });
                }
                ReadTurn::Taken { deadline, .. } => {
                    let is_late = deadline.as_mut().poll(context).is_ready();
                    return Poll::Ready(if is_late { Err(late(*patience)) } else { Ok(()) });
                }
            }
        }
    }

    fn count(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Relaxed);
        self.shared.bytes.fetch_add(bytes, Relaxed);
    }
}

fn late(patience: Duration) -> Status {
    Status::resource_exhausted(format!("the memory is full, and a message was not complete within {patience:?}"))
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.settle();
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").field("bytes", &self.bytes).finish_non_exhaustive()
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
}

impl<B> Metered<B> {
    pub(super) fn new(body: B, meter: Arc<Meter>) -> Self {
        Self { body: Box::pin(body), meter }
    }
}

impl<B: Body<Data = Bytes, Error = Status>> Body for Metered<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, meter } = &mut *self;
        if let Err(status) = ready!(meter.poll_admitted(context)) {
            return Poll::Ready(Some(Err(status)));
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

    fn admits(meter: &Meter) -> bool {
        matches!(meter.poll_admitted(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
    }

    #[tokio::test]
    async fn without_room_one_stream_at_a_time_is_read() {
        let meters = Meters::new(3 * FREE, Duration::from_secs(1));
        for is_session in [false, true] {
            let [first, second, small] = [(); 3].map(|()| meters.meter());
            if is_session {
                [&first, &second, &small].into_iter().for_each(|meter| meter.begin_session());
            }
            first.count(2 * FREE);
            assert_eq!([&first, &second].map(|meter| admits(meter)), [true, true]);
            second.count(2 * FREE);
            assert_eq!([&second, &first, &small].map(|meter| admits(meter)), [true, false, true]);
            second.settle();
            assert_eq!((admits(&first), meters.bytes()), (true, 2 * FREE as u64));
            second.count(FREE);
            assert_eq!([&second, &first].map(|meter| admits(meter)), [true, false]);
            // A stream that is stopped or dropped passes its turn on.
            second.read(Reading::Nothing);
            assert_eq!([&second, &first].map(|meter| admits(meter)), [false, true]);
            second.read(Reading::All);
            assert!(!admits(&second));
            drop(first);
            assert_eq!((admits(&second), meters.bytes()), (true, FREE as u64));
            drop(second.passed(None));
            assert_eq!(meters.bytes(), 0);
        }
    }

    #[tokio::test]
    async fn openings_and_sessions_do_not_wait_for_each_other() {
        let meters = Meters::new(FREE, Duration::from_secs(1));
        let [opening, session, other] = [(); 3].map(|()| meters.meter());
        [&session, &other].into_iter().for_each(|meter| meter.begin_session());
        [&opening, &session, &other].into_iter().for_each(|meter| meter.count(FREE));
        assert_eq!([&opening, &session, &other].map(|meter| admits(meter)), [true, true, false]);
    }

    #[tokio::test]
    async fn only_small_frames_are_read_in_small_mode() {
        let meters = Meters::new(100 * FREE, Duration::from_secs(1));
        let meter = meters.meter();
        meter.begin_session();
        let admits_in = |reading| {
            meter.read(reading);
            admits(&meter)
        };
        assert_eq!([Reading::Nothing, Reading::Small, Reading::All].map(admits_in), [false, true, true]);
        meter.count(FREE);
        assert_eq!([Reading::Nothing, Reading::Small, Reading::All].map(admits_in), [false, false, true]);
        meter.settle();
        assert!(admits_in(Reading::Small));
    }

    /// A turn whose stream is gone delays no other stream.
    #[tokio::test]
    async fn a_turn_that_was_waited_for_ends_with_the_frame() {
        let meters = Meters::new(FREE, Duration::from_secs(1));
        let [first, second, third] = [(); 3].map(|()| meters.meter());
        [&first, &second, &third].into_iter().for_each(|meter| meter.count(FREE));
        assert_eq!([&first, &second, &third].map(|meter| admits(meter)), [true, false, false]);
        second.settle();
        third.count(FREE);
        first.settle();
        assert!(admits(&third));
    }

    #[tokio::test]
    async fn a_stream_stopped_while_it_waits_for_its_turn_is_woken() {
        let meters = Meters::new(FREE, Duration::from_secs(1));
        let [first, second] = [(); 2].map(|()| meters.meter());
        [&first, &second].into_iter().for_each(|meter| meter.begin_session());
        [&first, &second].into_iter().for_each(|meter| meter.count(FREE));
        assert!(admits(&first));
        let woken = Arc::new(Woken::default());
        assert!(second.poll_admitted(&mut Context::from_waker(&Arc::clone(&woken).into())).is_pending());
        second.read(Reading::Nothing);
        first.settle();
        second.read(Reading::All);
        assert!(woken.0.load(Relaxed), "the second reader is never read again");
        assert!(admits(&second));
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_frame_with_the_turn_must_be_whole_in_time() {
        let meters = Meters::new(FREE, Duration::from_secs(1));
        let meter = meters.meter();
        meter.count(FREE);
        assert!(admits(&meter));
        tokio::time::advance(Duration::from_secs(2)).await;
        let Poll::Ready(Err(status)) = meter.poll_admitted(&mut Context::from_waker(Waker::noop())) else {
            panic!("the frame has no time limit")
        };
        assert!(status.message().contains("not complete within 1s"), "{status}");
    }
}
