//! Reads a segment from front to back. A payload is read once, for its checksum, and not kept.

use std::io;

use farpool_proto::v1::journal_record::{Body, Sealed};

use super::location::RecordLocation;
use super::record::{Checksum, HEADER, Lengths, checksum, decode, fits, header_at};
use super::segment::{Header, SEAL_END, SEGMENT_HEADER, check, is_unfinished, sealed};
use super::storage::Storage;

/// How many bytes are read at once.
const BLOCK: usize = 1 << 20;

pub(super) struct Source<'a> {
    storage: &'a dyn Storage,
    segment: u32,
    length: u64,
    /// The bytes of the segment from `at` on.
    block: Vec<u8>,
    at: u64,
}

impl<'a> Source<'a> {
    pub(super) fn new(storage: &'a dyn Storage, segment: u32) -> io::Result<Self> {
        let length = storage.length(segment)?;
        Ok(Self { storage, segment, length, block: Vec::new(), at: 0 })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn header(&mut self) -> io::Result<Header> {
        let segment = self.segment;
        Ok(check(segment, self.bytes(0, SEGMENT_HEADER)?))
    }

    /// Returns the record that begins here, or why there is none.
    pub(super) fn record(&mut self, offset: u64) -> io::Result<Result<(Body, RecordLocation), String>> {
        let left = self.length.saturating_sub(offset);
        let Ok(header) = <[u8; HEADER]>::try_from(self.bytes(offset, HEADER)?) else {
            return Ok(Err(format!("a record's header is cut off after {left} bytes")));
        };
        let lengths = Lengths::of(&header);
        let length = u64::from(lengths.all) + HEADER as u64;
        if length > left {
            return Ok(Err(format!("a record is cut off after {left} of {length} bytes")));
        }
        let location = RecordLocation { segment: self.segment, offset: offset as u32, length: length as u32 };
        if lengths.head > lengths.all || offset + length > u64::from(u32::MAX) || !fits(location) {
            return Ok(Err("a record has impossible lengths".to_owned()));
        }
        if self.sum(location, &header)? != header[..8] {
            return Ok(Err("a record has a wrong checksum".to_owned()));
        }
        let head = self.bytes(offset + HEADER as u64, lengths.head as usize)?;
        Ok(decode(head, lengths.payload()).map(|body| (body, location)))
    }

    /// Returns the seal at the segment's end, whatever the state of its records.
    pub(super) fn seal(&mut self) -> io::Result<Option<Sealed>> {
        let Some(end) = self.length.checked_sub(SEAL_END as u64) else { return Ok(None) };
        let Ok(end) = <[u8; SEAL_END]>::try_from(self.bytes(end, SEAL_END)?) else { return Ok(None) };
        let Some(offset) = sealed(&end).and_then(|length| self.length.checked_sub(length.into())) else {
            return Ok(None);
        };
        Ok(match self.record(offset)? {
            Ok((Body::Sealed(seal), location)) if location.end() == self.length => Some(*seal),
            _ => None,
        })
    }

    /// Whether the file is an unfinished new segment without records.
    pub(super) fn is_unfinished(&mut self) -> io::Result<bool> {
        if self.last_written(SEGMENT_HEADER as u64)?.is_some() {
            return Ok(false);
        }
        let segment = self.segment;
        Ok(is_unfinished(segment, self.bytes(0, SEGMENT_HEADER)?))
    }

    /// Returns the last byte that is not 0, from here on.
    pub(super) fn last_written(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut end = self.length;
        while end > from {
            let begin = end.saturating_sub(BLOCK as u64).max(from);
            let bytes = self.bytes(begin, (end - begin) as usize)?;
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                return Ok(Some(begin + last as u64));
            }
            end = begin;
        }
        Ok(None)
    }

    /// Whether the head of the record that begins here can be read, whatever its payload is.
    pub(super) fn has_head(&mut self, offset: u64, lengths: Lengths) -> io::Result<bool> {
        let head = self.bytes(offset + HEADER as u64, lengths.head as usize)?;
        Ok(decode(head, lengths.payload()).is_ok())
    }

    /// Returns a large number of bytes from here on, at least `least`; fewer only at the segment's end.
    pub(super) fn window(&mut self, offset: u64, least: usize) -> io::Result<&[u8]> {
        if self.bytes(offset, least)?.len() < least {
            return Ok(&[]);
        }
        let from = (offset - self.at) as usize;
        Ok(&self.block[from..])
    }

    /// Returns the checksum that the record must have.
    fn sum(&mut self, location: RecordLocation, header: &[u8; HEADER]) -> io::Result<[u8; 8]> {
        let (offset, length) = (u64::from(location.offset), location.length as usize);
        let header = header_at(location.segment, location.offset, header);
        if length <= BLOCK {
            let record = self.bytes_mut(offset, length)?;
            let written: [u8; 8] = record[..8].try_into().expect("not 8 bytes");
            record[..HEADER].copy_from_slice(&header);
            let sum = checksum(record);
            record[..8].copy_from_slice(&written);
            return Ok(sum);
        }
        let mut sum = Checksum::new(location.segment, location.offset, &header);
        let mut at = HEADER;
        while at < length {
            let piece = self.bytes(offset + at as u64, (length - at).min(BLOCK))?;
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            sum.add(piece);
            at += piece.len();
        }
        Ok(sum.end())
    }

    /// Returns the bytes from here on, as many as asked for if the segment has them.
    pub(super) fn bytes(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        self.bytes_mut(offset, count).map(|bytes| &*bytes)
    }

    fn bytes_mut(&mut self, offset: u64, count: usize) -> io::Result<&mut [u8]> {
        let count = (count as u64).min(self.length.saturating_sub(offset)) as usize;
        let there = offset >= self.at && offset + count as u64 <= self.at + self.block.len() as u64;
        if !there {
            let block = (BLOCK.max(count) as u64).min(self.length.saturating_sub(offset)) as usize;
            self.block.resize(block, 0);
            let read = self.storage.read(self.segment, offset, &mut self.block)?;
            self.block.truncate(read);
            self.at = offset;
        }
        let from = (offset - self.at) as usize;
        let to = (from + count).min(self.block.len());
        Ok(&mut self.block[from.min(to)..to])
    }
}
