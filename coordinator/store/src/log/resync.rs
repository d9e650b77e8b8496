//! Finds whole records after invalid bytes.
//!
//! A record is valid only where it was written: its checksum includes its location. So bytes in items that look like
//! records, and records that were moved, are skipped.

use std::io;

use super::record::{HEADER, Lengths};
use super::source::Source;

/// The fewest bytes by which a record is recognized: its header, and the first two bytes of its head.
const LEAST: usize = HEADER + 2;

/// More zeros than this at the end are blocks of a file that were never written.
const NEVER_WRITTEN: u64 = 512;

/// A head that is cut off cannot be checked: it is believed to be one up to this length.
const LONGEST_CUT: u64 = 64 << 10;

/// How many times the bytes of a segment may be read for candidates that turn out not to be records.
const BUDGET: u64 = 16;

/// Returns where the next whole record begins, if there is one. `bad` is where a record should begin and does not.
pub(super) fn next_whole(source: &mut Source<'_>, bad: u64) -> io::Result<Option<u64>> {
    // If only the bytes after the record's header are damaged, what looks like a record within them is not one.
    if let Some(end) = end_of(source, bad)?
        && end < source.length()
        && source.record(end)?.is_ok()
    {
        return Ok(Some(end));
    }
    let (mut at, mut budget) = (bad + 1, source.length().saturating_mul(BUDGET));
    while let Some(candidate) = next_candidate(source, at)? {
        if source.record(candidate)?.is_ok() {
            return Ok(Some(candidate));
        }
        let read = end_of(source, candidate)?.map_or(0, |end| end - candidate);
        budget = match budget.checked_sub(read) {
            Some(left) => left,
            None => return Ok(None),
        };
        at = candidate + 1;
    }
    Ok(None)
}

/// Whether the bytes from here to the segment's end are one partially written record: its first part and nothing else,
/// or followed by zeros that were never written; or only zeros.
pub(super) fn is_torn_record(source: &mut Source<'_>, from: u64) -> io::Result<bool> {
    let Some(last) = source.last_written(from)? else { return Ok(true) };
    let start = source.bytes(from, LEAST)?;
    let Some(header) = start.first_chunk::<HEADER>() else { return Ok(false) };
    let lengths = Lengths::of(header);
    let (all, head) = (u64::from(lengths.all), u64::from(lengths.head));
    let begins = if last < from + LEAST as u64 - 1 {
        // The write ended within the first bytes, at the end of a page.
        (2..=all).contains(&head) && start.get(HEADER).is_none_or(|byte| *byte == 0 || is_tag(*byte))
    } else {
        could_begin(start)
    };
    if !begins {
        return Ok(false);
    }
    let (end, length) = (from + HEADER as u64 + all, source.length());
    let was_cut = length < end || (last < end && length - last > NEVER_WRITTEN);
    if !was_cut {
        return Ok(false);
    }
    if last + 1 - from < HEADER as u64 + head {
        return Ok(head <= LONGEST_CUT);
    }
    source.has_head(from, lengths)
}

/// Returns where the record that begins here ends according to its header, if that is possible.
fn end_of(source: &mut Source<'_>, at: u64) -> io::Result<Option<u64>> {
    let Ok(header) = <[u8; HEADER]>::try_from(source.bytes(at, HEADER)?) else { return Ok(None) };
    let lengths = Lengths::of(&header);
    let end = at + HEADER as u64 + u64::from(lengths.all);
    Ok((lengths.head <= lengths.all && end <= source.length()).then_some(end))
}

/// Returns the next location where a record could begin, as far as its header and the first bytes of its head show.
fn next_candidate(source: &mut Source<'_>, mut at: u64) -> io::Result<Option<u64>> {
    let length = source.length();
    loop {
        let window = source.window(at, LEAST)?;
        let found = window.windows(LEAST).position(could_begin);
        let looked = (window.len() + 1).saturating_sub(LEAST) as u64;
        match found {
            Some(offset) => {
                let candidate = at + offset as u64;
                if end_of(source, candidate)?.is_some() {
                    return Ok(Some(candidate));
                }
                at = candidate + 1;
            }
            None if looked == 0 || at + looked >= length => return Ok(None),
            None => at += looked,
        }
    }
}

/// A head is one field of a message that has no other: its tag, its length, and as many bytes.
fn could_begin(bytes: &[u8]) -> bool {
    if !is_tag(bytes[HEADER]) {
        return false;
    }
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (all, head, first) = (word(8), word(12), bytes[HEADER + 1]);
    // A length above 127 takes several bytes.
    let fits = if first < 0x80 { head == 2 + u32::from(first) } else { head > 2 + 0x7f };
    head <= all && fits
}

/// Whether a head can begin with this byte: the tag of a length-delimited field with a number from 1 to 15.
fn is_tag(byte: u8) -> bool {
    (0x0a..0x80).contains(&byte) && byte & 7 == 2
}
