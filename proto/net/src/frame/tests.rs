//! Frames that no queue would send. The tests in `tests/link` use frames that a queue has made.

use farpool_proto::v1::{Items, client_message::Body};

use super::*;

fn message(bytes: usize) -> ClientMessage {
    let items = Items { job: bytes as u64, first: 3, data: vec![7; bytes].into(), ends: Bytes::new() };
    ClientMessage { body: Some(Body::Items(items)) }
}

#[test]
fn a_message_in_pieces_is_whole_again() {
    let sent = message(3_000_000);
    let (mut cutter, mut unpacker, mut pieces) = (Cutter::new(&sent), Unpacker::new(8 << 20), 0);
    let mut taken = Vec::new();
    while !cutter.is_done() {
        assert!(taken.is_empty());
        let piece = cutter.cut();
        assert!(piece.data.len() <= PIECE_BYTES);
        taken =
            unpacker.unpack::<ClientMessage>(Batch::default(), Some(piece)).expect("the message was cut into pieces");
        pieces += 1;
    }
    assert!(taken == [sent]);
    assert_eq!((pieces, unpacker.held()), (3_000_000_usize.div_ceil(PIECE_BYTES), 0));
}

#[test]
fn invalid_pieces_are_refused() {
    let none = Vec::new;
    let piece = |total, bytes: usize| (none(), Some(Piece { total, data: vec![0xff; bytes].into() }));
    let both = (vec![message(1)], piece(10, 5).1);
    let check = |frames: Vec<(Vec<ClientMessage>, Option<Piece>)>, words: &str| {
        let mut unpacker = Unpacker::new(1000);
        let unpack = |(messages, piece): (Vec<_>, _)| unpacker.unpack::<ClientMessage>(messages.into(), piece);
        let error = frames.into_iter().map(unpack).last().expect("there is a frame").expect_err("the piece is refused");
        assert!(error.message().contains(words), "{error}");
    };
    check(vec![piece(1001, 5)], "the limit is 1000");
    check(vec![piece(u64::MAX, 5)], "the limit is 1000");
    check(vec![piece(10, 11)], "11 bytes of a message of which 10 are missing");
    check(vec![piece(10, 5), piece(10, 6)], "of which 5 are missing");
    check(vec![piece(10, 5), piece(11, 6)], "of 11 bytes, before the last piece of one of 10 bytes");
    check(vec![piece(10, 0)], "0 bytes");
    check(vec![piece(0, 0)], "0 bytes");
    check(vec![piece(0, 1)], "1 bytes");
    check(vec![piece(10, 5), (vec![message(1)], None)], "between the pieces");
    check(vec![piece(10, 5), (none(), None)], "between the pieces");
    check(vec![both], "messages and a piece");
    check(vec![piece(10, 10)], "cannot be decoded");
}

/// A peer announces 4 GiB and sends a few bytes.
#[test]
fn announced_sizes_take_no_memory() {
    let mut unpacker = Unpacker::new(8 << 30);
    let piece = |bytes: usize| Some(Piece { total: 4 << 30, data: vec![0; bytes].into() });
    for pieces in 1..100 {
        assert!(
            unpacker.unpack::<ClientMessage>(Batch::default(), piece(10_000)).expect("the piece is allowed").is_empty()
        );
        // They are kept unchanged.
        assert_eq!((unpacker.pieces.len(), unpacker.held()), (pieces, pieces * (10_000 + PIECE_COST)));
    }
}

#[test]
fn too_many_parts_are_refused_in_pieces_too() {
    let labels = vec![farpool_proto::v1::Label::default(); 1 << 20];
    let job = farpool_proto::v1::OpenJob { require: labels, ..Default::default() };
    let mut cutter = Cutter::new(&ClientMessage { body: Some(Body::OpenJob(job.into())) });
    let mut unpacker = Unpacker::new(8 << 20);
    let error = loop {
        match unpacker.unpack::<ClientMessage>(Batch::default(), Some(cutter.cut())) {
            Ok(_) => assert!(!cutter.is_done(), "the message was decoded"),
            Err(error) => break error,
        }
    };
    assert!(error.message().contains("more parts"), "{error}");
}
