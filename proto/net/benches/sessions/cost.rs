//! The cost of a figure: wall-clock time, and CPU time of both processes, which is less noisy.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

pub(crate) struct Cost {
    start: Instant,
    clocks: [ClockId; 2],
    before: [Duration; 2],
}

impl Cost {
    /// Begins to measure this process and its peer.
    pub(crate) fn new(peer: u32) -> Self {
        let peer = clock_getcpuclockid(Pid::from_raw(peer.cast_signed())).expect("the peer runs");
        let clocks = [ClockId::CLOCK_PROCESS_CPUTIME_ID, peer];
        Cost { start: Instant::now(), clocks, before: clocks.map(now) }
    }

    /// Prints the cost of `count` units of work.
    pub(crate) fn print(&self, what: &str, count: usize, unit: &str) {
        let took = self.start.elapsed();
        let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
        let [ours, theirs] = self.clocks.map(now);
        let [ours, theirs] = [ours - self.before[0], theirs - self.before[1]];
        println!(
            "{what:<48} {:>12.0} {unit}/s   {:>9.3} us each; processors {:>8.3} here, {:>8.3} there",
            count as f64 / took.as_secs_f64(),
            each(took),
            each(ours),
            each(theirs),
        );
    }
}

fn now(clock: ClockId) -> Duration {
    let now = clock_gettime(clock).expect("the clock can be read");
    Duration::new(now.tv_sec().cast_unsigned(), now.tv_nsec() as u32)
}
