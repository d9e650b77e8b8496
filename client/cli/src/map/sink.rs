//! Where outcomes go: stdout and stderr, the file of records, the progress bar; in the order that was asked for.

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

/// How outcomes are shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// In the order of the items.
    pub(super) ordered: bool,
    /// Lines begin with their item.
    pub(super) tag: bool,
    /// Failures name their hosts.
    pub(super) hosts: bool,
}

pub(super) struct Sink {
    look: Look,
    /// Index of the outcome that is written next, if they are ordered.
    next: u64,
    /// Indices for which none comes.
    passed_over: BTreeSet<u64>,
    waiting: BTreeMap<u64, Finished>,
    /// What their outputs take up in memory, and on disk.
    waiting_bytes: usize,
    waiting_spooled: u64,
    /// For large ones that came in memory.
    spool: Spool,
    streams: Streams,
    records: Option<Records>,
    progress: Option<Progress>,
    written: u64,
    failed: u64,
}

/// Outputs of this size and more are not held in memory while they wait.
const LARGE: usize = 1 << 20;

impl Sink {
    pub(super) fn open(look: Look, records: Option<Records>, progress: Option<Progress>) -> Sink {
        Sink {
            look,
            next: 0,
            passed_over: BTreeSet::new(),
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

    /// No outcomes come of these items.
    pub(super) fn pass_over(&mut self, indices: impl IntoIterator<Item = u64>) {
        self.passed_over.extend(indices);
        self.move_on();
    }

    /// Items that have failed so far, of those that are written.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    /// Outcomes that are written.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// The input has ended: so many items were read.
    pub(super) fn set_total(&mut self, items: u64) {
        if let Some(progress) = &self.progress {
            progress.set_total(items);
        }
    }

    /// Takes an outcome, and writes what can be written. `tell`: a failure is told at once.
    pub(super) fn add(&mut self, mut finished: Finished, tell: bool) -> Result<(), MapError> {
        if let Some(records) = &mut self.records {
            records.write(&finished)?;
        }
        if !self.look.ordered || finished.index == self.next {
            self.write(&finished)?;
            self.next += 1;
            self.move_on();
            while let Some(finished) = self.waiting.remove(&self.next) {
                self.waiting_bytes -= finished.bytes();
                self.waiting_spooled -= finished.spooled();
                self.write(&finished)?;
                self.next += 1;
                self.move_on();
            }
            return Ok(());
        }
        if tell && let Some(story) = finished.failure(self.look.hosts) {
            Progress::aside(self.progress.as_ref(), || complain(&story));
            finished.told = true;
        }
        self.put_away(&mut finished);
        self.waiting_bytes += finished.bytes();
        self.waiting_spooled += finished.spooled();
        self.waiting.insert(finished.index, finished);
        Ok(())
    }

    /// What the outcomes take up in memory that wait for their turn.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// The same on disk.
    pub(super) fn waiting_spooled(&self) -> u64 {
        self.waiting_spooled
    }

    /// Whatever was written is to be seen now.
    pub(super) fn flush(&mut self) -> Result<(), MapError> {
        let Sink { streams, records, progress, .. } = self;
        let printed = match streams.has_more() {
            true => Progress::aside(progress.as_ref(), || streams.flush()).map_err(|error| MapError::of_stdout(&error)),
            false => Ok(()),
        };
        // What has finished has, whoever reads it.
        let kept = records.as_mut().map_or(Ok(()), Records::flush);
        printed.and(kept)
    }

    /// That was all.
    pub(super) fn end(&mut self) -> Result<(), MapError> {
        self.flush()?;
        self.records.as_mut().map_or(Ok(()), Records::end)
    }

    /// Prints what waits for its turn, since that will not come; as far as it can be printed.
    pub(super) fn print_waiting(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting).into_values();
        let _ = waiting.try_for_each(|finished| self.write(&finished));
        let _ = self.flush();
    }

    fn move_on(&mut self) {
        while self.passed_over.remove(&self.next) {
            self.next += 1;
        }
    }

    /// Large outputs wait on disk. Where there is no room for them they stay in memory: they are here already.
    fn put_away(&mut self, finished: &mut Finished) {
        let Ok(outcome) = &mut finished.result else { return };
        if finished.spool.is_some() {
            return;
        }
        let Ok(file) = self.spool.file() else { return };
        for output in [&mut outcome.stdout, &mut outcome.stderr] {
            if let Output::Held(bytes) = output
                && bytes.len() >= LARGE
                && let Ok(extents) = file.keep(bytes)
            {
                *output = Output::Spooled(extents);
                finished.spool = Some(std::rc::Rc::clone(&file));
            }
        }
    }

    fn write(&mut self, finished: &Finished) -> Result<(), MapError> {
        let Sink { streams, progress, look, .. } = self;
        let item = look.tag.then(|| finished.item.as_ref().map_or(&[][..], |item| &item.name));
        let failure = finished.failure(look.hosts);
        let story = failure.as_ref().filter(|_| !finished.told);
        Progress::aside(progress.as_ref(), || {
            let spool = finished.spool.as_deref();
            let [stdout, stderr] = finished.outputs();
            let lines: Vec<_> = finished.left_behind(look.hosts).into_iter().chain(story.cloned()).collect();
            let mut printed = streams.print(stdout, spool, item);
            // In the order in which they belong, should both go to one place.
            if !stderr.is_empty() || !lines.is_empty() {
                printed = printed.and_then(|()| streams.flush());
            }
            printed.map_err(|error| MapError::of_stdout(&error))?;
            if !stderr.is_empty() {
                print_aside(stderr, spool, item).map_err(|error| MapError::of_stderr(&error))?;
            }
            lines.iter().for_each(|line| complain(line));
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

/// Tells something of farpool's own on stderr.
fn complain(line: &str) {
    // Without a reader there is nobody to tell.
    let _ = writeln!(io::stderr(), "farpool: {line}");
}

/// stdout and stderr, as items print to them.
struct Streams {
    /// Not std's stdout: that would write at each line's end. None before anything is written.
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

/// On stderr.
fn print_aside(output: &Output, spool: Option<&SpoolFile>, item: Option<&[u8]>) -> io::Result<()> {
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let mut stderr = BufWriter::with_capacity(64 << 10, stderr);
    let printed = print(output, spool, item, &mut stderr).and_then(|()| stderr.flush());
    // What cannot be written is not tried again at its end.
    drop(stderr.into_parts());
    printed
}

/// Prints an output; with its item in front of each line if it is given.
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
