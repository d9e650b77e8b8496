//! Where outcomes go: stdout and stderr, the file of records, the progress bar; in the order that was asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::Path;

use super::MapError;
use super::finished::Finished;
use super::progress::Progress;
use super::records::Records;
use super::tag::Tag;

pub(super) struct Sink {
    ordered: bool,
    /// Index of the outcome that is written next, if they are ordered.
    next: u64,
    waiting: BTreeMap<u64, Finished>,
    /// What their outputs take up.
    waiting_bytes: usize,
    stdout: BufWriter<File>,
    tag: bool,
    records: Option<Records>,
    progress: Option<Progress>,
    written: u64,
    failed: u64,
}

impl Sink {
    /// `tag`: lines begin with their item. `records`: where the file of records is to be.
    pub(super) fn open(
        ordered: bool,
        tag: bool,
        records: Option<&Path>,
        progress: Option<Progress>,
    ) -> Result<Sink, MapError> {
        // Not std's stdout: that would write at each line's end.
        let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(|error| MapError::of_stdout(&error))?;
        let records = records.map(Records::create).transpose()?;
        Ok(Sink {
            ordered,
            next: 0,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            stdout: BufWriter::with_capacity(64 << 10, stdout.into()),
            tag,
            records,
            progress,
            written: 0,
            failed: 0,
        })
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

    /// Takes an outcome, and writes what can be written.
    pub(super) fn add(&mut self, finished: Finished) -> Result<(), MapError> {
        if !self.ordered {
            return self.write(&finished);
        }
        self.waiting_bytes += finished.bytes();
        self.waiting.insert(finished.index, finished);
        while let Some(finished) = self.waiting.remove(&self.next) {
            self.next += 1;
            self.waiting_bytes -= finished.bytes();
            self.write(&finished)?;
        }
        Ok(())
    }

    /// What the outcomes take up that wait for their turn.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whatever was written is to be seen now.
    pub(super) fn flush(&mut self) -> Result<(), MapError> {
        let Sink { stdout, records, progress, .. } = self;
        if !stdout.buffer().is_empty() {
            Progress::aside(progress.as_ref(), || stdout.flush()).map_err(|error| MapError::of_stdout(&error))?;
        }
        records.as_mut().map_or(Ok(()), Records::flush)
    }

    fn write(&mut self, finished: &Finished) -> Result<(), MapError> {
        let Sink { stdout, progress, tag, .. } = self;
        let tag = tag.then(|| Tag::new(finished.item.as_deref().unwrap_or_default()));
        let story = finished.failure();
        Progress::aside(progress.as_ref(), || {
            write_lines(stdout, finished.stdout(), tag.as_ref())?;
            if finished.stderr().is_empty() && story.is_none() {
                return Ok(());
            }
            // In the order in which they belong, should both go to one place.
            stdout.flush()?;
            let mut stderr = io::stderr().lock();
            // Without a reader there is nobody to tell.
            let _ = write_lines(&mut stderr, finished.stderr(), tag.as_ref());
            if let Some(story) = &story {
                let _ = writeln!(stderr, "farpool: {story}");
            }
            Ok(())
        })
        .map_err(|error| MapError::of_stdout(&error))?;
        if let Some(records) = &mut self.records {
            records.write(finished)?;
        }
        self.written += 1;
        self.failed += u64::from(story.is_some());
        if let Some(progress) = &self.progress {
            progress.note(self.written, self.failed);
        }
        Ok(())
    }
}

fn write_lines(out: &mut impl Write, bytes: &[u8], tag: Option<&Tag>) -> io::Result<()> {
    match tag {
        None => out.write_all(bytes),
        Some(tag) => tag.write(bytes, out),
    }
}
