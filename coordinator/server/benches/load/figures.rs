//! The measured figures.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};

/// What agents and the client record while a run is measured.
#[derive(Default)]
pub(crate) struct Figures {
    measuring: Cell<bool>,
    items: Cell<u64>,
    /// How long slots were free, in microseconds.
    waits: RefCell<Vec<u32>>,
}

impl Figures {
    /// Records that a free slot got its next chunk.
    pub(crate) fn slot_taken(&self, free_since: Instant, now: Instant) {
        if self.measuring.get() {
            self.waits.borrow_mut().push((now - free_since).as_micros().try_into().unwrap_or(u32::MAX));
        }
    }

    /// Records that the client got results of this many items.
    pub(crate) fn items_done(&self, count: u64) {
        self.items.set(self.items.get() + count);
    }

    /// Returns items per second over this time.
    pub(crate) async fn measure(&self, time: Duration) -> f64 {
        self.measuring.set(true);
        let (start, before) = (Instant::now(), self.items.get());
        tokio::time::sleep(time).await;
        self.measuring.set(false);
        (self.items.get() - before) as f64 / start.elapsed().as_secs_f64()
    }
}

pub(crate) const HEAD: &str = "agents  chunk takes   chunks/s   free slot waits p50      p99      max   \
    coordinator: us/chunk   load  MiB alone  connected  KiB/agent  under load   this process: load";

pub(crate) struct Row(String);

impl Row {
    /// `used`: CPU time of the coordinator and of this process. `resident`: memory of the coordinator before the agents
    /// connected, when they were connected, and after the run.
    pub(crate) fn new(
        agents: usize,
        service: Duration,
        figures: &Figures,
        rate: f64,
        used: [Duration; 2],
        resident: [u64; 3],
    ) -> Self {
        let mut waits = figures.waits.borrow_mut();
        waits.sort_unstable();
        let wait = |share: usize| {
            let at = (waits.len() * share / 1000).min(waits.len().saturating_sub(1));
            waits.get(at).map_or("none".to_owned(), |us| format!("{:.2} ms", f64::from(*us) / 1e3))
        };
        // Each item was one chunk, and caused one wait.
        let seconds = waits.len() as f64 / rate;
        let [coordinator, own] = used.map(|time| time.as_secs_f64());
        let mebibytes = resident.map(|bytes| bytes as f64 / f64::from(1 << 20));
        let each = (resident[1] as f64 - resident[0] as f64) / 1024.0 / agents as f64;
        Row(format!(
            "{agents:>6} {:>12} {rate:>10.0} {:>21} {:>8} {:>8} {:>23.2} {:>5.0} % {:>10.1} {:>10.1} {each:>10.1} {:>11.1} {:>18.0} %",
            format!("{:.1} ms", service.as_secs_f64() * 1e3),
            wait(500),
            wait(990),
            wait(1000),
            coordinator * 1e6 / waits.len() as f64,
            coordinator / seconds * 100.0,
            mebibytes[0],
            mebibytes[1],
            mebibytes[2],
            own / seconds * 100.0,
        ))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) fn own_processor_time() -> Duration {
    time_of(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

pub(crate) fn time_of(clock: ClockId) -> Duration {
    let now = clock_gettime(clock).expect("cannot read the clock");
    Duration::new(now.tv_sec().cast_unsigned(), now.tv_nsec() as u32)
}

/// Raises the descriptor limit as far as possible, for this process and its children: each agent needs a descriptor on
/// both sides.
pub(crate) fn raise_descriptor_limit() -> u64 {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("cannot read limits");
    let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    getrlimit(Resource::RLIMIT_NOFILE).expect("cannot read limits").0
}
