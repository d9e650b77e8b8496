//! The loop of a map: dispatches items, receives outcomes, and decides when to stop.

use std::cell::RefCell;
use std::env;
use std::io::{self, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use farpool::{Error, Pool};

use super::MapError;
use super::board::{Board, Dispatched};
use super::finished::{Finished, Lost};
use super::interrupt::{self, Interrupt};
use super::outputs::Outputs;
use super::plan::Plan;
use super::printed;
use super::progress::Progress;
use super::queue::Queue;
use super::records::{Records, Remaining};
use super::segment::{Segment, SegmentEvent};
use super::sink::{PrintOptions, Sink};
use super::task::{Ended, Outcome};
use crate::streams;
use crate::text::counted;

/// Variables that most commands need, and that workers on a cluster do not have by default.
const USUAL_VARIABLES: [&str; 3] = ["PATH", "HOME", "LANG"];

/// Runs the map. Returns how many items failed.
pub(super) fn run(plan: &Plan, address: Option<String>) -> Result<u64, MapError> {
    let interrupt = Interrupt::watch()
        .map_err(|error| MapError::Failed(format!("cannot start the thread that watches for signals: {error}")))?;
    let records = plan.results.as_ref().map(|place| Records::open(place, Some(plan.program()))).transpose()?;
    let queue = plan.input.read().map_err(MapError::Failed)?;
    let (records, rest) = match records {
        Some((records, earlier)) => (Some(records), earlier.compare(&queue)?),
        None => (None, Remaining::default()),
    };
    let on_cluster = address.is_some();
    let outputs = Outputs::new(plan, !on_cluster);
    if plan.line_buffer {
        // Fails early if stdout is closed: workers would not notice.
        streams::stdout().map_err(|error| MapError::of_stdout(&error))?;
    }
    if plan.line_buffer && on_cluster {
        farpool::print_workers_with(printed::print);
    }
    let pool = open(plan, address)?;
    let options = PrintOptions { ordered: plan.ordered, tag: plan.tag, hosts: on_cluster };
    let mut sink = Sink::open(options, records, plan.progress.then(Progress::show).flatten());
    sink.skip(rest.done);
    let mut board = Board::new(plan, outputs);
    (board.next, board.pending) = (rest.next, rest.pending.into());
    let board = Rc::new(RefCell::new(board));
    let mut map = Map { pool: &pool, plan, queue, board, segments: Vec::new(), sink, input_error: None };
    let ended = block_on(|context| match interrupt.poll(context.waker()) {
        Some(signal) => Poll::Ready(Err(MapError::Interrupted(signal))),
        None => map.poll(context),
    });
    if ended.is_err() {
        map.sink.print_waiting();
    }
    if let Err(MapError::Interrupted(signal)) = ended {
        interrupt::end_by(signal);
    }
    let failed = ended?;
    drop(map);
    pool.close();
    pool.join()?;
    printed::check()?;
    if rest.failed > 0 {
        let _ = writeln!(
            io::stderr(),
            "farpool: {} failed earlier; run failed items again with --retry-failed",
            counted(rest.failed, "item")
        );
    }
    Ok(failed + rest.failed)
}

pub(super) fn open(plan: &Plan, address: Option<String>) -> Result<Pool, Error> {
    let mut builder = Pool::builder().name("farpool-map");
    builder = match address {
        Some(address) => {
            let usual = USUAL_VARIABLES.iter().filter_map(|name| Some((*name, env::var_os(name)?)));
            usual.fold(builder.address(address), |builder, (name, value)| builder.env(name, value))
        }
        None => builder.local(),
    };
    for (name, value) in &plan.environment {
        builder = builder.env(name, value);
    }
    for (key, value) in &plan.require {
        builder = builder.require(key, value);
    }
    if let Some(processes) = plan.processes {
        builder = builder.processes(processes);
    }
    builder.build()
}

struct Map<'a> {
    pool: &'a Pool,
    plan: &'a Plan,
    queue: Arc<Queue>,
    board: Rc<RefCell<Board<'a>>>,
    segments: Vec<Segment<'a>>,
    sink: Sink,
    input_error: Option<io::Error>,
}

/// For each slot one running item, and one that waits.
const ITEMS_PER_SLOT: u64 = 2;
const OUTCOMES_PER_TURN: usize = 64;

