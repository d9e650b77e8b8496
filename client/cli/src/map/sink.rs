//! Writes outcomes to stdout and stderr, the records and the progress bar, in the requested order.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;

use super::MapError;
use super::finished::Finished;
use super::keep::Output;
use super::progress::Progress;
use super::records::Records;
use super::spool::{Spool, SpoolFile};
use super::tag::Tag;
use crate::streams;

/// How outcomes are printed.
#[derive(Clone, Copy, Debug)]
pub(super) struct PrintOptions {
    /// In the order of the items.
    pub(super) ordered: bool,
    /// Lines are prefixed with their item.
    pub(super) tag: bool,
    /// Failures name their host.
    pub(super) hosts: bool,
}

pub(super) struct Sink {
    options: PrintOptions,
    /// Index of the next outcome to write, if ordered.
    next: u64,
    /// Indices without an outcome.
    skipped: BTreeSet<u64>,
    waiting: BTreeMap<u64, Finished>,
    /// The size of the waiting outputs in memory, and on disk.
    waiting_bytes: usize,
    waiting_spooled: u64,
    /// For large outputs that arrive in memory.
    spool: Spool,
    streams: Streams,
    records: Option<Records>,
    progress: Option<Progress>,
    written: u64,
    failed: u64,
}

/// Outputs from this size on wait on disk.
const SPOOL_FROM_BYTES: usize = 1 << 20;

impl Sink {
    pub(super) fn open(options: PrintOptions, records: Option<Records>, progress: Option<Progress>) -> Sink {
        Sink {
            options,
            next: 0,
            skipped: BTreeSet::new(),
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            waiting_spooled: 0,
            spool: Spool::new(),
            streams: Streams::new(),
            records,
            progress,
            written: 0,
            failed: 0,
        }
    }

    /// Skips these items: they have no outcomes.
    pub(super) fn skip(&mut self, indices: impl IntoIterator<Item = u64>) {
        self.skipped.extend(indices);
        self.advance();
    }

    /// Returns how many of the written items have failed.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    /// Returns the number of written outcomes.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Sets the total number of items, once the input has ended.
    pub(super) fn set_total(&mut self, items: u64) {
        if let Some(progress) = &self.progress {
            progress.set_total(items);
        }
    }

    /// Takes an outcome, and writes what can be written. `report_now`: a failure is reported at once.
    pub(super) fn add(&mut self, mut finished: Finished, report_now: bool) -> Result<(), MapError> {
        if let Some(records) = &mut self.records {
            records.write(&finished)?;
        }
        if !self.options.ordered || finished.index == self.next {
            self.write(&finished)?;
            self.next += 1;
            self.advance();
            while let Some(finished) = self.waiting.remove(&self.next) {
                self.waiting_bytes -= finished.bytes();
                self.waiting_spooled -= finished.spooled();
                self.write(&finished)?;
                self.next += 1;
                self.advance();
            }
            return Ok(());
        }
        if report_now && let Some(message) = finished.failure(self.options.hosts) {
            Progress::suspended(self.progress.as_ref(), || report(&message));
            finished.reported = true;
        }
        self.spool_large(&mut finished);
        self.waiting_bytes += finished.bytes();
        self.waiting_spooled += finished.spooled();
        self.waiting.insert(finished.index, finished);
        Ok(())
    }

    /// Returns the size in memory of outputs that wait for their turn.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Returns their size on disk.
    pub(super) fn waiting_spooled(&self) -> u64 {
        self.waiting_spooled
    }

    /// Flushes everything that was written.
    pub(super) fn flush(&mut self) -> Result<(), MapError> {
        let Sink { streams, records, progress, .. } = self;
        let printed = match streams.has_more() {
            true => {
                Progress::suspended(progress.as_ref(), || streams.flush()).map_err(|error| MapError::of_stdout(&error))
            }
            false => Ok(()),
        };
        // The records are flushed even if the output cannot be.
        let kept = records.as_mut().map_or(Ok(()), Records::flush);
        printed.and(kept)
    }

    /// Flushes and completes the records.
    pub(super) fn end(&mut self) -> Result<(), MapError> {
        self.flush()?;
        self.records.as_mut().map_or(Ok(()), Records::end)
    }

