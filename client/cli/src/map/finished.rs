//! A finished item, and the messages about it.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use farpool::Error;
use farpool_common::units;
use nix::sys::signal::Signal;

use super::item::{Item, MAX_VALUE_BYTES};
use super::keep::Output;
use super::spool::SpoolFile;
use super::task::{Ended, Outcome};
use crate::text::{printable, shortened};

/// An item with a final outcome.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) index: u64,
    /// `None`: unknown here.
    pub(super) item: Option<Item>,
    /// Number of attempts.
    pub(super) attempts: u32,
    pub(super) result: Result<Outcome, Lost>,
    /// The file of its outputs that are not in memory.
    pub(super) spool: Option<Rc<SpoolFile>>,
    /// Whether its failure was reported already.
    pub(super) reported: bool,
}

/// Why a command has no outcome.
#[derive(Debug)]
pub(super) enum Lost {
    /// Its worker or host was lost, or the outcome could not be received.
    Failed(Error),
    /// The item is too long for any command.
    TooLong,
}

impl Finished {
    /// Creates a finished item, and drops the block that its command has read.
    pub(super) fn new(index: u64, mut item: Option<Item>, attempts: u32, result: Result<Outcome, Lost>) -> Self {
        if let Some(item) = &mut item {
            item.take_content();
        }
        Self { index, item, attempts, result, spool: None, reported: false }
    }

    /// Returns stdout and stderr of its command.
    pub(super) fn outputs(&self) -> [&Output; 2] {
        const NONE: &Output = &Output::Held(Vec::new());
        self.result.as_ref().map_or([NONE, NONE], |outcome| [&outcome.stdout, &outcome.stderr])
    }

    /// Returns the size of its outputs in memory.
    pub(super) fn bytes(&self) -> usize {
        self.outputs().iter().map(|output| output.bytes()).sum()
    }

    /// Returns their size on disk.
    pub(super) fn spooled(&self) -> u64 {
        self.outputs().iter().map(|output| output.spooled()).sum()
    }

    pub(super) fn host(&self) -> Option<&str> {
        match &self.result {
            Ok(outcome) => Some(&outcome.host),
            Err(Lost::Failed(error)) => error.host(),
            Err(Lost::TooLong) => None,
        }
    }

    pub(super) fn took(&self) -> Option<Duration> {
        self.result.as_ref().ok().map(|outcome| outcome.took)
    }

    /// Returns why the item counts as failed, without its name.
    pub(super) fn reason(&self) -> Option<String> {
        match &self.result {
            Ok(outcome) => outcome.ended.failure(outcome.took),
            Err(Lost::Failed(error)) => Some(error.message().to_owned()),
            Err(Lost::TooLong) => {
                Some(format!("the item is longer than the {MAX_VALUE_BYTES} bytes that Linux allows"))
            }
        }
    }

    /// Returns the message about killed background processes, if any. `hosts`: name the host.
    pub(super) fn background_report(&self, hosts: bool) -> Option<String> {
        let killed = self.result.as_ref().map_or(&[][..], |outcome| &outcome.killed_background);
        if killed.is_empty() {
            return None;
        }
        let host = self.host().filter(|_| hosts);
        let host = host.map(|host| format!(" on host {}", shortened(host.as_bytes()))).unwrap_or_default();
        let what = shortened(killed.join(", ").as_bytes());
        Some(format!(
            "{} left processes in the background, which did not end in time and were killed{host}: {what}",
            self.name()
        ))
    }

    /// Returns the message about its failure, if it has failed. `hosts`: name the host, even after a single attempt.
    pub(super) fn failure(&self, hosts: bool) -> Option<String> {
        let reason = printable(self.reason()?.as_bytes());
        let host = self.host().filter(|_| hosts).map(|host| format!("host {}", shortened(host.as_bytes())));
        let attempts = match self.attempts {
            0 => Some("not run".to_owned()),
            1 => hosts.then(|| "1 attempt".to_owned()),
            more => Some(format!("{more} attempts")),
        };
        let known: Vec<String> = host.into_iter().chain(attempts).collect();
        let known = if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) };
        Some(format!("{}: {reason}{known}", self.name()))
    }

    fn name(&self) -> String {
        let number = self.index + 1;
        match &self.item {
            Some(item) if item.block.is_some() => format!("block {number}"),
            Some(item) => format!("item {number} \"{}\"", shortened(&item.name)),
            None => format!("item {number}"),
        }
    }
}