impl Map<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<u64, MapError>> {
        loop {
            let changed = self.receive_outcomes(context).and_then(|taken| Ok(taken | self.dispatch(context)?));
            let flushed = changed.and_then(|changed| self.sink.flush().map(|()| changed));
            match flushed {
                Err(error) => return Poll::Ready(Err(error)),
                Ok(true) => {}
                Ok(false) if self.segments.is_empty() && self.is_done(context) => {
                    return Poll::Ready(self.end());
                }
                Ok(false) => return Poll::Pending,
            }
        }
    }

    /// Receives available outcomes. Returns whether there were any, or a job ended.
    fn receive_outcomes(&mut self, context: &mut Context<'_>) -> Result<bool, MapError> {
        let mut any = false;
        for at in (0..self.segments.len()).rev() {
            // Bounded, so that output is flushed and other jobs get their turn.
            for _ in 0..OUTCOMES_PER_TURN {
                let Poll::Ready(event) = self.segments[at].poll(context) else { break };
                any = true;
                match event {
                    SegmentEvent::Ended(outcome, attempts) => self.note_ended(outcome, attempts)?,
                    SegmentEvent::Failed(index, error) => self.note_failed(index, error)?,
                    SegmentEvent::JobFailed(error) => return Err(error.into()),
                    SegmentEvent::JobEnded => {
                        self.segments.remove(at);
                        break;
                    }
                }
            }
            self.note_rejected()?;
        }
        Ok(any)
    }

    /// Starts a job for further items if possible. Returns whether it did.
    fn dispatch(&mut self, context: &mut Context<'_>) -> Result<bool, MapError> {
        let room = {
            let mut board = self.board.borrow_mut();
            let slots = self.pool.processes().max(1) as u64;
            board.max_dispatched = ITEMS_PER_SLOT * slots * self.plan.chunksize.unwrap_or(1);
            board.has_room_for_a_job()
        };
        if room && !self.segments.iter().any(Segment::is_fed) && self.has_input(context) {
            self.segments.push(Segment::of_input(self.pool, self.plan, &self.board, &self.queue));
            return Ok(true);
        }
        Ok(false)
    }

    fn has_input(&mut self, context: &Context<'_>) -> bool {
        if !self.board.borrow().pending.is_empty() {
            return true;
        }
        match self.queue.poll(context) {
            Poll::Pending => false,
            Poll::Ready(Ok(more)) => {
                if !more {
                    self.sink.set_total(self.board.borrow().next);
                }
                more
            }
            Poll::Ready(Err(error)) => {
                self.input_error = Some(error);
                self.stop();
                false
            }
        }
    }

    /// Returns whether no more items will be started.
    fn is_done(&mut self, context: &Context<'_>) -> bool {
        self.board.borrow().stopping || !self.has_more(context)
    }

    /// Returns whether there are undispatched items, or may be.
    fn has_more(&self, context: &Context<'_>) -> bool {
        !self.board.borrow().pending.is_empty() || !matches!(self.queue.poll(context), Poll::Ready(Ok(false)))
    }

    fn note_ended(&mut self, outcome: Outcome, attempts: u32) -> Result<(), MapError> {
        let index = outcome.index;
        let dispatched = self.board.borrow_mut().remove(index);
        let Some(Dispatched { item, spool }) = dispatched else { return Ok(()) };
        if let Ended::NotPrinted(error) = outcome.ended {
            return Err(MapError::of_stdout(&io::Error::from_raw_os_error(error)));
        }
        // The file is kept only if it contains something, which is rare.
        let spool = spool.filter(|_| outcome.stdout.spooled() + outcome.stderr.spooled() > 0);
        self.finish(Finished { spool, ..Finished::new(index, Some(item), attempts, Ok(outcome)) })
    }

    fn note_failed(&mut self, index: u64, error: Error) -> Result<(), MapError> {
        let dispatched = self.board.borrow_mut().remove(index);
        let Some(Dispatched { item, .. }) = dispatched else { return Ok(()) };
        self.finish(Finished::new(index, Some(item), error.attempts(), Err(Lost::Failed(error))))
    }

    fn note_rejected(&mut self) -> Result<(), MapError> {
        let rejected = std::mem::take(&mut self.board.borrow_mut().rejected);
        rejected
            .into_iter()
            .try_for_each(|(index, item)| self.finish(Finished::new(index, Some(item), 0, Err(Lost::TooLong))))
    }

    fn finish(&mut self, finished: Finished) -> Result<(), MapError> {
        printed::check()?;
        let stops = finished.reason().is_some() && !self.plan.keep_going;
        if stops {
            self.stop();
        }
        let before = self.sink.written();
        self.sink.add(finished, stops)?;
        let mut board = self.board.borrow_mut();
        board.unwritten -= self.sink.written() - before;
        board.waiting_bytes = self.sink.waiting_bytes();
        board.waiting_spooled = self.sink.waiting_spooled();
        Ok(())
    }

    /// Stops starting items and retrying failed commands.
    fn stop(&mut self) {
        if !std::mem::replace(&mut self.board.borrow_mut().stopping, true) {
            self.segments.iter_mut().for_each(Segment::stop_retries);
        }
        self.queue.abandon();
    }

    fn end(&mut self) -> Result<u64, MapError> {
        if let Some(error) = self.input_error.take() {
            return Err(MapError::Failed(format!("cannot read the items: {error}")));
        }
        let stopped = self.board.borrow().stopping;
        if stopped && self.has_more(&Context::from_waker(Waker::noop())) {
            let _ = writeln!(io::stderr(), "farpool: stopped because an item failed; use --keep-going to continue");
        }
        self.sink.end()?;
        Ok(self.sink.failed())
    }
}

/// Polls until ready, and sleeps in between.
fn block_on<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
