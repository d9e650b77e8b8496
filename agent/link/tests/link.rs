//! The link between agent and worker: rings keep everything in order, and no item is both claimed and revoked.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use farpool_link::record::{HEADER_BYTES, Header, Kind, LargeHeader, MAX_PAYLOAD, RunHeader};
use farpool_link::{Corrupt, Direction, Memory, RING_BYTES, Reader, RunningItem, Writer};
use farpool_proto::v1::Failure;
use farpool_testkit::doses;
use proptest::prelude::*;
use prost::Message;

/// Returns both ends of one link, each with its own mapping, as in two processes.
fn two_mappings() -> (Arc<Memory>, Arc<Memory>) {
    let (ours, file) = Memory::create().expect("a memfd can be made");
    let theirs = Memory::open(file.as_fd()).expect("the memory can be mapped again");
    (Arc::new(ours), Arc::new(theirs))
}

fn ends() -> (Writer, Reader) {
    let (ours, theirs) = two_mappings();
    (Writer::new(ours, Direction::ToWorker), Reader::new(theirs, Direction::ToWorker))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(doses::cases(64)))]

    /// Bytes are read as they were written, whatever their sizes and the order of writes and reads.
    #[test]
    fn bytes_are_read_as_they_were_written(steps in prop::collection::vec((any::<bool>(), 1..=RING_BYTES / 3), 1..60)) {
        let (mut writer, mut reader) = ends();
        let (mut written, mut read) = (0_u64, 0_u64);
        for (write, bytes) in steps {
            if write {
                let room = writer.room(bytes).expect("the other side's position is valid");
                prop_assert!(room as u64 >= (RING_BYTES as u64 - (written - read)).min(bytes as u64));
                prop_assert!(room as u64 <= RING_BYTES as u64 - (written - read));
                let bytes = bytes.min(room);
                for (at, byte) in writer.space()[..bytes].iter_mut().enumerate() {
                    *byte = pattern(written + at as u64);
                }
                writer.advance(bytes);
                writer.publish();
                written += bytes as u64;
            } else {
                let there = reader.available(bytes).expect("the other side's position is valid").min(bytes);
                prop_assert_eq!(there as u64, (written - read).min(bytes as u64));
                let mut copy = Vec::new();
                reader.copy_into(0, there, &mut copy).expect("that many bytes are readable");
                for (at, byte) in copy.iter().enumerate() {
                    prop_assert_eq!(*byte, pattern(read + at as u64));
                }
                reader.consume(there);
                reader.publish();
                read += there as u64;
            }
        }
    }

    /// A header with a length beyond the maximum is rejected.
    #[test]
    fn headers_with_invalid_lengths_are_rejected(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Some(header) = Header::read(&bytes) {
            prop_assert!(header.length as usize <= MAX_PAYLOAD);
            let mut again = [0; HEADER_BYTES];
            header.write(&mut again);
            prop_assert_eq!(Header::read(&again), Some(header));
        }
        let _ = RunHeader::read(&bytes);
        let _ = LargeHeader::read(&bytes);
    }
}

fn pattern(at: u64) -> u8 {
    u8::try_from(at * 31 % 251).expect("below 251")
}

#[test]
fn unpublished_bytes_are_invisible() {
    let (mut writer, mut reader) = ends();
    writer.room(8).expect("the other side's position is valid");
    writer.space()[..8].copy_from_slice(b"farpool!");
    writer.advance(8);
    assert_eq!(reader.available(1), Ok(0));
    writer.publish();
    assert_eq!(reader.available(1), Ok(8));
    assert_eq!(reader.copy(0).as_ref(), Some(b"farpool!"));
}

#[test]
fn copies_are_bounded_by_what_is_available() {
    let (mut writer, mut reader) = ends();
    writer.room(8).expect("the other side's position is valid");
    writer.space()[..8].copy_from_slice(b"farpool!");
    writer.advance(8);
    writer.publish();
    assert_eq!(reader.copy::<1>(0), None, "there is no position yet");
    assert_eq!(reader.available(1), Ok(8));
    assert_eq!((reader.copy(4), reader.copy::<0>(8)), (Some(*b"ool!"), Some([])));
    let mut copy = b"here: ".to_vec();
    for (from, length) in [(5, 4), (9, 0), (usize::MAX, 2), (0, usize::MAX)] {
        assert_eq!(reader.copy_into(from, length, &mut copy), None, "{from} {length}");
    }
    reader.consume(3);
    assert_eq!(reader.copy_into(1, 3, &mut copy), Some(()));
    assert_eq!(copy, b"here: ool");
}

