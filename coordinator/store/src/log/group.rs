//! Batches that are written and made durable together, as steps that are done one by one.
//!
//! If a step fails, all steps that are not known to be durable are repeated: the system may have dropped what it could
//! not write, and a later sync would not report that. What is durable is not written again. Only the last segment is
//! ever created again: any other one without its records would count as damaged. A segment is removed only after the
//! statements in its records have been written again.
//!
//! Between two attempts a record can be withdrawn ([`Group::withdraw`]): it is never found again, even if the computer
//! crashes at any time. First, what attempts have written beyond the durable part is cut off, durably. From then on the
//! record is nowhere on the disk, and a filler is written in its place.
//!
//! The items of a refused job are left out too ([`Group::leave_out_refused`]): they may be what has filled the disk.
//! Durable ones are cut off as well, as long as nothing else follows them. This makes room for the record that
//! forgets the job, and for others.

use std::io::{self, IoSlice};

use farpool_proto::v1::JournalRecord;
use farpool_proto::v1::journal_record::{Body, Filler};
use prost::Message;

use super::batch::{Step, add_hole};
use super::left_out::{LeftOut, Refused, forgets};
use super::location::RecordLocation;
use super::queued::QueuedBatch;
use super::reader::{NotRead, whole};
use super::record::{Checksum, HEADER, checksum, header_at};
use super::segment::{SEGMENT_HEADER, header};
use super::source::Source;
use super::storage::Storage;

/// About how many bytes are written before a sync, even if more are waiting: callers wait for the first ones.
const AT_ONCE: u64 = 32 << 20;

#[derive(Debug)]
pub(super) struct Group {
    /// Removals of segments go last.
    steps: Vec<Step>,
    /// Where the next attempt begins: the steps before are durable.
    from: usize,
    /// Steps whose record could not be copied, and why.
    unreadable: Vec<(usize, RecordLocation, String)>,
    /// Segments that were set aside, and their new names.
    set_aside: Vec<(u32, String)>,
    /// Records to withdraw that could not be withdrawn yet.
    withdrawals: Vec<Withdrawal>,
    /// The version of the refused jobs that was left out: see [`Refused::version`].
    refused: u64,
    /// The jobs that its records forget; collected only while there are refused jobs.
    forgets: Vec<u64>,
    /// What is durable when the group is.
    pub(super) number: u64,
}

/// A record to withdraw, by its number and location.
#[derive(Clone, Copy, Debug)]
pub(super) struct Withdrawal {
    pub(super) number: u64,
    pub(super) location: RecordLocation,
}

impl Group {
    /// Gathers a first batch and all waiting ones, up to a bound, without the records to leave out.
    pub(super) fn gather(
        first: QueuedBatch,
        left_out: &mut LeftOut,
        mut next: impl FnMut() -> Option<QueuedBatch>,
    ) -> Self {
        let (mut steps, mut removals, mut bytes, mut last) = (Vec::new(), Vec::new(), 0, 0);
        let mut queued = Some(first);
        while let Some(QueuedBatch { mut batch, number }) = queued {
            batch.seal();
            bytes += batch.bytes;
            last = number;
            let (go, rest): (Vec<_>, Vec<_>) =
                batch.steps.into_iter().partition(|step| matches!(step, Step::Remove(_) | Step::SetAside(_)));
            steps.extend(rest);
            removals.extend(go);
            queued = if bytes < AT_ONCE { next() } else { None };
        }
        steps.append(&mut removals);
        let (unreadable, set_aside, withdrawals) = (Vec::new(), Vec::new(), Vec::new());
        let mut group =
            Self { steps, from: 0, unreadable, set_aside, withdrawals, refused: 0, forgets: Vec::new(), number: last };
        left_out.withdrawn.retain(|location| !group.leave_out(*location));
        if !left_out.refused.is_empty() {
            group.leave_out_items(&left_out.refused);
        }
        group
    }

