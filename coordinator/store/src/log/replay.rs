//! Reads the log when a journal is opened.
//!
//! **Interrupted writes** of a crashed computer follow everything durable, at the end of the last segment. They
//! are cut off before the first record that is not whole, and the log continues from there. If they are not the
//! beginning of a record, they are first copied into a file beside the segment.
//!
//! **Durable bytes** that cannot be read are damage: in an older segment, or before the position in the `synced` note
//! (without a note: before another whole record). All whole records after them are read. The segment is closed,
//! emptied like one with too little live data, and set aside when its needed records have been copied. What is missing
//! is reported job by job (`repair.rs`).
//!
//! **A missing segment** that the note names is damage too: its contents are unknown. The log continues after it, in a
//! new segment. The note stays as it is until then: as long as nothing is written, each start reports it.
//!
//! A file of another version, or with another segment's number, is refused, and nothing is changed.

use std::collections::BTreeSet;
use std::io;

use farpool_common::units::ByteSize;
use farpool_proto::v1::journal_record::{Body, JobOpened};

use super::damage::Damage;
use super::index::{Index, key_of};
use super::location::RecordLocation;
use super::resync::{is_torn_record, next_whole};
use super::segment::{FORMAT, Header, SEGMENT_HEADER};
use super::source::Source;
use super::storage::Storage;
use crate::error::{JobStoreError, JobStoreErrorKind};

/// Where the log continues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// The last segment; 0: there is none.
    pub(super) segment: u32,
    pub(super) offset: u64,
    /// Whether nothing more is written to it, whatever its size.
    pub(super) closed: bool,
}

/// The result of reading the log.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    pub(super) index: Index,
    pub(super) end: End,
    pub(super) damages: Vec<Damage>,
    /// Jobs that must have been discarded, although the record of that may be missing.
    pub(super) discarded: BTreeSet<u64>,
}

/// Reads the whole log, and cuts off interrupted writes.
pub(super) fn replay(storage: &dyn Storage, warn: &mut dyn FnMut(String)) -> Result<Replayed, JobStoreError> {
    let mut segments = storage.segments();
    let failed = |segment: u32, error: io::Error| {
        let name = storage.name(segment);
        JobStoreError::new(JobStoreErrorKind::Io, format_args!("reading the journal's segment {name}: {error}"))
    };
    for &segment in &segments {
        check_header(storage, segment).map_err(|error| failed(segment, error))??;
    }
    let mut replay = Replay { storage, replayed: Replayed::default() };
    let missing = missing(storage, segments.last().copied().unwrap_or(0));
    while let Some(&last) = segments.last()
        && replay.drop_if_empty(last, warn).map_err(|error| failed(last, error))?
    {
        segments.pop();
    }
    for &segment in &segments {
        let last = Some(&segment) == segments.last() && missing.is_none();
        if let Some(end) = replay.segment(segment, last, warn).map_err(|error| failed(segment, error))? {
            replay.replayed.end = end;
        }
    }
    let mut replayed = replay.replayed;
    if let Some((segment, bytes)) = missing {
        let damage = Damage::missing(storage.name(segment), bytes);
        warn(damage.to_string());
        replayed.damages.push(damage);
        replayed.end = End { segment, offset: 0, closed: true };
        return Ok(replayed);
    }
    let End { segment, offset, .. } = replayed.end;
    if segment > 0 {
        // What a killed process had written may not be durable.
        storage.sync(segment).map_err(|error| failed(segment, error))?;
    }
    storage.note_synced(segment, offset);
    Ok(replayed)
}

/// Returns the missing last segment, if there is one, and how many bytes of it were durable.
fn missing(storage: &dyn Storage, last: u32) -> Option<(u32, u64)> {
    // A segment that was just being created was empty.
    storage.synced().filter(|&(segment, end)| segment > last && end > SEGMENT_HEADER as u64)
}

