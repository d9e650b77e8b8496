//! Invalid frames.

use farpool_proto::v1::{AgentEvent, AgentFrame, ClientFrame, ClientMessage, Piece};
use tonic::Code;

use crate::agent::{Agent, Report, hello};
use crate::client::{Client, Request, open_pool};
use crate::raw::{call, framed, head};
use crate::server::Server;

/// Checks that each of these ends with this status, and that another client is not affected.
async fn check(cases: Vec<(&str, Vec<u8>, bool, Code, &str)>) {
    let server = Server::start().await;
    let _agent = Agent::echo(&server, 1, 2).await;
    let mut client = Client::open(&server).await;
    for (job, (method, body, end, code, words)) in (1..).zip(cases) {
        let (found, message) = call(&server, method, body, end).await;
        assert_eq!(Code::from(found), code, "{words}: {message}");
        assert!(message.contains(words), "{words}: {message}");
        client.check_works(job).await;
    }
    server.until("the end of the other sessions", |status| status.pools.len() == 1 && status.agents.len() == 1).await;
}

fn opened(then: &[u8]) -> Vec<u8> {
    let open = ClientMessage { body: Some(Request::OpenPool(Box::new(open_pool()))) };
    [&framed(&ClientFrame { messages: vec![open].into(), ..ClientFrame::default() }), then].concat()
}

fn joined(then: &[u8]) -> Vec<u8> {
    let hello = AgentEvent { body: Some(Report::Hello(Box::new(hello(9, 1)))) };
    [&framed(&AgentFrame { messages: vec![hello].into(), ..AgentFrame::default() }), then].concat()
}

#[tokio::test]
async fn truncated_and_oversized_frames_are_refused() {
    let huge = head(0, u32::MAX);
    let cut = [&head(0, 100)[..], b"too little"].concat();
    let packed = [&head(1, 3)[..], b"zip"].concat();
    let unknown = [&head(7, 3)[..], b"???"].concat();
    let mut cases = Vec::new();
    for (method, begin) in [("Clients/Session", opened as fn(&[u8]) -> Vec<u8>), ("Agents/Session", joined)] {
        cases.extend([
            (method, huge.clone(), false, Code::OutOfRange, "message length too large"),
            (method, begin(&huge), false, Code::OutOfRange, "message length too large"),
            (method, cut.clone(), true, Code::InvalidArgument, "EOF"),
            (method, begin(&cut), true, Code::InvalidArgument, "EOF"),
            (method, begin(&packed), false, Code::InvalidArgument, "compress"),
            (method, begin(&unknown), false, Code::InvalidArgument, "invalid compression flag"),
        ]);
    }
    check(cases).await;
}

#[tokio::test]
async fn frames_without_valid_messages_are_refused() {
    let garbage = [&head(0, 8)[..], &[0xff; 8]].concat();
    // A field of bytes that claims to be longer than its message.
    let lies = [&head(0, 3)[..], &[0x0a, 0x7f, 0x00]].concat();
    let mut cases = Vec::new();
    for (method, begin) in [("Clients/Session", opened as fn(&[u8]) -> Vec<u8>), ("Agents/Session", joined)] {
        cases.extend([
            (method, garbage.clone(), false, Code::InvalidArgument, "decode"),
            (method, begin(&garbage), false, Code::InvalidArgument, "decode"),
            (method, begin(&lies), false, Code::InvalidArgument, "decode"),
        ]);
    }
    cases.push(("Clients/PutProgram", garbage.clone(), false, Code::InvalidArgument, "decode"));
    cases.push(("Clients/Nonsense", Vec::new(), true, Code::Unimplemented, ""));
    cases.push(("Nobody/Session", Vec::new(), true, Code::Unimplemented, "no service"));
    check(cases).await;
}

#[tokio::test]
async fn invalid_pieces_are_refused() {
    let piece = |total, data: &[u8]| {
        let piece = Some(Piece { total, data: data.to_vec().into() });
        framed(&ClientFrame { piece, ..ClientFrame::default() })
    };
    let between = [piece(100, b"abc"), opened(&[])].concat();
    let changed = [piece(100, b"abc"), piece(101, b"abc")].concat();
    let cases = [
        (piece(u64::MAX, b"abc"), Code::ResourceExhausted, "the limit is"),
        (piece(2, b"abc"), Code::InvalidArgument, "a piece of 3 bytes of a message of which 2 are missing"),
        (piece(3, b""), Code::InvalidArgument, "a piece of 0 bytes"),
        (piece(4, &[0xff; 4]), Code::InvalidArgument, "cannot be decoded"),
        (between, Code::InvalidArgument, "between the pieces"),
        (changed, Code::InvalidArgument, "of 101 bytes, before the last piece of one of 100 bytes"),
    ];
    let later = cases.clone().map(|(body, code, words)| ("Clients/Session", opened(&body), false, code, words));
    let first = cases.map(|(body, code, words)| ("Clients/Session", body, false, code, words));
    check(first.into_iter().chain(later).collect()).await;
}