/// A worker can change published bytes at any time. The agent decodes one copy, since no decoder expects that two reads
/// of a byte differ.
#[test]
fn changing_bytes_are_decoded_from_one_copy() {
    const DECODED: u32 = 200_000;
    let (ours, theirs) = two_mappings();
    let mut reader = Reader::new(ours, Direction::ToAgent);
    let mut writer = Writer::new(theirs, Direction::ToAgent);
    let failure = Failure { kind: 1, message: "m".repeat(200), pid: 300, attempts: 300, ..Failure::default() };
    let honest = failure.encode_to_vec();
    writer.room(honest.len()).expect("the ring is empty");
    let space = writer.space();
    space[..honest.len()].copy_from_slice(&honest);
    let bytes = Shared(space.as_mut_ptr());
    writer.advance(honest.len());
    writer.publish();
    assert_eq!(reader.available(honest.len()), Ok(honest.len()));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Changes the lengths and numbers at both ends, by a little or by much.
            let mut turn = 0;
            while !done.load(Ordering::Relaxed) {
                for at in (0..6).chain(honest.len() - 8..honest.len()) {
                    let byte = honest[at] ^ [0, 0x80, 0x7f, 0xff][turn % 4];
                    bytes.write(at, byte);
                }
                turn += 1;
            }
        });
        let mut good = 0;
        for _ in 0..DECODED {
            let mut copy = Vec::new();
            reader.copy_into(0, honest.len(), &mut copy).expect("that many bytes are readable");
            let first = Failure::decode(&*copy);
            assert_eq!(first, Failure::decode(&*copy), "the copy has changed");
            good += u32::from(first.is_ok());
        }
        done.store(true, Ordering::Relaxed);
        assert!(good > 0 && good < DECODED, "{good} of {DECODED} were whole: nothing has changed, or all the time");
    });
}

/// An address in the ring, for a faulty writer.
struct Shared(*mut u8);

// SAFETY: only volatile writes go through it, and the memory outlives the threads.
unsafe impl Sync for Shared {}

impl Shared {
    fn write(&self, at: usize, byte: u8) {
        // SAFETY: the caller stays within a record that was written before.
        unsafe { self.0.add(at).write_volatile(byte) };
    }
}

#[test]
fn invalid_positions_are_detected() {
    // A second writer contradicts the first: the written position goes back.
    let (ours, theirs) = two_mappings();
    let mut reader = Reader::new(Arc::clone(&ours), Direction::ToAgent);
    let mut honest = Writer::new(Arc::clone(&theirs), Direction::ToAgent);
    let mut liar = Writer::new(Arc::clone(&theirs), Direction::ToAgent);
    honest.room(100).expect("the ring is empty");
    honest.advance(100);
    honest.publish();
    assert_eq!(reader.available(1), Ok(100));
    liar.publish();
    assert_eq!(reader.available(101), Err(Corrupt), "the written position went back");

    // A reader has read bytes that were never written.
    let mut writer = Writer::new(ours, Direction::ToWorker);
    let mut writer_of_50 = Writer::new(Arc::clone(&theirs), Direction::ToWorker);
    let mut ahead = Reader::new(theirs, Direction::ToWorker);
    writer_of_50.room(50).expect("the ring is empty");
    writer_of_50.advance(50);
    writer_of_50.publish();
    assert_eq!(ahead.available(50), Ok(50));
    ahead.consume(50);
    ahead.publish();
    assert_eq!(writer.room(RING_BYTES + 1), Err(Corrupt), "this writer has written nothing");
}

