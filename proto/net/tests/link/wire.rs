//! One direction of a connection: frames in flight.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use farpool_net::{Frames, Incoming, SessionMessage};
use futures_core::Stream;
use tonic::Status;

pub(crate) struct Wire<M: SessionMessage> {
    /// `None` once the sender has stopped sending.
    frames: Option<Frames<M>>,
    inbound: Inbound<M>,
}

/// The receiving end.
pub(crate) struct Inbound<M: SessionMessage> {
    state: Arc<Mutex<State<M>>>,
}

struct State<M: SessionMessage> {
    frames: VecDeque<M::Frame>,
    end: Option<Result<(), Status>>,
}

impl<M: SessionMessage> Wire<M> {
    pub(crate) fn new(frames: Frames<M>) -> Self {
        Self { frames: Some(frames), inbound: Inbound::default() }
    }

    pub(crate) fn inbound(&self) -> Inbound<M> {
        self.inbound.clone()
    }

    /// Carries up to this many frames; returns how many there were.
    pub(crate) fn carry(&mut self, count: usize) -> usize {
        let Some(frames) = &mut self.frames else { return 0 };
        for carried in 0..count {
            match Pin::new(&mut *frames).poll_next(&mut context()) {
                Poll::Ready(Some(frame)) => self.inbound.send(frame),
                Poll::Ready(None) => {
                    self.inbound.end(Ok(()));
                    return carried;
                }
                Poll::Pending => return carried,
            }
        }
        count
    }

    /// The connection is lost, with all frames in flight.
    pub(crate) fn cut(&mut self) {
        self.frames = None;
        self.inbound.state.lock().unwrap().frames.clear();
        self.inbound.end(Err(Status::unavailable("the connection is cut")));
    }
}

impl<M: SessionMessage> Inbound<M> {
    pub(crate) fn send(&self, frame: M::Frame) {
        self.state.lock().unwrap().frames.push_back(frame);
    }

    pub(crate) fn end(&self, end: Result<(), Status>) {
        self.state.lock().unwrap().end = Some(end);
    }

    /// Makes a stream with these frames and no end.
    pub(crate) fn of(frames: impl IntoIterator<Item = M::Frame>) -> Self {
        let inbound = Self::default();
        frames.into_iter().for_each(|frame| inbound.send(frame));
        inbound
    }
}

impl<M: SessionMessage> Clone for Inbound<M> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state) }
    }
}

impl<M: SessionMessage> Default for Inbound<M> {
    fn default() -> Self {
        Self { state: Arc::new(Mutex::new(State { frames: VecDeque::new(), end: None })) }
    }
}

impl<M: SessionMessage> Stream for Inbound<M> {
    type Item = Result<M::Frame, Status>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.state.lock().unwrap();
        match (state.frames.pop_front(), &state.end) {
            (Some(frame), _) => Poll::Ready(Some(Ok(frame))),
            (None, Some(end)) => Poll::Ready(end.clone().err().map(Err)),
            (None, None) => Poll::Pending,
        }
    }
}

/// Never woken: tests poll again.
pub(crate) fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Returns the result if it is ready.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut context()) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Returns the messages of the frames that have arrived; `None`: there are no frames.
pub(crate) fn receive<M: SessionMessage>(incoming: &mut Incoming<M>) -> Option<Vec<M>> {
    now(incoming.next()).map(|received| received.expect("the connection is open").expect("the stream continues"))
}

/// Returns the next frame, if there is one.
pub(crate) fn next_frame<M: SessionMessage>(frames: &mut Frames<M>) -> Option<M::Frame> {
    match Pin::new(frames).poll_next(&mut context()) {
        Poll::Ready(Some(frame)) => Some(frame),
        Poll::Ready(None) => panic!("the frames have ended"),
        Poll::Pending => None,
    }
}