    /// Leaves out the items of refused jobs after a failed attempt; returns whether another attempt may succeed.
    /// Durable ones are cut off as far as nothing else follows them.
    pub(super) fn leave_out_refused(&mut self, storage: &dyn Storage, refused: &Refused) -> bool {
        if refused.is_empty() || self.refused == refused.version {
            return false;
        }
        // Otherwise the holes would contain bytes that were written already.
        if self.cut_back(storage).is_err() {
            return false;
        }
        self.refused = refused.version;
        let hole = self.cut_durable(storage, refused).ok().flatten();
        let changed = self.leave_out_items(refused);
        if let Some(location) = hole {
            let behind = self.steps.split_off(self.from);
            add_hole(&mut self.steps, location);
            // It joins the hole that follows it directly.
            behind.into_iter().for_each(|step| add(&mut self.steps, step));
        }
        changed || hole.is_some()
    }

    /// Replaces unneeded items by holes; returns whether there are any.
    fn leave_out_items(&mut self, refused: &Refused) -> bool {
        let mut changed = false;
        for step in self.steps.split_off(self.from) {
            let Step::Write(chunk) = step else {
                add(&mut self.steps, step);
                continue;
            };
            let left = chunk.without(|body| {
                let is_unwanted = refused.is_unwanted(body);
                self.forgets.extend(forgets(body));
                changed |= is_unwanted;
                is_unwanted
            });
            left.into_iter().for_each(|step| add(&mut self.steps, step));
        }
        changed
    }

    /// Cuts off unneeded items at the end of the durable part, and returns the location that is missing then. If the
    /// computer crashes before anything else is written, refused jobs have fewer items.
    fn cut_durable(&self, storage: &dyn Storage, refused: &Refused) -> io::Result<Option<RecordLocation>> {
        let Some((segment, end)) = self.begins() else { return Ok(None) };
        let mut source = Source::new(storage, segment)?;
        let (mut at, mut wanted, mut found) = (SEGMENT_HEADER as u64, SEGMENT_HEADER as u64, false);
        while at < end.into() {
            // Damaged parts are not changed.
            let Ok((body, location)) = source.record(at)? else { return Ok(None) };
            at = location.end();
            if refused.is_unwanted(&body) {
                found = true;
            } else if !matches!(body, Body::Filler(_)) {
                (wanted, found) = (at, false);
            }
        }
        if !found || at != end.into() {
            return Ok(None);
        }
        // Otherwise the cut part would look like damage.
        storage.lower_synced(segment, wanted)?;
        storage.truncate(segment, wanted)?;
        let offset = wanted as u32;
        Ok(Some(RecordLocation { segment, offset, length: end - offset }))
    }

    /// Returns the segment and offset where the part that is not durable begins; `None`: in a new segment, or nowhere.
    fn begins(&self) -> Option<(u32, u32)> {
        match self.steps.get(self.from)? {
            Step::Write(chunk) => Some((chunk.segment, chunk.offset)),
            Step::Hole(location) | Step::Copy { to: location, .. } => Some((location.segment, location.offset)),
            Step::Create(_) | Step::Remove(_) | Step::SetAside(_) => None,
        }
    }

    pub(super) fn attempt(&mut self) -> Attempt<'_> {
        self.unreadable.retain(|(step, ..)| *step < self.from);
        Attempt { next: self.from, group: self, written: None, end: None }
    }

    /// Withdraws these and earlier records after a failed attempt; returns those that are withdrawn. If what was
    /// written cannot be cut off, this is retried after the next attempt. What is durable stays.
    pub(super) fn withdraw(
        &mut self,
        storage: &dyn Storage,
        withdrawals: Vec<Withdrawal>,
        later: &mut Vec<RecordLocation>,
    ) -> Vec<RecordLocation> {
        self.withdrawals.extend(withdrawals);
        if self.withdrawals.is_empty() || self.cut_back(storage).is_err() {
            return Vec::new();
        }
        let mut withdrawn = Vec::new();
        for Withdrawal { number, location } in std::mem::take(&mut self.withdrawals) {
            if number > self.number {
                later.push(location);
                withdrawn.push(location);
            } else if self.leave_out(location) {
                withdrawn.push(location);
            }
        }
        withdrawn
    }

    /// Cuts off what was written and is not durable. All of it is in one segment.
    fn cut_back(&self, storage: &dyn Storage) -> io::Result<()> {
        let (segment, end) = match (self.steps.get(self.from), self.begins()) {
            (Some(Step::Create(segment)), _) => (*segment, 0),
            (_, Some(begins)) => begins,
            _ => return Ok(()),
        };
        match storage.truncate(segment, end.into()) {
            // The segment could not even be created.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            cut => cut,
        }
    }

    /// Replaces a record that is still to be written by a filler.
    fn leave_out(&mut self, location: RecordLocation) -> bool {
        let filler = filler(location);
        self.steps[self.from..].iter_mut().any(|step| match step {
            Step::Write(chunk) => chunk.leave_out(location, &filler),
            _ => false,
        })
    }

    /// Returns the jobs that its records forget, if there were refused jobs.
    pub(super) fn forgets(&self) -> &[u64] {
        &self.forgets
    }

    /// Returns segments that were set aside, and their new names.
    pub(super) fn take_set_aside(&mut self) -> Vec<(u32, String)> {
        std::mem::take(&mut self.set_aside)
    }

    /// Returns what could not be copied, and why.
    pub(super) fn take_unreadable(&mut self) -> impl Iterator<Item = (RecordLocation, String)> {
        std::mem::take(&mut self.unreadable).into_iter().map(|(_, location, why)| (location, why))
    }
}

