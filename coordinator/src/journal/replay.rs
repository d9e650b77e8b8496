//! Reads the log when a journal is opened, up to the first record that is none.
//!
//! **The last segment** may be cut off anywhere, or have a record in it that was not written to the end: it is cut off
//! in front of the first bad record, and goes on from there. Nothing that was durable is behind a record that was
//! not.
//!
//! **An older segment** was durable as a whole before the next one was made, so a bad record in it is damage, and where the
//! next record begins is not known. What is missing may be that a job was forgotten, or that items have outcomes: going on
//! could run items again, or deliver twice. So it is safe only if nobody wants anything of what the segment had, and its
//! seal says whose records these were. If all these jobs have been forgotten the segment is passed over; otherwise the
//! journal is not opened, and the error names the file and the jobs.

use std::collections::BTreeSet;
use std::io;

use farpool_proto::v1::journal_record::{Body, Sealed};

use super::error::{JournalError, JournalErrorKind};
use super::index::Index;
use super::job::Job;
use super::segment::{FORMAT, Header, SEGMENT_HEADER};
use super::source::Source;
use super::storage::Storage;

/// Where the log goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// The last segment; 0: there is none.
    pub(super) segment: u32,
    pub(super) offset: u64,
    /// Nothing more goes into it, whatever its size.
    pub(super) closed: bool,
}

/// A segment that cannot be read to its end.
#[derive(Debug)]
struct Damage {
    /// Which, from where on, and why.
    what: String,
    seal: Option<Sealed>,
}

/// Reads the whole log into an index, and cuts off what was not written to its end.
pub(super) fn replay(storage: &dyn Storage, warn: &mut dyn FnMut(String)) -> Result<(Index, End), JournalError> {
    let mut replay = Replay { storage, index: Index::default(), forgotten: BTreeSet::new(), damages: Vec::new() };
    let mut end = End::default();
    let segments = storage.segments();
    for &segment in &segments {
        let last = Some(&segment) == segments.last();
        let failed = |error: io::Error| {
            let name = storage.name(segment);
            JournalError::new(JournalErrorKind::Io, format_args!("reading the journal's segment {name}: {error}"))
        };
        if let Some(read) = replay.segment(segment, last, warn).map_err(failed)?? {
            end = read;
        }
    }
    replay.judge(warn)?;
    Ok((replay.index, end))
}

struct Replay<'a> {
    storage: &'a dyn Storage,
    index: Index,
    /// Jobs that somewhere are said to be forgotten.
    forgotten: BTreeSet<u64>,
    damages: Vec<Damage>,
}

impl Replay<'_> {
    /// Reads a segment, and says where it ends; none: it was removed.
    fn segment(
        &mut self,
        segment: u32,
        last: bool,
        warn: &mut dyn FnMut(String),
    ) -> io::Result<Result<Option<End>, JournalError>> {
        let name = self.storage.name(segment);
        let mut source = Source::new(self.storage, segment)?;
        let mut end = End { segment, offset: 0, closed: false };
        let bad = match source.header()? {
            Header::Sound => {
                self.index.segments.begin(segment);
                end.offset = SEGMENT_HEADER as u64;
                self.records(&mut source, &mut end)?
            }
            Header::Newer(format) => {
                let message = format_args!(
                    "{name} is of format {format}, and this version knows none above {FORMAT}: run the coordinator that \
                     wrote it, or give this one another journal"
                );
                return Ok(Err(JournalError::new(JournalErrorKind::Newer, message)));
            }
            Header::Bad(_) if last => {
                // The segment was just being made.
                warn(format!("{name} has no whole header: it is removed, with {} bytes", source.length()));
                self.storage.remove(segment)?;
                return Ok(Ok(None));
            }
            Header::Bad(reason) => {
                self.index.segments.begin(segment);
                Some(reason.to_owned())
            }
        };
        let Some(reason) = bad else { return Ok(Ok(Some(end))) };
        let lost = source.length() - end.offset;
        let what = format!("{name} cannot be read from byte {} on: {reason}", end.offset);
        if last {
            warn(format!("{what}. It is cut off there: {lost} bytes go"));
            self.storage.truncate(segment, end.offset)?;
        } else {
            self.damages.push(Damage { what, seal: source.seal()? });
            self.index.segments.add_unread(segment, lost);
            end.closed = true;
        }
        Ok(Ok(Some(end)))
    }

    /// Takes in records up to the first one that is none; says why it is none, unless the segment ends there.
    fn records(&mut self, source: &mut Source<'_>, end: &mut End) -> io::Result<Option<String>> {
        while end.offset < source.length() {
            let (body, place) = match source.record(end.offset)? {
                Ok(record) => record,
                Err(reason) => return Ok(Some(reason)),
            };
            if let Some(misfit) = self.index.misfit(&body) {
                return Ok(Some(misfit));
            }
            if let Body::JobForgotten(forgotten) = &body {
                self.forgotten.insert(forgotten.job);
            }
            self.index.take_in(&body, place);
            end.offset = place.end();
            end.closed = matches!(body, Body::Sealed(_));
        }
        Ok(None)
    }

    /// Whether what could not be read is wanted.
    fn judge(&self, warn: &mut dyn FnMut(String)) -> Result<(), JournalError> {
        for Damage { what, seal } in &self.damages {
            let wanted = match seal {
                Some(seal) => self.wanted(seal),
                None => vec!["jobs that cannot be told".to_owned()],
            };
            if !wanted.is_empty() {
                const SHOWN: usize = 10;
                let more = if wanted.len() > SHOWN { " and others" } else { "" };
                let message = format_args!(
                    "{what}. It has records of {}{more}. To go on without them, which may run items of these jobs again \
                     or lose them, move the file away",
                    wanted[..wanted.len().min(SHOWN)].join(", ")
                );
                return Err(JournalError::new(JournalErrorKind::Damaged, message));
            }
            warn(format!("{what}. All jobs that it has records of were forgotten: it is passed over"));
        }
        Ok(())
    }

    /// Jobs of which something is missing with the segment that has this seal.
    fn wanted(&self, seal: &Sealed) -> Vec<String> {
        let jobs = &self.index.jobs;
        // That a job is not there does not mean that it was forgotten: all of it may have been here.
        let there = seal.jobs.iter().filter(|job| !self.forgotten.contains(job));
        let back = seal.forgotten.iter().filter(|job| jobs.contains_key(job));
        let pool = |pool: u64| self.index.pools.get(&pool).is_some_and(|pool| pool.opened.is_some());
        let without = jobs.values().filter(|job| seal.pools.contains(&job.pool) && !pool(job.pool));
        let numbers: BTreeSet<u64> = there.chain(back).copied().chain(without.map(|job| job.number)).collect();
        let name = |number| match jobs.get(&number).map(Job::name) {
            None | Some("") => format!("job {number}"),
            Some(name) => format!("job {name:?}"),
        };
        numbers.into_iter().map(name).collect()
    }
}