#[test]
fn two_threads_stream_through_a_ring() {
    const TOTAL: u64 = 64 << 20;
    let (mut writer, mut reader) = ends();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut written = 0;
            while written < TOTAL {
                let room = writer.room(4096).expect("the other side's position is valid").min(70_000);
                for (at, byte) in writer.space()[..room].iter_mut().enumerate() {
                    *byte = pattern(written + at as u64);
                }
                writer.advance(room);
                writer.publish();
                written += room as u64;
                if room == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let (mut read, mut copy) = (0, Vec::new());
        while read < TOTAL {
            let there = reader.available(1).expect("the other side's position is valid");
            copy.clear();
            reader.copy_into(0, there, &mut copy).expect("that many bytes are readable");
            assert!(copy.iter().enumerate().all(|(at, byte)| *byte == pattern(read + at as u64)));
            reader.consume(there);
            reader.publish();
            read += there as u64;
            if there == 0 {
                std::thread::yield_now();
            }
        }
    });
}

#[test]
fn an_item_is_either_claimed_or_revoked() {
    const ITEMS: u32 = 200_000;
    for round in 0..20 {
        let (agent, worker) = two_mappings();
        let begun = AtomicU32::new(0);
        let first_revoked = std::thread::scope(|scope| {
            scope.spawn(|| {
                for position in 0..ITEMS {
                    if !worker.status().claim(position) {
                        break;
                    }
                    begun.fetch_add(1, Ordering::Relaxed);
                }
            });
            while agent.status().claimed() < round * 1000 {
                std::hint::spin_loop();
            }
            let mut first = round * 500;
            while let Err(claimed) = agent.status().revoke(first) {
                assert!(claimed > first, "only a later claim refuses it");
                first = claimed;
            }
            first
        });
        assert!(first_revoked >= round * 500);
        assert_eq!(begun.load(Ordering::Relaxed), first_revoked.min(ITEMS), "each item was begun or revoked, not both");
        worker.status().resume();
        assert!(worker.status().claim(ITEMS), "after resuming, items are claimed again");
    }
}

#[test]
fn running_items_and_the_note_can_be_read_by_the_agent() {
    let (agent, worker) = two_mappings();
    assert_eq!(agent.status().running(4).count(), 0);
    assert_eq!(agent.status().note(), None);
    worker.status().begin(0, 0, 0);
    worker.status().begin(3, 41, 17);
    worker.status().leave_note("panicked at 'ouch'");
    let running: Vec<RunningItem> = agent.status().running(4).collect();
    let expected = [RunningItem { position: 0, since: None }, RunningItem { position: 41, since: Some(17) }];
    assert_eq!(running, expected);
    assert_eq!(agent.status().note().as_deref(), Some("panicked at 'ouch'"));
    worker.status().idle(0);
    worker.status().leave_note(&"x".repeat(100_000));
    assert_eq!(agent.status().running(4).count(), 1);
    assert!(agent.status().note().is_some_and(|note| note.len() < 100_000));
}

#[test]
fn doorbells_are_needed_once_and_only_on_request() {
    let (agent, worker) = two_mappings();
    assert!(!worker.status().take_agent_sleep(), "an agent is awake at first");
    assert!(!worker.status().agent_needs_doorbell(1_000_000));
    agent.status().agent_sleeps(10);
    assert!(!worker.status().agent_needs_doorbell(9));
    assert!(worker.status().agent_needs_doorbell(10));
    assert!(!worker.status().agent_needs_doorbell(11), "one doorbell is enough");
    agent.status().agent_sleeps(20);
    assert!(worker.status().take_agent_sleep(), "other changes wake the agent before the twentieth item");
    assert!(!worker.status().take_agent_sleep());
    assert!(!agent.status().worker_needs_doorbell());
    worker.status().worker_sleeps();
    assert!(agent.status().worker_needs_doorbell());
    assert!(!agent.status().worker_needs_doorbell());
}

#[test]
fn kinds_round_trip() {
    for kind in [Kind::Setup, Kind::Run, Kind::Piece, Kind::Stop, Kind::Ready, Kind::Failed, Kind::Resumed] {
        let header = Header { length: 5, kind, tag: 7, position: 9 };
        let mut bytes = [0; HEADER_BYTES];
        header.write(&mut bytes);
        assert_eq!(Header::read(&bytes), Some(header));
    }
    assert_eq!(Header::read(&[0xff; HEADER_BYTES]), None);
}
