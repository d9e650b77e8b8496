//! Programs: from a client that has one to an agent that needs it.

use std::time::Duration;

use farpool_proto::v1::agents_client::AgentsClient;
use farpool_proto::v1::clients_client::ClientsClient;
use farpool_proto::v1::{FetchProgramRequest, OpenPool, Program, ProgramPiece};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::client::{Client, Event, open_pool};
use crate::server::{Server, soon};

const PIECE: usize = 1 << 20;

pub(crate) fn program(bytes: usize) -> (Vec<u8>, Vec<u8>) {
    // It is incompressible, so its size determines how many pieces it takes.
    let mut program = vec![0; bytes];
    blake3::Hasher::new().finalize_xof().fill(&mut program);
    let digest = blake3::hash(&program).as_bytes().to_vec();
    (program, digest)
}

async fn opened(server: &Server, digest: &[u8], size: usize) -> Client {
    let program = Program { digest: digest.to_vec().into(), size: size as u64, ..Program::default() }.packed();
    Client::opened(server, OpenPool { program, ..open_pool() }).await
}

/// Waits until the client is asked for its program.
async fn wanted(client: &mut Client, digest: &[u8]) {
    match client.next().await {
        Event::ProgramWanted(wanted) => assert_eq!(wanted.digest, digest),
        other => panic!("unexpected event instead of ProgramWanted: {other:?}"),
    }
}

async fn fetch(server: &Server, digest: &[u8]) -> Result<Vec<u8>, Status> {
    let mut agent = AgentsClient::new(server.connect().await);
    let request = FetchProgramRequest { digest: digest.to_vec().into() };
    let mut pieces = soon("the program", agent.fetch_program(request)).await?.into_inner();
    let mut compressed = Vec::new();
    while let Some(piece) = soon("a piece", pieces.message()).await? {
        assert!(piece.data.len() <= PIECE);
        compressed.extend_from_slice(&piece.data);
    }
    Ok(decompressed(&compressed))
}

fn fetching(server: &std::sync::Arc<Server>, digest: &[u8]) -> JoinHandle<Result<Vec<u8>, Status>> {
    let (server, digest) = (server.clone(), digest.to_vec());
    tokio::spawn(async move { fetch(&server, &digest).await })
}

pub(crate) fn decompressed(compressed: &[u8]) -> Vec<u8> {
    zstd::decode_all(compressed).expect("the program is not compressed")
}

pub(crate) fn pieces(program: &[u8], digest: &[u8]) -> Vec<ProgramPiece> {
    let mut pieces: Vec<_> = zstd::encode_all(program, 1)
        .expect("cannot compress the program")
        .chunks(PIECE)
        .map(|data| ProgramPiece { data: data.to_vec().into(), ..ProgramPiece::default() })
        .collect();
    (pieces[0].digest, pieces[0].size) = (digest.to_vec().into(), program.len() as u64);
    pieces
}

pub(crate) async fn put(server: &Server, pieces: Vec<ProgramPiece>) -> Result<(), Status> {
    put_over(server.connect().await, pieces).await
}

pub(crate) async fn put_over(channel: Channel, pieces: Vec<ProgramPiece>) -> Result<(), Status> {
    let mut client = ClientsClient::new(channel);
    soon("an answer", client.put_program(tokio_stream::iter(pieces))).await.map(drop)
}

