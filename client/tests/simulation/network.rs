//! Calls from hosts to the coordinator: frames that take their time, connections that break, and hosts that are cut off.
//!
//! Frames of a connection arrive in order or not at all, as with TCP: a way that is *stalled* holds them back. If that
//! lasts, each side finds out by itself that it hears nothing any more, and what was on its way is lost.

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

/// How long a side may hear nothing.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(5);
const HEARTBEAT_MISSED: &str = "keep-alive timed out";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What is late arrives within this.
const LINGER: Duration = Duration::from_millis(50);

/// A host that is not the coordinator's.
pub(crate) type Host = u32;

/// The ends of a call. The index of an end is also that of the way from there.
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
    /// Mean time that a frame is on its way, by host, in us.
    delays: BTreeMap<Host, u64>,
    /// Ways of hosts that are stalled, for connections to come as well.
    stalled: BTreeMap<Host, [bool; 2]>,
    calls: BTreeMap<u64, Arc<Call>>,
    made: u64,
}

/// One call, on a connection of its own.
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
    /// When the ends find out.
    deadlines: [Option<Instant>; 2],
    /// What the ends have been told, if it is over.
    over: [Option<Status>; 2],
    /// Nobody listens there any more.
    deaf: [bool; 2],
    /// All was said, and has arrived.
    ended: [bool; 2],
    /// The host has another connection by then, and what it said on this one arrives only now.
    late: Option<Instant>,
}

impl Network {
    pub(crate) fn new(random: Random) -> Self {
        let inner =
            Inner { random, delays: BTreeMap::new(), stalled: BTreeMap::new(), calls: BTreeMap::new(), made: 0 };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics with it")
    }

    /// Where frames to and from a host take about so long.
    pub(crate) fn set_delay(&self, host: Host, us: u64) {
        self.inner().delays.insert(host, us);
    }

    fn delay(&self, host: Host) -> Duration {
        let mut inner = self.inner();
        let mean = inner.delays.get(&host).copied().unwrap_or(100);
        Duration::from_micros(inner.random.within(mean / 2..mean * 3 / 2 + 1))
    }

    /// Gets a connection from a host, if there is a coordinator that takes it.
    pub(crate) async fn connect(&self, host: Host, listens: impl Fn() -> bool) -> Result<(), Status> {
        sleep(self.delay(host)).await;
        if self.inner().stalled.get(&host).is_some_and(|ways| ways.contains(&true)) {
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
        let arriving = Arriving { frames: at_coordinator, call: call.clone(), end: End::Coordinator, told: false };
        let arrived = Arriving { frames: at_host, call: call.clone(), end: End::Host, told: false };
        let Some(replies) = accept(arriving) else { return Err(Status::unavailable("connection refused")) };
        trace::say(format_args!("call {} from host {host}", call.number));
        tokio::spawn(carry(call.clone(), End::Host, Whole(Box::pin(frames)), up));
        tokio::spawn(carry(call.clone(), End::Coordinator, Box::pin(replies), down));
        tokio::spawn(watch(call));
        Ok(arrived)
    }

    fn new_call(&self, host: Host) -> Arc<Call> {
        let mut inner = self.inner();
        inner.made += 1;
        let number = inner.made;
        let state = Mutex::default();
        let call = Arc::new(Call { number, host, state, changed: Notify::new(), network: self.clone() });
        inner.calls.insert(number, call.clone());
        let stalled = inner.stalled.get(&host).copied().unwrap_or_default();
        drop(inner);
        ENDS.into_iter().filter(|&way| stalled[way as usize]).for_each(|way| call.stall(way));
        call
    }

    fn calls_of(&self, hosts: impl Fn(Host) -> bool) -> Vec<Arc<Call>> {
        self.inner().calls.values().filter(|call| hosts(call.host)).cloned().collect()
    }

    /// The connections of these hosts break, and everybody knows at once.
    pub(crate) fn cut(&self, hosts: impl Fn(Host) -> bool) {
        for call in self.calls_of(hosts) {
            ENDS.into_iter().for_each(|end| call.break_at(end, Status::unavailable("connection reset by peer")));
        }
    }

    /// Nothing comes through any more on the connections of this host as they are, these ways. New ones are not meant.
    pub(crate) fn half_open(&self, host: Host, ways: [bool; 2]) {
        for call in self.calls_of(|of| of == host) {
            ENDS.into_iter().filter(|&way| ways[way as usize]).for_each(|way| call.stall(way));
        }
    }

    /// The host finds that its connections are broken. What is on its way from there arrives late, and only then does
    /// the coordinator know.
    pub(crate) fn lose(&self, host: Host, late: Duration) {
        for call in self.calls_of(|of| of == host) {
            call.change(|state| state.late = Some(Instant::now() + late));
            call.break_at(End::Host, Status::unavailable("connection reset by peer"));
        }
    }

    /// Nothing comes through to or from this host.
    pub(crate) fn part(&self, host: Host, ways: [bool; 2]) {
        self.inner().stalled.insert(host, ways);
        self.half_open(host, ways);
    }

    /// Everything comes through again.
    pub(crate) fn heal(&self, host: Host) {
        self.inner().stalled.remove(&host);
        self.calls_of(|of| of == host).iter().for_each(|call| call.flow());
    }
}

impl Call {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_waiters();
    }

