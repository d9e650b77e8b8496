//! Output on its way to the client: split at line ends and limited in rate.

use super::sink::Sink;

/// An unfinished line is forwarded after this time.
const LINE_TIMEOUT_NS: u64 = 100_000_000;
/// An unfinished line of this length is forwarded at once.
const LONG_LINE: usize = 4096;
/// Bytes per second that a pool may write on average.
const RATE: u64 = 1 << 20;
/// Bytes that a pool may write at once.
const BURST: u64 = 256 << 10;
/// Reading resumes when a pool that exhausted its budget may write this many bytes.
const RESUME_BYTES: u64 = 16 << 10;

/// Output that was read from a stream and not forwarded yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    /// When the unfinished line began.
    since: Option<u64>,
}

impl Lines {
    /// Takes what can be forwarded: whole lines, and the start of a line that is overdue. `all`: everything.
    pub(super) fn take(&mut self, now: u64, all: bool) -> Option<Vec<u8>> {
        let whole = self.bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let rest = self.bytes.len() - whole;
        let late = self.since.is_some_and(|since| now >= since + LINE_TIMEOUT_NS) && whole == 0;
        let length = if all || late || rest >= LONG_LINE { self.bytes.len() } else { whole };
        let left = self.bytes.split_off(length);
        let taken = std::mem::replace(&mut self.bytes, left);
        if self.bytes.is_empty() {
            self.since = None;
        } else if !taken.is_empty() || self.since.is_none() {
            self.since = Some(now);
        }
        (!taken.is_empty()).then_some(taken)
    }

    /// Returns when the unfinished line must be forwarded.
    pub(super) fn due(&self) -> Option<u64> {
        self.since.map(|since| since + LINE_TIMEOUT_NS)
    }
}

/// The number of bytes that the workers of a pool may write.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: u64,
    at: u64,
}

impl Budget {
    pub(super) fn new(now: u64) -> Budget {
        Budget { bytes: BURST, at: now }
    }

    /// Returns the number of bytes that may be written now.
    fn left(&mut self, now: u64) -> u64 {
        let nanoseconds = u128::from(now.saturating_sub(self.at));
        let earned = u64::try_from(nanoseconds * u128::from(RATE) / 1_000_000_000).unwrap_or(u64::MAX);
        if earned > 0 {
            self.bytes = self.bytes.saturating_add(earned).min(BURST);
            self.at = now;
        }
        self.bytes
    }

    /// Returns when to resume reading after the budget was used up.
    pub(super) fn resume_at(&self) -> u64 {
        self.at + RESUME_BYTES.saturating_sub(self.bytes) * 1_000_000_000 / RATE
    }
}

/// The sink for a stream that is forwarded.
pub(super) struct ForwardingSink<'a> {
    pub(super) lines: &'a mut Lines,
    pub(super) budget: &'a mut Budget,
    pub(super) now: u64,
    /// The process has ended: the rest of its pipe is forwarded even beyond the budget, for it is not much.
    pub(super) ended: bool,
}

impl Sink for ForwardingSink<'_> {
    fn room(&mut self) -> usize {
        let left = self.budget.left(self.now);
        if self.ended { usize::MAX } else { usize::try_from(left).unwrap_or(usize::MAX) }
    }

    fn take(&mut self, portion: &[u8]) {
        self.lines.bytes.extend_from_slice(portion);
        self.budget.bytes = self.budget.bytes.saturating_sub(portion.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    fn write(lines: &mut Lines, bytes: &[u8], now: u64) -> Option<String> {
        let mut budget = Budget::new(now);
        ForwardingSink { lines, budget: &mut budget, now, ended: false }.take(bytes);
        take_text(lines, now)
    }

    fn take_text(lines: &mut Lines, now: u64) -> Option<String> {
        lines.take(now, false).map(|bytes| String::from_utf8(bytes).expect("only text was written"))
    }

    #[test]
    fn lines_are_forwarded_whole_unless_they_are_late_or_long() {
        let mut lines = Lines::default();
        assert_eq!(write(&mut lines, b"one\ntwo\nthr", 0).as_deref(), Some("one\ntwo\n"));
        assert_eq!(lines.due(), Some(100 * MILLISECOND));
        assert_eq!(take_text(&mut lines, 99 * MILLISECOND), None);
        assert_eq!(write(&mut lines, b"ee\nfo", 99 * MILLISECOND).as_deref(), Some("three\n"));
        assert_eq!(take_text(&mut lines, 100 * MILLISECOND), None, "the unfinished line has just begun");
        assert_eq!(take_text(&mut lines, 199 * MILLISECOND).as_deref(), Some("fo"));
        assert_eq!(lines.due(), None);
        assert_eq!(write(&mut lines, &[b'x'; 4096], 200 * MILLISECOND).map(|long| long.len()), Some(4096));
        assert_eq!(write(&mut lines, b"the end", 200 * MILLISECOND), None);
        assert_eq!(lines.take(200 * MILLISECOND, true).as_deref(), Some(&b"the end"[..]));
        assert_eq!(lines.take(900 * MILLISECOND, true), None);
    }

    #[test]
    fn a_pool_may_burst_and_then_writes_a_mebibyte_a_second() {
        let (mut budget, mut lines, mut read) = (Budget::new(0), Lines::default(), 0);
        let mut now = 0;
        while now <= 10_000 * MILLISECOND {
            loop {
                let mut sink = ForwardingSink { lines: &mut lines, budget: &mut budget, now, ended: false };
                let room = sink.room().min(4096);
                if room == 0 {
                    break;
                }
                sink.take(&vec![b'x'; room]);
                read += room;
            }
            let next = budget.resume_at();
            assert!(next > now, "the loop would not end");
            now = next;
        }
        let seconds_and_burst = (10 << 20) + (256 << 10);
        assert!((seconds_and_burst - (64 << 10)..=seconds_and_burst + (32 << 10)).contains(&read), "{read} bytes");
        let mut sink = ForwardingSink { lines: &mut lines, budget: &mut budget, now, ended: true };
        assert!(sink.room() > 0, "the rest of an ended process's output is forwarded");
    }
}