fn files(server: &Server) -> Vec<String> {
    let entries = std::fs::read_dir(&server.directory).expect("cannot read the directory");
    entries.map(|entry| entry.expect("cannot read the directory").file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn a_program_is_requested_once_and_kept() {
    let server = std::sync::Arc::new(Server::start().await);
    let (program, digest) = program(3 * PIECE + 4711);
    let mut client = opened(&server, &digest, program.len()).await;
    let fetches = [fetching(&server, &digest), fetching(&server, &digest)];
    wanted(&mut client, &digest).await;
    put(&server, pieces(&program, &digest)).await.expect("the program was refused");
    for fetch in fetches {
        assert!(fetch.await.expect("the call panicked").expect("the program did not arrive") == program);
    }
    // From now on no client needs to be asked.
    drop(client);
    assert!(fetch(&server, &digest).await.expect("the coordinator lacks the program") == program);
}

/// An agent looks it up while it is being sent, does not find it, and asks for it only when it has arrived.
#[tokio::test]
async fn a_program_that_arrives_during_a_lookup_is_not_requested_again() {
    let server = std::sync::Arc::new(Server::start().await);
    for round in 0..100 {
        let (program, digest) = program(1000 + round);
        let mut client = opened(&server, &digest, program.len()).await;
        let mut fetches = vec![fetching(&server, &digest)];
        wanted(&mut client, &digest).await;
        let sent = tokio::spawn({
            let (server, pieces) = (server.clone(), pieces(&program, &digest));
            async move { put(&server, pieces).await }
        });
        while !sent.is_finished() {
            fetches.push(fetching(&server, &digest));
            tokio::task::yield_now().await;
        }
        sent.await.expect("the call panicked").expect("the program was refused");
        for fetch in fetches {
            assert!(fetch.await.expect("the call panicked").expect("the coordinator lacks the program") == program);
        }
    }
}

#[tokio::test]
async fn unrequested_and_invalid_programs_are_refused() {
    let server = std::sync::Arc::new(Server::with(|settings| settings.program_cache = 8 << 20).await);
    let (program, digest) = program(2 * PIECE + 10);
    let good = pieces(&program, &digest);
    let error = put(&server, good.clone()).await.expect_err("the unrequested program was accepted");
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert!(error.message().contains("nobody asked"), "{error}");
    assert_eq!(
        put(&server, Vec::new()).await.expect_err("the empty program was accepted").code(),
        Code::InvalidArgument
    );

    let changed = |change: fn(&mut Vec<ProgramPiece>)| {
        let mut pieces = good.clone();
        change(&mut pieces);
        pieces
    };
    let another = |bytes: usize| {
        let mut pieces = pieces(&vec![7; bytes], &digest);
        pieces[0].size = program.len() as u64;
        pieces
    };
    let cases = [
        (changed(|pieces| pieces.swap(1, 2)), "cannot be decompressed"),
        (changed(|pieces| pieces.truncate(2)), "ended after"),
        (changed(|pieces| pieces[0].size -= 1), "longer than"),
        (changed(|pieces| pieces[0].size += 1), "were announced"),
        (another(program.len()), "expected a program with digest"),
        (another(program.len() - 1), "were announced"),
        // A few KiB as sent.
        (another(1 << 30), "longer than"),
        (changed(|pieces| pieces[0].data = vec![7; PIECE].into()), "cannot be decompressed"),
        (changed(|pieces| pieces.push(pieces[2].clone())), "cannot be decompressed"),
        (changed(|pieces| pieces[1].data = vec![0; PIECE + 1].into()), "the limit is"),
        (changed(|pieces| pieces[1].data = Default::default()), "empty"),
    ];
    for (pieces, words) in cases {
        let mut client = opened(&server, &digest, program.len()).await;
        let fetch = fetching(&server, &digest);
        wanted(&mut client, &digest).await;
        let error = put(&server, pieces).await.expect_err("the invalid pieces were accepted");
        let broken_off = words == "ended after";
        assert_eq!(error.code(), if broken_off { Code::Cancelled } else { Code::InvalidArgument }, "{error}");
        assert!(error.message().contains(words), "{words}: {error}");
        // It was the only client, so the waiting agents get the error. If the upload was cut off, they get it only when
        // the client is gone.
        if broken_off {
            assert!(!fetch.is_finished());
            drop(client);
        }
        fetch.await.expect("the call panicked").expect_err("the program arrived");
    }
    let mut client = opened(&server, &digest, program.len()).await;
    let fetch = fetching(&server, &digest);
    wanted(&mut client, &digest).await;
    let error =
        put(&server, changed(|pieces| pieces[0].size = 1 << 40)).await.expect_err("the oversized program was accepted");
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    fetch.await.expect("the call panicked").expect_err("the program arrived");
    assert_eq!(files(&server), Vec::<String>::new(), "files of the programs are left");
}

#[tokio::test]
async fn the_next_client_is_asked_when_one_leaves_or_sends_nothing() {
    let server = Server::with(|settings| settings.limits.upload = Duration::from_millis(200)).await;
    let server = std::sync::Arc::new(server);
    let (program, digest) = program(100);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(opened(&server, &digest, program.len()).await);
    }
    let fetch = fetching(&server, &digest);
    // The server chooses whom to ask first: the first client leaves, the second sends nothing.
    let (first, rest) = asked(clients, &digest).await;
    drop(first);
    let (_silent, rest) = asked(rest, &digest).await;
    let (_last, _) = asked(rest, &digest).await;
    put(&server, pieces(&program, &digest)).await.expect("the program was refused");
    assert!(fetch.await.expect("the call panicked").expect("the program did not arrive") == program);
}

/// Returns the client that is asked for its program, and the others.
async fn asked(mut clients: Vec<Client>, digest: &[u8]) -> (Client, Vec<Client>) {
    let found = {
        let waits = clients.iter_mut().map(|client| Box::pin(wanted(client, digest)));
        let mut waits: Vec<_> = waits.collect();
        soon(
            "the question",
            std::future::poll_fn(move |context| {
                let ready = waits.iter_mut().position(|wait| wait.as_mut().poll(context).is_ready());
                ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
            }),
        )
        .await
    };
    (clients.remove(found), clients)
}

#[tokio::test]
async fn a_client_whose_connection_is_lost_may_send_it_again() {
    let server = std::sync::Arc::new(Server::start().await);
    let (program, digest) = program(5 * PIECE);
    let mut client = opened(&server, &digest, program.len()).await;
    let fetch = fetching(&server, &digest);
    wanted(&mut client, &digest).await;
    let (sending, sent) = tokio::sync::mpsc::channel(1);
    let mut other = ClientsClient::new(server.connect().await);
    let upload =
        tokio::spawn(async move { other.put_program(tokio_stream::wrappers::ReceiverStream::new(sent)).await });
    let pieces = pieces(&program, &digest);
    for piece in &pieces[..3] {
        sending.send(piece.clone()).await.expect("the pieces are not read");
    }
    while files(&server).is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    upload.abort();
    // The upload is over when its partial data is gone.
    while !files(&server).is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    sleep(Duration::from_millis(20)).await;
    put(&server, pieces).await.expect("the program was refused");
    assert!(fetch.await.expect("the call panicked").expect("the program did not arrive") == program);
    drop(client);
}

#[tokio::test]
async fn a_program_that_no_client_has_fails_at_once() {
    let server = Server::start().await;
    let error = fetch(&server, &[9; 32]).await.expect_err("a missing program was found");
    assert_eq!(error.code(), Code::NotFound, "{error}");
    let error = fetch(&server, &[9; 31]).await.expect_err("the short digest was accepted");
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
}