/// One attempt to write a group.
pub(super) struct Attempt<'a> {
    group: &'a mut Group,
    next: usize,
    /// The segment that was written to and is not durable.
    written: Option<u32>,
    /// The segment and byte after which nothing was written.
    end: Option<(u32, u64)>,
}

impl Attempt<'_> {
    /// Does the next step; returns whether there was one.
    pub(super) fn step(&mut self, storage: &dyn Storage) -> io::Result<bool> {
        let Self { group: Group { steps, from, unreadable, set_aside, .. }, next, written, end } = self;
        match steps.get(*next) {
            Some(Step::Create(segment)) => {
                // A segment counts only if everything before it does.
                sync(written, storage)?;
                *from = *next;
                storage.create(*segment)?;
                storage.write(*segment, 0, &mut [IoSlice::new(&header(*segment))])?;
                (*written, *end) = (Some(*segment), Some((*segment, SEGMENT_HEADER as u64)));
            }
            Some(Step::Write(chunk)) => {
                storage.write(chunk.segment, chunk.offset.into(), &mut chunk.slices())?;
                let behind = u64::from(chunk.offset) + chunk.length;
                (*written, *end) = (Some(chunk.segment), Some((chunk.segment, behind)));
            }
            Some(Step::Hole(location)) => {
                storage.write(location.segment, location.offset.into(), &mut [IoSlice::new(&hole(*location))])?;
                storage.extend(location.segment, location.end())?;
                (*written, *end) = (Some(location.segment), Some((location.segment, location.end())));
            }
            Some(Step::Copy { from: location, to }) => {
                let record = copy(storage, *location, *to).unwrap_or_else(|error| {
                    unreadable.push((*next, *location, error.to_string()));
                    filler(*to)
                });
                storage.write(to.segment, to.offset.into(), &mut [IoSlice::new(&record)])?;
                (*written, *end) = (Some(to.segment), Some((to.segment, to.end())));
            }
            Some(Step::Remove(_) | Step::SetAside(_)) | None if written.is_some() => {
                sync(written, storage)?;
                *from = *next;
                return Ok(true);
            }
            Some(Step::Remove(segment)) => {
                move_note_past(storage, *segment);
                storage.remove(*segment)?;
                *from = *next + 1;
            }
            Some(Step::SetAside(segment)) => {
                move_note_past(storage, *segment);
                set_aside.push((*segment, storage.set_aside(*segment)?));
                *from = *next + 1;
            }
            None => {
                if let Some((segment, end)) = end.take() {
                    storage.note_synced(segment, end);
                }
                return Ok(false);
            }
        }
        *next += 1;
        Ok(true)
    }
}

/// Moves the note of what is durable past a segment that is about to be removed, so that the segment does not count as
/// missing. As long as it is there, all of it counts as durable: it may say that jobs were discarded.
fn move_note_past(storage: &dyn Storage, segment: u32) {
    if storage.synced().is_some_and(|(noted, _)| noted == segment) {
        storage.note_synced(segment + 1, 0);
    }
}

fn sync(written: &mut Option<u32>, storage: &dyn Storage) -> io::Result<()> {
    written.take().map_or(Ok(()), |segment| storage.sync(segment))
}