/// Refuses what this version cannot read, before anything is changed.
fn check_header(storage: &dyn Storage, segment: u32) -> io::Result<Result<(), JobStoreError>> {
    let name = storage.name(segment);
    let (kind, message) = match Source::new(storage, segment)?.header()? {
        Header::Sound | Header::Bad(_) => return Ok(Ok(())),
        Header::Newer(format) => {
            let message = format!(
                "{name} is of format {format}, and this version knows none above {FORMAT}: run the coordinator that wrote \
                 it, or give this one another journal. Nothing was changed"
            );
            (JobStoreErrorKind::Newer, message)
        }
        Header::Other(other) => {
            let message = format!(
                "{name} has the header of segment {other} of a journal: give the file the name that it had, or move it \
                 out of the folder. Nothing was changed"
            );
            (JobStoreErrorKind::Damaged, message)
        }
    };
    Ok(Err(JobStoreError::new(kind, message)))
}

struct Replay<'a> {
    storage: &'a dyn Storage,
    replayed: Replayed,
}

impl Replay<'_> {
    /// Sets the last file aside if it is not a segment and has no records; returns whether it did.
    fn drop_if_empty(&mut self, segment: u32, warn: &mut dyn FnMut(String)) -> io::Result<bool> {
        let (storage, name) = (self.storage, self.storage.name(segment));
        let mut source = Source::new(storage, segment)?;
        let Header::Bad(reason) = source.header()? else { return Ok(false) };
        let durable = self.durable_end(segment);
        if durable.is_none_or(|durable| durable <= SEGMENT_HEADER as u64) && source.is_unfinished()? {
            // The segment was just being created.
            warn(format!("{name} has only a partial header: removing it"));
            storage.remove(segment)?;
            return Ok(true);
        }
        if durable == Some(0) {
            let aside = storage.set_aside(segment)?;
            warn(format!("{name} is not a segment: {reason}. Nothing in it was durable. It is kept as {aside}"));
            return Ok(true);
        }
        let first = SEGMENT_HEADER as u64 - 1;
        let has_records = source.length() > first && next_whole(&mut source, first)?.is_some();
        if !has_records {
            let mut damage = Damage::new(name);
            if source.length() > 0 {
                damage.add(0, source.length(), reason);
            }
            damage.lacks = lacks(source.length(), durable);
            damage.aside = Some(storage.set_aside(segment)?);
            warn(damage.to_string());
            self.replayed.damages.push(damage);
        }
        Ok(!has_records)
    }

    /// Reads a segment, and returns where it ends; `None`: it was empty, and was set aside.
    fn segment(&mut self, segment: u32, last: bool, warn: &mut dyn FnMut(String)) -> io::Result<Option<End>> {
        let (storage, name) = (self.storage, self.storage.name(segment));
        let mut source = Source::new(storage, segment)?;
        let mut damage = Damage::new(name);
        let mut durable = if last { self.durable_end(segment) } else { Some(u64::MAX) };
        if let Header::Bad(reason) = source.header()? {
            durable = Some(durable.unwrap_or(u64::MAX));
            if source.length() > 0 {
                damage.add(0, source.length().min(SEGMENT_HEADER as u64), reason);
            }
        }
        self.replayed.index.segments.begin(segment);
        let mut end = End { segment, offset: SEGMENT_HEADER as u64, closed: false };
        let mut torn = None;
        while end.offset < source.length() {
            let at = end.offset;
            let taken = match source.record(at)? {
                Ok((body, location)) => {
                    self.take(&body, location, &mut end).map_err(|reason| (reason, Some(location.end())))
                }
                Err(reason) => Err((reason, None)),
            };
            let Err((reason, behind)) = taken else { continue };
            if durable.is_some_and(|durable| at >= durable) {
                torn = Some(reason);
                break;
            }
            let next = behind.map_or_else(|| next_whole(&mut source, at), |end| Ok(Some(end)))?;
            if next.is_none() && durable.is_none() {
                torn = Some(reason);
                break;
            }
            end.offset = next.unwrap_or(source.length());
            damage.add(at, end.offset, reason);
        }
        if let Some(reason) = torn {
            cut_off(storage, &mut source, end, &reason, warn)?;
        }
        self.look_at_the_end(&source, &mut end, last, durable, &mut damage);
        if !damage.is_none() {
            damage.seal = source.seal()?;
            let is_empty = self.replayed.index.segments.all[&segment].bytes == SEGMENT_HEADER as u64;
            if damage.is_set_aside && is_empty {
                damage.aside = Some(storage.set_aside(segment)?);
                self.replayed.index.segments.remove(segment);
            } else if damage.is_set_aside {
                end.closed = true;
                self.replayed.index.segments.mark_damaged(segment, end.offset);
            }
            let is_gone = damage.aside.is_some();
            warn(damage.to_string());
            self.replayed.damages.push(damage);
            return Ok((!is_gone).then_some(end));
        }
        Ok(Some(end))
    }

    /// Returns the byte before which all of the last segment was durable, if that was noted.
    fn durable_end(&self, segment: u32) -> Option<u64> {
        let (noted, end) = self.storage.synced()?;
        Some(match noted.cmp(&segment) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => end,
            std::cmp::Ordering::Greater => u64::MAX,
        })
    }

    /// Checks whether something is missing at the segment's end.
    fn look_at_the_end(
        &self,
        source: &Source<'_>,
        end: &mut End,
        last: bool,
        durable: Option<u64>,
        damage: &mut Damage,
    ) {
        let length = source.length();
        if last && durable.is_some_and(|durable| (length + 1..u64::MAX).contains(&durable)) {
            damage.is_set_aside = !damage.is_none();
            damage.lacks = lacks(length, durable);
        }
        if length == 0 {
            damage.lacks = lacks(length, durable);
        }
        // Behind a record of gigabytes there is no room for a seal.
        if length > 0 && !last && !end.closed && length < u64::from(u32::MAX / 2) {
            damage.lacks = Some("its end is missing".to_owned());
        }
    }

    /// Applies a whole record, or returns why it cannot come next.
    fn take(&mut self, body: &Body, location: RecordLocation, end: &mut End) -> Result<(), String> {
        let Replayed { index, discarded, .. } = &mut self.replayed;
        if let Body::JobOpened(opened) = body {
            take_name(index, discarded, opened);
        }
        if let Some(misfit) = index.misfit(body) {
            return Err(misfit);
        }
        if let Body::Sealed(seal) = body {
            discarded.extend(&seal.forgotten);
        }
        index.apply(body, location);
        end.offset = location.end();
        end.closed = matches!(body, Body::Sealed(_));
        Ok(())
    }
}

