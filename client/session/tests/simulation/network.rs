//! Calls from hosts to the coordinator: frames with delays, connections that break, and hosts that are cut off.
//!
//! Frames of a connection arrive in order or not at all, as with TCP: a *stalled* direction holds them back. If that
//! lasts, each side detects the silence by itself, and frames in flight are lost.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use farpool_testkit::random::Random;
use futures_core::Stream;
use prost::Message;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;

use crate::trace;

/// How long a side waits before silence is an error.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(5);
const HEARTBEAT_MISSED: &str = "keep-alive timed out";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Late frames arrive within this time.
const LINGER: Duration = Duration::from_millis(50);

/// A host that is not the coordinator's.
pub(crate) type Host = u32;

/// The ends of a call. The index of an end is also that of the direction from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Host,
    Coordinator,
}

pub(crate) const ENDS: [End; 2] = [End::Host, End::Coordinator];

impl End {
    fn other(self) -> End {
        match self {
            End::Host => End::Coordinator,
            End::Coordinator => End::Host,
        }
    }
}

#[derive(Clone)]
pub(crate) struct Network {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    random: Random,
    /// Mean delay of a frame, by host, in us.
    delays: BTreeMap<Host, u64>,
    /// Stalled directions of hosts, for later connections too.
    stalled: BTreeMap<Host, [bool; 2]>,
    calls: BTreeMap<u64, Arc<Call>>,
    last_number: u64,
}

/// One call, on a separate connection.
struct Call {
    number: u64,
    host: Host,
    state: Mutex<State>,
    changed: Notify,
    network: Network,
}

#[derive(Default)]
struct State {
    stalled: [bool; 2],
    /// When the ends detect the silence.
    deadlines: [Option<Instant>; 2],
    /// The errors of the ends, once it is over.
    over: [Option<Status>; 2],
    /// The reader there was dropped.
    reader_gone: [bool; 2],
    /// Everything from there was sent and has arrived.
    ended: [bool; 2],
    /// When the host's delayed frames arrive on this connection, which the host has replaced by another one.
    late: Option<Instant>,
}

impl Network {
    pub(crate) fn new(random: Random) -> Self {
        let inner =
            Inner { random, delays: BTreeMap::new(), stalled: BTreeMap::new(), calls: BTreeMap::new(), last_number: 0 };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a thread panicked while it held the lock")
    }

    /// Sets the mean delay of frames to and from a host.
    pub(crate) fn set_delay(&self, host: Host, us: u64) {
        self.inner().delays.insert(host, us);
    }

    fn delay(&self, host: Host) -> Duration {
        let mut inner = self.inner();
        let mean = inner.delays.get(&host).copied().unwrap_or(100);
        Duration::from_micros(inner.random.within(mean / 2..mean * 3 / 2 + 1))
    }

    /// Connects from a host, if a coordinator listens.
    pub(crate) async fn connect(&self, host: Host, listens: impl Fn() -> bool) -> Result<(), Status> {
        sleep(self.delay(host)).await;
        if self.inner().stalled.get(&host).is_some_and(|directions| directions.contains(&true)) {
            sleep(CONNECT_TIMEOUT).await;
            return Err(Status::unavailable("there was no answer"));
        }
        if listens() { Ok(()) } else { Err(Status::unavailable("connection refused")) }
    }

    /// Makes a call. `accept` is the coordinator: it takes the frames of the host and gives its own.
    pub(crate) async fn call<Up, Down, Replies>(
        &self,
        host: Host,
        frames: impl Stream<Item = Up> + Send + 'static,
        accept: impl FnOnce(Arriving<Up>) -> Option<Replies>,
    ) -> Result<Arriving<Down>, Status>
    where
        Up: Message + Debug + 'static,
        Down: Message + Debug + 'static,
        Replies: Stream<Item = Result<Down, Status>> + Send + 'static,
    {
        let call = self.new_call(host);
        let (up, at_coordinator) = mpsc::channel(2);
        let (down, at_host) = mpsc::channel(2);
        let arriving =
            Arriving { frames: at_coordinator, call: call.clone(), end: End::Coordinator, end_reported: false };
        let arrived = Arriving { frames: at_host, call: call.clone(), end: End::Host, end_reported: false };
        let Some(replies) = accept(arriving) else { return Err(Status::unavailable("connection refused")) };
        trace::log(format_args!("call {} from host {host}", call.number));
        tokio::spawn(carry(call.clone(), End::Host, WithoutErrors(Box::pin(frames)), up));
        tokio::spawn(carry(call.clone(), End::Coordinator, Box::pin(replies), down));
        tokio::spawn(watch(call));
        Ok(arrived)
    }