/// Returns a record as it must be at another location.
fn copy(storage: &dyn Storage, from: RecordLocation, to: RecordLocation) -> Result<Vec<u8>, NotRead> {
    let (record, _) = whole(storage, from)?;
    Ok(seal(record, to))
}

/// Adds a step at the end.
fn add(steps: &mut Vec<Step>, step: Step) {
    match step {
        Step::Hole(location) => add_hole(steps, location),
        step => steps.push(step),
    }
}

/// Returns the filler for a location that has no record: something must be there.
fn filler(to: RecordLocation) -> Vec<u8> {
    let mut record = filler_head(to);
    record.resize(to.length as usize, 0);
    seal(record, to)
}

/// Returns a filler without the zeros at its end.
fn hole(at: RecordLocation) -> Vec<u8> {
    let mut record = filler_head(at);
    let header = record.first_chunk().expect("the record has no header");
    let mut sum = Checksum::new(at.segment, at.offset, header);
    sum.add(&record[HEADER..]);
    let (zeros, mut left) = ([0; 4 << 10], at.length as usize - record.len());
    while left > 0 {
        let some = left.min(zeros.len());
        sum.add(&zeros[..some]);
        left -= some;
    }
    record[..8].copy_from_slice(&sum.end());
    record
}

fn filler_head(to: RecordLocation) -> Vec<u8> {
    let mut record = vec![0; HEADER];
    let head = JournalRecord { body: Some(Body::Filler(Filler {})) }.encode(&mut record);
    head.expect("the vector is full");
    let head = (record.len() - HEADER) as u32;
    record[8..12].copy_from_slice(&(to.length - HEADER as u32).to_le_bytes());
    record[12..HEADER].copy_from_slice(&head.to_le_bytes());
    record
}

/// Gives a whole record the checksum for a location.
fn seal(mut record: Vec<u8>, at: RecordLocation) -> Vec<u8> {
    let header: [u8; HEADER] = record[..HEADER].try_into().expect("the record has no header");
    record[..HEADER].copy_from_slice(&header_at(at.segment, at.offset, &header));
    let sum = checksum(&record);
    record[..8].copy_from_slice(&sum);
    record
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::super::batch::Batch;
    use super::super::simulated::Done::{Create, Remove, Sync, Write};
    use super::super::simulated::{Done, Simulated};
    use super::*;

    /// Takes these steps on a disk with two segments. The first operation that `fails` selects fails, and all later
    /// ones succeed.
    fn done(steps: Vec<Step>, fails: impl Fn(&Done) -> bool + Send + 'static) -> Vec<Done> {
        let disk = Simulated::new([(1, vec![7]), (2, vec![7])].into());
        let mut group =
            Group::gather(QueuedBatch { batch: Batch { steps, bytes: 0 }, number: 9 }, &mut LeftOut::default(), || {
                None
            });
        let mut failures = 1;
        disk.fail(Some(Box::new(move |done| {
            let fails = failures > 0 && fails(done);
            failures -= u32::from(fails);
            fails.then(|| (ErrorKind::Other.into(), 0))
        })));
        for ends_well in [false, true] {
            let mut attempt = group.attempt();
            let ended = loop {
                match attempt.step(&disk) {
                    Ok(true) => {}
                    Ok(false) => break true,
                    Err(_) => break false,
                }
            };
            assert_eq!(ended, ends_well);
        }
        disk.done()
    }

    #[test]
    fn nothing_is_rewritten_when_segments_are_removed() {
        let steps = vec![Step::Remove(1), Step::Create(3), Step::Remove(2)];
        let done = done(steps, |done| matches!(done, Remove(2)));
        assert!(matches!(done[..], [Create(3), Write(3, ..), Sync(3), Remove(1), Remove(2)]), "{done:?}");
    }

    #[test]
    fn only_the_last_segment_is_recreated() {
        let done = done(vec![Step::Create(3), Step::Create(4)], |done| matches!(done, Sync(4)));
        let again = [Create(3), Sync(3), Create(4), Create(4), Sync(4)];
        let told: Vec<_> = done.iter().filter(|done| !matches!(done, Write(..))).collect();
        assert_eq!(format!("{told:?}"), format!("{again:?}"));
    }
}