/// Returns what is missing at the end of a segment with this length, of which this much was durable; `u64::MAX`: all of
/// it, whatever its length.
fn lacks(length: u64, durable: Option<u64>) -> Option<String> {
    match durable.filter(|durable| (length + 1..u64::MAX).contains(durable)) {
        Some(durable) if length == 0 => Some(format!("it is empty, and {} of it were durable", ByteSize(durable))),
        Some(durable) => Some(format!("its last {} are missing", ByteSize(durable - length))),
        None => (length == 0).then(|| "it is empty: all that was in it is missing".to_owned()),
    }
}

/// Frees a job's name if an earlier job still has it: that job was discarded, and the record of this is lost.
fn take_name(index: &mut Index, discarded: &mut BTreeSet<u64>, opened: &JobOpened) {
    if let Some(&other) = index.names.get(&key_of(opened))
        && other < opened.job
    {
        discarded.insert(other);
        index.free_name(other);
    }
}

/// Cuts off interrupted writes. What is not the beginning of a record is copied first.
fn cut_off(
    storage: &dyn Storage,
    source: &mut Source<'_>,
    end: End,
    reason: &str,
    warn: &mut dyn FnMut(String),
) -> io::Result<()> {
    let End { segment, offset, .. } = end;
    let (name, bytes) = (storage.name(segment), source.length() - offset);
    let what = format!("{name} cannot be read from byte {offset} on: {reason}. It is cut off there");
    if is_torn_record(source, offset)? {
        warn(format!("{what}: {bytes} bytes of a record that was being written are dropped"));
    } else {
        let aside = storage.copy_aside(segment, offset).map_err(|error| {
            let bytes = ByteSize(bytes);
            io::Error::other(format!(
                "{what}, but {bytes} of it cannot be copied aside: {error}. Free some space there"
            ))
        })?;
        warn(format!("{what}: {bytes} bytes are kept as {aside}"));
    }
    storage.truncate(segment, offset)
}