impl Ended {
    pub(super) fn is_success(&self) -> bool {
        *self == Self::Code(0)
    }

    fn failure(&self, took: Duration) -> Option<String> {
        match self {
            Self::Code(0) => None,
            Self::Code(code) => Some(format!("exit code {code}")),
            Self::Signal(number) => Some(match Signal::try_from(*number) {
                Ok(signal) => format!("killed by signal {number} ({signal})"),
                Err(_) => format!("killed by signal {number}"),
            }),
            Self::TimedOut => Some(format!("timed out and was killed after {}", units::format_rounded(took))),
            Self::TooMuchOutput => {
                Some("wrote more than 1 GiB and was killed: let it write to a file instead".to_owned())
            }
            Self::NotStarted(why) | Self::NotKept(why) => Some(why.clone()),
            Self::NotPrinted(error) => {
                Some(format!("its output cannot be printed: {}", io::Error::from_raw_os_error(*error)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::item::Value;
    use super::*;

    fn item(value: &[u8]) -> Item {
        Item::from(Value::from(value.to_vec()))
    }

    fn finished(ended: Ended) -> Finished {
        let outcome = Outcome {
            index: 2,
            ended,
            stdout: Output::Held(Vec::new()),
            stderr: Output::Held(Vec::new()),
            killed_background: Vec::new(),
            host: "node7".to_owned(),
            took: Duration::from_millis(1500),
        };
        Finished::new(2, Some(item(b"a b\n\x1b[31m\xff")), 3, Ok(outcome))
    }

    #[test]
    fn a_failure_names_item_reason_host_and_attempts() {
        let failure = |ended| finished(ended).failure(true).unwrap();
        let start = "item 3 \"a b\\n\\u{1b}[31m\u{fffd}\": ";
        let end = " (host node7, 3 attempts)";
        assert_eq!(failure(Ended::Code(2)), format!("{start}exit code 2{end}"));
        assert_eq!(failure(Ended::Signal(9)), format!("{start}killed by signal 9 (SIGKILL){end}"));
        assert_eq!(failure(Ended::Signal(99)), format!("{start}killed by signal 99{end}"));
        assert_eq!(failure(Ended::TimedOut), format!("{start}timed out and was killed after 1.5s{end}"));
        assert_eq!(finished(Ended::Code(0)).failure(true), None);
    }

    #[test]
    fn on_one_machine_a_single_attempt_is_not_mentioned() {
        let failed = |attempts| Finished { attempts, item: None, ..finished(Ended::Code(1)) };
        assert_eq!(failed(1).failure(false).unwrap(), "item 3: exit code 1");
        assert_eq!(failed(2).failure(false).unwrap(), "item 3: exit code 1 (2 attempts)");
        assert_eq!(failed(1).failure(true).unwrap(), "item 3: exit code 1 (host node7, 1 attempt)");
        let block = Finished { item: Some(Item::of_block(3, b"x".to_vec(), None)), ..failed(1) };
        assert_eq!(block.failure(false).unwrap(), "block 3: exit code 1");
    }

    #[test]
    fn long_items_are_shortened() {
        let long = Finished { item: Some(item("ä".repeat(300).as_bytes())), ..finished(Ended::Code(1)) };
        assert!(long.failure(true).unwrap().contains(&format!("\"{}...\"", "ä".repeat(200))));
        let unknown = Finished { item: None, ..finished(Ended::Code(1)) };
        assert_eq!(unknown.failure(true).unwrap(), "item 3: exit code 1 (host node7, 3 attempts)");
    }
}