    fn new_call(&self, host: Host) -> Arc<Call> {
        let mut inner = self.inner();
        inner.last_number += 1;
        let number = inner.last_number;
        let state = Mutex::default();
        let call = Arc::new(Call { number, host, state, changed: Notify::new(), network: self.clone() });
        inner.calls.insert(number, call.clone());
        let stalled = inner.stalled.get(&host).copied().unwrap_or_default();
        drop(inner);
        ENDS.into_iter().filter(|&direction| stalled[direction as usize]).for_each(|direction| call.stall(direction));
        call
    }

    fn calls_of(&self, hosts: impl Fn(Host) -> bool) -> Vec<Arc<Call>> {
        self.inner().calls.values().filter(|call| hosts(call.host)).cloned().collect()
    }

    /// Breaks the connections of these hosts; both ends notice at once.
    pub(crate) fn cut(&self, hosts: impl Fn(Host) -> bool) {
        for call in self.calls_of(hosts) {
            ENDS.into_iter().for_each(|end| call.break_at(end, Status::unavailable("connection reset by peer")));
        }
    }

    /// Stalls these directions of this host's current connections, but not of new ones.
    pub(crate) fn half_open(&self, host: Host, directions: [bool; 2]) {
        for call in self.calls_of(|of| of == host) {
            ENDS.into_iter()
                .filter(|&direction| directions[direction as usize])
                .for_each(|direction| call.stall(direction));
        }
    }

    /// Breaks the host's connections at the host. Its frames in flight arrive late, and only then does the coordinator notice.
    pub(crate) fn lose(&self, host: Host, late: Duration) {
        for call in self.calls_of(|of| of == host) {
            call.change(|state| state.late = Some(Instant::now() + late));
            call.break_at(End::Host, Status::unavailable("connection reset by peer"));
        }
    }

    /// Stalls these directions of the host, for all its connections.
    pub(crate) fn partition(&self, host: Host, directions: [bool; 2]) {
        self.inner().stalled.insert(host, directions);
        self.half_open(host, directions);
    }

    /// Ends the partition of a host.
    pub(crate) fn heal(&self, host: Host) {
        self.inner().stalled.remove(&host);
        self.calls_of(|of| of == host).iter().for_each(|call| call.flow());
    }
}

impl Call {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a thread panicked while it held the lock")
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_waiters();
    }

    fn stall(&self, direction: End) {
        let now = Instant::now();
        self.change(|state| {
            state.stalled[direction as usize] = true;
            for deadline in &mut state.deadlines {
                let late = HEARTBEAT.mul_f64(1.0 + self.network.inner().random.below(1000) as f64 / 1000.0);
                deadline.get_or_insert(now + late);
            }
        });
    }

    fn flow(&self) {
        self.change(|state| (state.stalled, state.deadlines) = Default::default());
    }

    fn break_at(&self, end: End, status: Status) {
        self.change(|state| {
            state.over[end as usize].get_or_insert(status);
        });
    }

    /// Waits until `what` returns a value.
    async fn until<T>(&self, what: impl Fn(&State) -> Option<T>) -> T {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(value) = what(&self.state()) {
                return value;
            }
            changed.await;
        }
    }

    /// Waits until an end detects the silence by itself.
    async fn deadline(&self, end: End) {
        loop {
            let deadline = self.state().deadlines[end as usize];
            tokio::select! {
                biased;
                () = at(deadline) => return,
                () = self.until(|state| (state.deadlines[end as usize] != deadline).then_some(())) => {}
            }
        }
    }

    async fn over(&self, end: End) {
        self.until(|state| state.over[end as usize].as_ref().map(|_| ())).await;
    }
}