    /// Prints all waiting outputs, as far as possible, because the map was interrupted.
    pub(super) fn print_waiting(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting).into_values();
        let _ = waiting.try_for_each(|finished| self.write(&finished));
        let _ = self.flush();
    }

    fn advance(&mut self) {
        while self.skipped.remove(&self.next) {
            self.next += 1;
        }
    }

    /// Moves large outputs to disk while they wait. If that fails, they stay in memory.
    fn spool_large(&mut self, finished: &mut Finished) {
        let Ok(outcome) = &mut finished.result else { return };
        if finished.spool.is_some() {
            return;
        }
        let Ok(file) = self.spool.file() else { return };
        for output in [&mut outcome.stdout, &mut outcome.stderr] {
            if let Output::Held(bytes) = output
                && bytes.len() >= SPOOL_FROM_BYTES
                && let Ok(extents) = file.keep(bytes)
            {
                *output = Output::Spooled(extents);
                finished.spool = Some(std::rc::Rc::clone(&file));
            }
        }
    }

    fn write(&mut self, finished: &Finished) -> Result<(), MapError> {
        let Sink { streams, progress, options, .. } = self;
        let item = options.tag.then(|| finished.item.as_ref().map_or(&[][..], |item| &item.name));
        let failure = finished.failure(options.hosts);
        let message = failure.as_ref().filter(|_| !finished.reported);
        Progress::suspended(progress.as_ref(), || {
            let spool = finished.spool.as_deref();
            let [stdout, stderr] = finished.outputs();
            let lines: Vec<_> = finished.background_report(options.hosts).into_iter().chain(message.cloned()).collect();
            let mut printed = streams.print(stdout, spool, item);
            // Keeps the order if both go to the same file.
            if !stderr.is_empty() || !lines.is_empty() {
                printed = printed.and_then(|()| streams.flush());
            }
            printed.map_err(|error| MapError::of_stdout(&error))?;
            if !stderr.is_empty() {
                print_to_stderr(stderr, spool, item).map_err(|error| MapError::of_stderr(&error))?;
            }
            lines.iter().for_each(|line| report(line));
            Ok::<(), MapError>(())
        })?;
        self.written += 1;
        self.failed += u64::from(failure.is_some());
        if let Some(progress) = &self.progress {
            progress.note(self.written, self.failed);
        }
        Ok(())
    }
}

/// Prints a message of farpool to stderr.
fn report(line: &str) {
    // Errors are ignored: there is nowhere to report them.
    let _ = writeln!(io::stderr(), "farpool: {line}");
}

/// The stdout that items print to.
struct Streams {
    /// Not std's stdout, which would flush at each line. `None` until something is written.
    stdout: Option<BufWriter<File>>,
}

impl Streams {
    fn new() -> Streams {
        Streams { stdout: None }
    }

    fn has_more(&self) -> bool {
        self.stdout.as_ref().is_some_and(|stdout| !stdout.buffer().is_empty())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.as_mut().map_or(Ok(()), BufWriter::flush)
    }

    fn print(&mut self, output: &Output, spool: Option<&SpoolFile>, item: Option<&[u8]>) -> io::Result<()> {
        if output.is_empty() {
            return Ok(());
        }
        let stdout = match &mut self.stdout {
            Some(stdout) => stdout,
            none => none.insert(BufWriter::with_capacity(64 << 10, streams::stdout()?)),
        };
        print(output, spool, item, stdout)
    }
}

/// Prints an output to stderr.
fn print_to_stderr(output: &Output, spool: Option<&SpoolFile>, item: Option<&[u8]>) -> io::Result<()> {
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let mut stderr = BufWriter::with_capacity(64 << 10, stderr);
    let printed = print(output, spool, item, &mut stderr).and_then(|()| stderr.flush());
    // Dropping the writer would retry the write.
    drop(stderr.into_parts());
    printed
}

/// Prints an output, each line prefixed with the item if it is given.
fn print(output: &Output, spool: Option<&SpoolFile>, item: Option<&[u8]>, to: &mut BufWriter<File>) -> io::Result<()> {
    let mut tag = item.map(Tag::new);
    match output {
        Output::Held(bytes) => match &mut tag {
            Some(tag) => tag.write(bytes, to)?,
            None => to.write_all(bytes)?,
        },
        Output::Spooled(extents) => {
            let file = spool.ok_or_else(|| io::Error::other("an output refers to an unknown file"))?;
            for &extent in extents {
                match &mut tag {
                    Some(tag) => file.read(extent, |bytes| tag.write(bytes, to))?,
                    None => {
                        to.flush()?;
                        file.send(extent, to.get_ref())?;
                    }
                }
            }
        }
    }
    tag.map_or(Ok(()), |mut tag| tag.end(to))
}
