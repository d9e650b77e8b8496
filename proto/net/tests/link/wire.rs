//! One direction of a connection: frames that are on their way.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use farpool_net::{Frames, Incoming, SessionMessage};
use futures_core::Stream;
use tonic::Status;

pub(crate) struct Wire<M: SessionMessage> {
    /// Gone when the sender does not send any more.
    frames: Option<Frames<M>>,
    way: Way<M>,
}

/// Where frames come out.
pub(crate) struct Way<M: SessionMessage> {
    state: Arc<Mutex<State<M>>>,
}

struct State<M: SessionMessage> {
    frames: VecDeque<M::Frame>,
    end: Option<Result<(), Status>>,
}

impl<M: SessionMessage> Wire<M> {
    pub(crate) fn new(frames: Frames<M>) -> Self {
        Self { frames: Some(frames), way: Way::default() }
    }

    pub(crate) fn way(&self) -> Way<M> {
        self.way.clone()
    }

    /// Carries so many frames, if there are so many; returns how many there were.
    pub(crate) fn carry(&mut self, count: usize) -> usize {
        let Some(frames) = &mut self.frames else { return 0 };
        for carried in 0..count {
            match Pin::new(&mut *frames).poll_next(&mut context()) {
                Poll::Ready(Some(frame)) => self.way.say(frame),
                Poll::Ready(None) => {
                    self.way.end(Ok(()));
                    return carried;
                }
                Poll::Pending => return carried,
            }
        }
        count
    }

    /// Nobody takes frames any more; what is on its way is lost.
    pub(crate) fn cut(&mut self) {
        self.frames = None;
        self.way.state.lock().unwrap().frames.clear();
        self.way.end(Err(Status::unavailable("the connection is cut")));
    }
}

impl<M: SessionMessage> Way<M> {
    pub(crate) fn say(&self, frame: M::Frame) {
        self.state.lock().unwrap().frames.push_back(frame);
    }

    pub(crate) fn end(&self, end: Result<(), Status>) {
        self.state.lock().unwrap().end = Some(end);
    }

    /// A way on which these come, and then nothing.
    pub(crate) fn of(frames: impl IntoIterator<Item = M::Frame>) -> Self {
        let way = Self::default();
        frames.into_iter().for_each(|frame| way.say(frame));
        way
    }
}

impl<M: SessionMessage> Clone for Way<M> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state) }
    }
}

impl<M: SessionMessage> Default for Way<M> {
    fn default() -> Self {
        Self { state: Arc::new(Mutex::new(State { frames: VecDeque::new(), end: None })) }
    }
}

impl<M: SessionMessage> Stream for Way<M> {
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

/// Nobody is woken here: whoever waits is asked again.
pub(crate) fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// What is ready already.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut context()) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// The messages of the frames that are there; none: there are no frames.
pub(crate) fn hear<M: SessionMessage>(incoming: &mut Incoming<M>) -> Option<Vec<M>> {
    now(incoming.next()).map(|heard| heard.expect("the connection holds").expect("the stream goes on"))
}

/// The next frame, if there is one.
pub(crate) fn next_frame<M: SessionMessage>(frames: &mut Frames<M>) -> Option<M::Frame> {
    match Pin::new(frames).poll_next(&mut context()) {
        Poll::Ready(Some(frame)) => Some(frame),
        Poll::Ready(None) => panic!("the frames have ended"),
        Poll::Pending => None,
    }
}