/// Carries frames from one end to the other.
async fn carry<F: Message + Debug>(
    call: Arc<Call>,
    from: End,
    frames: impl Stream<Item = Result<F, Status>> + Unpin,
    to: mpsc::Sender<Result<F, Status>>,
) {
    let sent = async {
        let mut frames = frames;
        loop {
            let frame = poll_fn(|context| Pin::new(&mut frames).poll_next(context)).await;
            let delay = call.network.delay(call.host);
            sleep(delay).await;
            call.until(|state| (!state.stalled[from as usize]).then_some(())).await;
            let late = call.state().late.filter(|_| from == End::Host);
            if let Some(late) = late {
                sleep_until(late).await;
            }
            let Some(frame) = frame else {
                if late.is_some() {
                    // Another connection has replaced this one, and the coordinator does not know that.
                    std::future::pending::<()>().await;
                }
                return;
            };
            note(&call, from, &frame);
            if to.send(frame).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        biased;
        () = call.until(|state| (state.over[from as usize].is_some() && state.late.is_none()).then_some(())) => {}
        () = call.over(from.other()) => return,
        () = sent => {
            call.change(|state| state.ended[from as usize] = true);
            drop(to);
            // The coordinator's end of the stream ends the call.
            if from == End::Coordinator {
                call.break_at(End::Coordinator, Status::cancelled("the call is over"));
            }
            return;
        }
    }
    // The reader notices later.
    call.over(from.other()).await;
}

/// Makes both ends of a call notice that it is over.
async fn watch(call: Arc<Call>) {
    let first = loop {
        let deadlines = {
            let state = call.state();
            ENDS.into_iter().filter_map(|end| state.deadlines[end as usize].map(|at| (at, end as usize))).min()
        };
        let over = |state: &State| {
            let over = ENDS.into_iter().find(|&end| state.over[end as usize].is_some());
            // A host that drops a call ends it. The coordinator may stop reading and keep sending.
            over.or_else(|| state.reader_gone[End::Host as usize].then_some(End::Host))
        };
        let other_time = |state: &State| {
            let first = state.deadlines.iter().flatten().min().copied();
            (first != deadlines.map(|(at, _)| at)).then_some(())
        };
        tokio::select! {
            biased;
            end = call.until(over) => break end,
            () = call.until(other_time) => {}
            () = at(deadlines.map(|(at, _)| at)) => {
                let end = ENDS[deadlines.map_or(0, |(_, end)| end)];
                trace::log(format_args!("call {}: {end:?} detects silence", call.number));
                call.break_at(end, missed(end));
            }
        }
    };
    let other = first.other();
    let notices = async {
        sleep(call.network.delay(call.host)).await;
        call.until(|state| (!state.stalled[first as usize]).then_some(())).await;
        let late = call.state().late;
        if let Some(late) = late {
            sleep_until(late + LINGER).await;
        }
    };
    let broken = call.state().over[first as usize].is_some();
    tokio::select! {
        biased;
        () = call.over(other) => {}
        () = notices => {
            if !broken {
                call.change(|state| state.ended[first as usize] = true);
            }
        }
        () = call.deadline(other) => call.break_at(other, missed(other)),
    }
    ENDS.into_iter().for_each(|end| call.break_at(end, Status::unavailable("connection reset by peer")));
    trace::log(format_args!("call {} is over", call.number));
    call.network.inner().calls.remove(&call.number);
}

/// Returns the error of an end that detects silence. The coordinator then declares the host lost.
fn missed(end: End) -> Status {
    match end {
        End::Host => Status::unavailable(HEARTBEAT_MISSED),
        End::Coordinator => Status::deadline_exceeded(HEARTBEAT_MISSED),
    }
}

fn note<F: Message + Debug>(call: &Call, from: End, frame: &Result<F, Status>) {
    let digest = match frame {
        Ok(frame) => trace::of_bytes(&frame.encode_to_vec()),
        Err(status) => trace::of_bytes(status.message().as_bytes()),
    };
    let direction = if from == End::Host { "up" } else { "down" };
    trace::note(digest ^ call.number, || format!("call {} {direction}: {frame:?}", call.number));
}

pub(crate) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Frames as they arrive.
pub(crate) struct Arriving<F> {
    frames: mpsc::Receiver<Result<F, Status>>,
    call: Arc<Call>,
    end: End,
    /// The reason for the end was returned.
    end_reported: bool,
}

impl<F> Stream for Arriving<F> {
    type Item = Result<F, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let frame = std::task::ready!(self.frames.poll_recv(context));
        if frame.is_some() || std::mem::replace(&mut self.end_reported, true) {
            return Poll::Ready(frame);
        }
        let state = self.call.state();
        let ended = state.ended[self.end.other() as usize];
        Poll::Ready(state.over[self.end as usize].clone().filter(|_| !ended).map(Err))
    }
}

impl<F> Drop for Arriving<F> {
    fn drop(&mut self) {
        self.call.change(|state| state.reader_gone[self.end as usize] = true);
    }
}

/// A host's frames, which have no errors.
struct WithoutErrors<S>(Pin<Box<S>>);

impl<S: Stream> Stream for WithoutErrors<S> {
    type Item = Result<S::Item, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context).map(|frame| frame.map(Ok))
    }
}