    fn stall(&self, way: End) {
        let now = Instant::now();
        self.change(|state| {
            state.stalled[way as usize] = true;
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

    /// Waits until something is so.
    async fn until<T>(&self, what: impl Fn(&State) -> Option<T>) -> T {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(is) = what(&self.state()) {
                return is;
            }
            changed.await;
        }
    }

    /// Waits until an end finds out by itself that it hears nothing.
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
                    // Another connection has taken the place of this one, of which nobody knows there.
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
            // The coordinator's word is the last one.
            if from == End::Coordinator {
                call.break_at(End::Coordinator, Status::cancelled("the call is over"));
            }
            return;
        }
    }
    // Who listens finds out in its time.
    call.over(from.other()).await;
}

/// Has the ends of a call find out that it is over.
async fn watch(call: Arc<Call>) {
    let first = loop {
        let deadlines = {
            let state = call.state();
            ENDS.into_iter().filter_map(|end| state.deadlines[end as usize].map(|at| (at, end as usize))).min()
        };
        let over = |state: &State| {
            let over = ENDS.into_iter().find(|&end| state.over[end as usize].is_some());
            // A host that drops a call says so. The coordinator may stop reading and go on telling.
            over.or_else(|| state.deaf[End::Host as usize].then_some(End::Host))
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
                trace::say(format_args!("call {}: {end:?} hears nothing any more", call.number));
                call.break_at(end, missed(end));
            }
        }
    };
    let other = first.other();
    let hears = async {
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
        () = hears => {
            if !broken {
                call.change(|state| state.ended[first as usize] = true);
            }
        }
        () = call.deadline(other) => call.break_at(other, missed(other)),
    }
    ENDS.into_iter().for_each(|end| call.break_at(end, Status::unavailable("connection reset by peer")));
    trace::say(format_args!("call {} is over", call.number));
    call.network.inner().calls.remove(&call.number);
}

/// What an end makes of it that it hears nothing any more. The coordinator gives up who had so much time.
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
    let way = if from == End::Host { "up" } else { "down" };
    trace::note(digest ^ call.number, || format!("call {} {way}: {frame:?}", call.number));
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
    /// It was said why no more come.
    told: bool,
}

impl<F> Stream for Arriving<F> {
    type Item = Result<F, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let frame = std::task::ready!(self.frames.poll_recv(context));
        if frame.is_some() || std::mem::replace(&mut self.told, true) {
            return Poll::Ready(frame);
        }
        let state = self.call.state();
        let ended = state.ended[self.end.other() as usize];
        Poll::Ready(state.over[self.end as usize].clone().filter(|_| !ended).map(Err))
    }
}

impl<F> Drop for Arriving<F> {
    fn drop(&mut self) {
        self.call.change(|state| state.deaf[self.end as usize] = true);
    }
}

/// A host's frames, which have no errors.
struct Whole<S>(Pin<Box<S>>);

impl<S: Stream> Stream for Whole<S> {
    type Item = Result<S::Item, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context).map(|frame| frame.map(Ok))
    }
}
