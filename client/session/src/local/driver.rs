//! Which thread drives the engine.
//!
//! The engine has one owner at a time: the thread that holds its lock. A thread with work for it takes the lock, does
//! a round of work and leaves; no thread sleeps with the lock. Before the lock is released, the workers are asked to
//! wake the engine's epoll when there is work, so the next thread that sleeps on that epoll misses nothing.
//!
//! This module ensures that some thread always sleeps on it: *the driver*. This is a thread that waits for an
//! outcome, if there is one, so that the worker's wake-up reaches it directly; otherwise the session's own thread.
//! The session's thread sleeps on an outer epoll that contains the inner one. A waiting thread removes the inner one
//! while it drives, and puts it back when it leaves. Of several waiting threads, one drives and the others park;
//! when it leaves, it wakes one of them to drive next.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Instant;

use farpool_agent::Armed;
use farpool_agent::standard::HoldStandard;
use farpool_agent::timer::Timer;
use farpool_link::clock;
use farpool_proto::v1::client_message::Body;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::engine::Engine;
use super::intake::{Intake, Jobs};
use crate::error::{Error, ErrorKind};
use crate::inbox::{Inbox, Wakes};
use crate::settings::Settings;

/// The timers' data in epoll events; no pool of the agent's has them.
const TIMER: u64 = u64::MAX;
const INTAKE: u64 = u64::MAX - 1;

pub(super) struct LocalDriver {
    state: Mutex<EngineState>,
    /// Jobs that the engine takes over with the lock.
    intake: Intake,
    turn: Mutex<()>,
    /// The epoll that wakes the driver.
    inner: Arc<Epoll>,
    /// The epoll that the session's own thread sleeps on.
    outer: Epoll,
}

struct EngineState {
    engine: Engine,
    /// Kept to reuse its memory.
    spare: Jobs,
    timer: Timer,
    /// A waiting thread sleeps on the inner epoll.
    driven: bool,
    /// The inner epoll was removed from the outer one.
    inner_removed: bool,
    /// Threads that wait without driving.
    followers: Vec<Thread>,
}

impl LocalDriver {
    /// Starts the engine and the session's thread.
    pub(super) fn start(settings: Settings) -> Result<Arc<LocalDriver>, Error> {
        let failed = |error: Errno| Error::new(ErrorKind::Unavailable, format!("cannot open the pool: {error}"));
        let _standard = HoldStandard::new().map_err(failed)?;
        let outer = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        let engine = Engine::start(settings)?;
        let inner = Arc::clone(engine.epoll());
        let timer = Timer::new(&inner, TIMER).map_err(failed)?;
        outer.add(inner.0.as_fd(), inner_epoll_event()).map_err(failed)?;
        let intake = Intake::new(&inner, INTAKE).map_err(failed)?;
        let state = EngineState {
            engine,
            spare: Jobs::default(),
            timer,
            driven: false,
            inner_removed: false,
            followers: Vec::new(),
        };
        let driver = Arc::new(LocalDriver { state: Mutex::new(state), intake, turn: Mutex::new(()), inner, outer });
        driver.give_back(driver.lock());
        let own = Arc::clone(&driver);
        thread::Builder::new()
            .name("farpool".into())
            .stack_size(crate::STACK)
            .spawn(move || own.run())
            .map_err(|error| Error::new(ErrorKind::Unavailable, format!("cannot start the pool's thread: {error}")))?;
        Ok(driver)
    }

    /// Calls a function with the engine, which then knows all jobs submitted before.
    pub(super) fn act<T>(&self, act: impl FnOnce(&mut Engine) -> T) -> T {
        let submitted = self.intake.submitted();
        let mut state = self.lock();
        while !self.intake.has_handed_over(submitted) {
            self.give_back(state);
            state = self.lock();
        }
        let outcome = act(&mut state.engine);
        self.give_back(state);
        outcome
    }

    /// Submits a small job, now or together with others that follow within a moment.
    pub(super) fn submit_soon(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) {
        if self.intake.push(inbox, messages, clock::now()) {
            self.give_back(self.lock());
        }
    }

    /// Drives the engine, or parks while another thread does, until `done` or the deadline has passed.
    pub(super) fn drive_until(
        &self,
        done: impl Fn(&Engine) -> bool,
        park: impl Fn(Option<Instant>),
        deadline: Option<Instant>,
    ) {
        let mut state = self.lock();
        while !done(&state.engine) && deadline.is_none_or(|deadline| Instant::now() < deadline) {
            if state.driven {
                let me = thread::current();
                state.followers.push(me.clone());
                self.give_back(state);
                park(deadline);
                state = self.lock();
                state.followers.retain(|follower| follower.id() != me.id());
                continue;
            }
            match state.engine.arm() {
                Armed::Busy => {
                    // A stream of outcomes may last long: descriptors are polled all the same, and other threads
                    // get a turn.
                    self.handle_ready_events(&mut state);
                    self.give_back(state);
                    state = self.lock();
                    continue;
                }
                Armed::Until(None) => {}
                Armed::Until(Some(time)) => state.ring_timer_by(time),
            }
            state.driven = true;
            state.engine.inboxes.delivered = false;
            if !std::mem::replace(&mut state.inner_removed, true) {
                self.set_outer(no_event());
            }
            release(state);
            let mut events = [EpollEvent::empty(); 32];
            let ready = self.inner.wait(&mut events, until(deadline)).unwrap_or(0);
            state = self.lock();
            state.driven = false;
            state.handle_events(&events[..ready], &self.intake);
        }
        self.leave(state);
    }

