//! The records that a worker has written into the ring.

use farpool_link::record::{HEADER_BYTES, Header, Kind};
use farpool_link::{Corrupt, Reader};

use super::super::results::RunResults;
use super::receiving::Receiving;

/// The agent's end of the ring that the worker writes into.
#[derive(Debug)]
pub(super) struct Records {
    from: Reader,
    /// Payload bytes of the record that is being read.
    payload: usize,
}

impl Records {
    pub(super) fn new(from: Reader) -> Records {
        Records { from, payload: 0 }
    }

    /// Returns how many bytes were read so far.
    pub(super) fn consumed(&self) -> u64 {
        self.from.consumed()
    }

    /// Returns whether there is a record, or the worker has written invalid data.
    pub(super) fn any(&mut self) -> bool {
        self.from.available(HEADER_BYTES).map_or(true, |bytes| bytes >= HEADER_BYTES)
    }

    /// Returns the header of the next record, if there is one. The whole record is then available.
    pub(super) fn next_header(&mut self) -> Result<Option<Header>, Corrupt> {
        if self.from.available(HEADER_BYTES)? < HEADER_BYTES {
            return Ok(None);
        }
        let header = Header::read(&self.from.copy::<HEADER_BYTES>(0).ok_or(Corrupt)?).ok_or(Corrupt)?;
        self.payload = header.length as usize;
        let record = HEADER_BYTES + self.payload;
        if self.from.available(record)? < record { Err(Corrupt) } else { Ok(Some(header)) }
    }

    /// Returns the ring at the record that is being read, and the length of its payload.
    pub(super) fn front(&self) -> (&Reader, usize) {
        (&self.from, self.payload)
    }

    /// Returns the payload of the record that is being read, which must have exactly this size.
    pub(super) fn payload<const N: usize>(&self) -> Result<[u8; N], Corrupt> {
        if self.payload == N { self.from.copy(HEADER_BYTES).ok_or(Corrupt) } else { Err(Corrupt) }
    }

    /// Moves results to `results` and advances past their records: the one that is being read, with this header, and those
    /// that follow it of the next items, if they count as failed or not like the first. Returns how many, at most `most`.
    pub(super) fn take_results(
        &mut self,
        mut header: Header,
        most: u32,
        results: &mut RunResults<'_>,
    ) -> Result<u32, Corrupt> {
        let mut taken = 0;
        loop {
            results.push(&self.from, header.length as usize)?;
            self.consume();
            taken += 1;
            if taken == most || results.is_full() {
                return Ok(taken);
            }
            let (tag, position) = (header.tag, header.position.wrapping_add(1));
            match self.next_header() {
                Ok(Some(next)) if next.kind == Kind::Ok && next.tag == tag && next.position == position => {
                    header = next
                }
                // Whatever it is, it is read again.
                _ => return Ok(taken),
            }
        }
    }

    /// Moves the payload of the record that is being read to a large result.
    pub(super) fn receive(&mut self, receiving: &mut Receiving) -> Result<(), Corrupt> {
        receiving.add(self.payload, &self.from)
    }

    /// Advances past the record that was read.
    pub(super) fn consume(&mut self) {
        self.from.consume(HEADER_BYTES + self.payload);
    }

    /// Releases everything that was read to the worker.
    pub(super) fn publish(&mut self) {
        self.from.publish();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use farpool_link::{Direction, Memory, Writer};

    use super::super::super::results::Results;
    use super::*;

    fn write(ring: &mut Writer, (kind, tag, position): (Kind, u32, u32), payload: &[u8]) {
        let record = HEADER_BYTES + payload.len();
        assert!(ring.room(record).unwrap() >= record);
        Header { length: payload.len() as u32, kind, tag, position }.write(ring.space());
        ring.space()[HEADER_BYTES..record].copy_from_slice(payload);
        ring.advance(record);
        ring.publish();
    }

    /// Results are taken together up to a record of another kind, of another item than the next, or that counts as failed.
    #[test]
    fn results_of_consecutive_items_are_taken_together() {
        let memory = Arc::new(Memory::create().unwrap().0);
        let mut ring = Writer::new(Arc::clone(&memory), Direction::ToAgent);
        let mut records = Records::new(Reader::new(memory, Direction::ToAgent));
        let large = vec![7; 64 << 10];
        let of = |position, tag| (Kind::Ok, tag, position);
        for (header, payload) in [
            (of(3, 0), &b"a"[..]),
            (of(4, 0), b""),
            (of(5, 0), b"bc"),
            (of(6, 1), b"d"),
            (of(8, 1), b"e"),
            ((Kind::RunEnd, 0, 0), &[0; 8]),
        ] {
            write(&mut ring, header, payload);
        }
        let mut results = Results::default();
        let mut take = |most, start: usize| {
            let header = records.next_header().unwrap().unwrap();
            (records.take_results(header, most, &mut results.from(start)).unwrap(), results.data.len())
        };
        // At most two; then up to the one that counts as failed; then up to the gap; then up to the other kind.
        assert_eq!([take(2, 0), take(9, 0), take(9, 3), take(9, 4)], [(2, 1), (1, 3), (1, 4), (1, 5)]);
        assert_eq!((&results.data[..], &results.ends[..]), (&b"abcde"[..], &words([1, 1, 3, 1, 1])[..]));
        assert_eq!(records.next_header().unwrap().unwrap().kind, Kind::RunEnd);
        records.consume();
        assert_eq!(records.next_header().unwrap(), None);
        // A run ends when it is full.
        (0..20).for_each(|position| write(&mut ring, of(position, 0), &large));
        let mut results = Results::default();
        let mut take = |start: usize| {
            let header = records.next_header().unwrap().unwrap();
            records.take_results(header, 99, &mut results.from(start)).unwrap()
        };
        assert_eq!([take(0), take(1 << 20)], [16, 4]);
    }

    fn words<const N: usize>(numbers: [u32; N]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }
}