    /// Ends a wait, and ensures that another thread drives.
    fn leave(&self, mut state: MutexGuard<'_, EngineState>) {
        if state.inner_removed && !state.driven {
            match state.followers.pop() {
                Some(next) => next.unpark(),
                None => {
                    state.inner_removed = false;
                    self.set_outer(inner_epoll_event());
                }
            }
        }
        self.give_back(state);
    }

    /// Runs the session's own thread.
    fn run(&self) {
        loop {
            let mut events = [EpollEvent::empty(); 1];
            // Only errors that a retry cures can happen here (EINTR).
            let _ = self.outer.wait(&mut events, EpollTimeout::NONE);
            let mut state = self.lock();
            self.handle_ready_events(&mut state);
            let closed = state.engine.is_closed();
            self.give_back(state);
            if closed {
                return;
            }
        }
    }

    /// Handles pending events, without waiting.
    fn handle_ready_events(&self, state: &mut EngineState) {
        let mut events = [EpollEvent::empty(); 32];
        let ready = self.inner.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        state.handle_events(&events[..ready], &self.intake);
    }

    /// Releases the lock: works a little, ensures that remaining work and later events are noticed, and wakes the threads
    /// that something has arrived for.
    fn give_back(&self, mut state: MutexGuard<'_, EngineState>) {
        let armed = match state.engine.arm() {
            Armed::Busy => {
                state.engine.pump(clock::now());
                state.engine.arm()
            }
            armed => armed,
        };
        match armed {
            Armed::Busy => state.ring_timer_by(clock::now()),
            Armed::Until(Some(time)) => state.ring_timer_by(time),
            Armed::Until(None) => {}
        }
        if state.driven && state.engine.inboxes.delivered {
            // Another thread may have delivered what the driver waits for.
            state.ring_timer_by(clock::now());
        }
        if state.engine.is_closed() {
            let EngineState { engine, spare, .. } = &mut *state;
            self.intake.close(engine, spare);
            // The session's thread and all waiting threads have nothing left to wait for.
            state.followers.iter().for_each(Thread::unpark);
            state.ring_timer_by(clock::now());
        }
        release(state);
    }

    fn set_outer(&self, mut event: EpollEvent) {
        // It was added at the start and never removed, so this cannot fail.
        let changed = self.outer.modify(self.inner.0.as_fd(), &mut event);
        debug_assert!(changed.is_ok(), "the inner epoll is part of the outer one");
    }

    fn lock(&self) -> MutexGuard<'_, EngineState> {
        // The thread with the turn gets the lock next: without the turn, a thread that releases the lock and takes it again
        // would nearly always win against one that has to be woken.
        let _turn = self.turn.lock();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let EngineState { engine, spare, .. } = &mut *state;
        self.intake.hand_over(engine, spare);
        state
    }
}

/// Releases the lock after the engine was armed, and wakes the threads that something has arrived for.
fn release(mut state: MutexGuard<'_, EngineState>) {
    let wakes = state.engine.inboxes.take_wakes();
    drop(state);
    wakes.into_iter().for_each(Wakes::wake);
}

impl EngineState {
    fn handle_events(&mut self, events: &[EpollEvent], intake: &Intake) {
        let now = clock::now();
        for event in events {
            match event.data() {
                TIMER => self.timer.clear_expired(),
                INTAKE => intake.handle_timer(&mut self.engine, &mut self.spare),
                data => self.engine.ready(data, now),
            }
        }
        self.engine.pump(now);
    }

    fn ring_timer_by(&mut self, time: u64) {
        // It fails only for a time in the far future.
        let _ = self.timer.expire_by(time);
    }
}

/// Parks a thread that waits for no inbox.
pub(super) fn park(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => thread::park_timeout(deadline.saturating_duration_since(Instant::now())),
        None => thread::park(),
    }
}

fn inner_epoll_event() -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN, 0)
}

fn no_event() -> EpollEvent {
    EpollEvent::new(EpollFlags::empty(), 0)
}

/// Rounds up to milliseconds for epoll: a shorter wait would be polling.
fn until(deadline: Option<Instant>) -> EpollTimeout {
    let Some(deadline) = deadline else { return EpollTimeout::NONE };
    let left = deadline.saturating_duration_since(Instant::now());
    let milliseconds = left.as_micros().div_ceil(1000);
    u16::try_from(milliseconds).map_or(EpollTimeout::from(u16::MAX), EpollTimeout::from)
}
