//! Jobs that clients give to the coordinator, and pick up again: what is promised of them, whatever breaks.

mod asks;
mod attaching;
mod detaching;
mod full;
mod killed;
mod other_store;
mod played;
mod program;
mod running;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use farpool_coordinator_server::journal::Settings;
use farpool_net::outgoing;
use farpool_proto::v1::detached_jobs_client::DetachedJobsClient;
use farpool_proto::v1::{
    Attach, CancelDetachedRequest, Detach, DetachedJob, DetachedState, DiscardDetachedRequest, EndItems, Items,
    ListDetachedRequest, OpenJob, OpenPool, Program,
};
use tokio::sync::Notify;
use tonic::Status;
use tonic::transport::Channel;

use crate::client::{Ask, Client, Told, batch, cut, open_pool, secret};
use crate::programs::{pieces, program, put};
use crate::server::{Server, soon};

/// Bytes of the program that the jobs run.
const PROGRAM: usize = 10_000;

/// A directory for a journal, which goes when the test is over.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("farpool-detached-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A server with this journal.
    pub(crate) async fn server(&self) -> Server {
        self.server_with(|_| {}).await
    }

    pub(crate) async fn server_with(&self, change: impl FnOnce(&mut farpool_coordinator_server::Settings)) -> Server {
        let path = self.0.clone();
        // Of a server of this process that was killed, some thread may still be reading.
        while std::fs::File::open(path.join("lock")).is_ok_and(|lock| lock.try_lock().is_err()) {
            tokio::task::yield_now().await;
        }
        Server::with(|settings| {
            settings.journal = Some(Settings::new(&path));
            settings.programs = path.join("programs");
            // Agents that are not back are not waited for for long.
            settings.heartbeat_timeout = Duration::from_millis(1500);
            change(settings);
        })
        .await
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The first message of a job that is detached, with this [`secret`].
pub(crate) fn detach(name: &str, id: u8) -> Detach {
    let digest = program(PROGRAM).1;
    let program = Program { digest: digest.into(), size: PROGRAM as u64, ..Program::default() }.packed();
    Detach {
        name: name.to_owned(),
        secret: secret(id),
        pool: Some(OpenPool { program, ..open_pool() }),
        job: Some(OpenJob { job: 1, retries: 2, ..OpenJob::default() }),
        result: "u64".to_owned(),
        format: 1,
        ..Detach::default()
    }
}

pub(crate) async fn detaching(channel: Channel, detach: Detach) -> Client {
    let client = silent(channel).await;
    client.ask(Ask::Detach(Box::new(detach)));
    client
}

/// A stream of Detach on which nothing was said.
pub(crate) async fn silent(channel: Channel) -> Client {
    let (out, frames) = outgoing(0, Arc::new(Notify::new()));
    let reply = soon("a stream", DetachedJobsClient::new(channel).detach(frames)).await;
    Client::of(out, reply.expect("the call is answered").into_inner())
}

/// Detaches a job of items that are their indices, as many bytes as said.
pub(crate) async fn detached(server: &Server, detach: Detach, items: u64) {
    detached_over(server, server.connect().await, detach, items).await;
}

pub(crate) async fn detached_over(server: &Server, channel: Channel, detach: Detach, items: u64) {
    let mut client = detaching(channel, detach).await;
    assert_eq!(durable(server, &mut client).await, (0, false));
    send(&client, 0, items);
    client.end_items(1);
    until_complete(server, &mut client, items).await;
    client.end().await.expect("the stream ends well");
}

pub(crate) fn item(index: u64) -> Vec<u8> {
    index.to_le_bytes().to_vec()
}

pub(crate) fn some_items(first: u64, count: u64) -> Items {
    let items: Vec<Vec<u8>> = (first..first + count).map(item).collect();
    batch(1, first, &items.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// Sends items up to `end`, many in a message.
pub(crate) fn send(client: &Client, first: u64, end: u64) {
    for at in (first..end).step_by(100) {
        client.ask(Ask::Items(some_items(at, 100.min(end - at))));
    }
}

/// The next word on what is durable. A program that is asked for is sent.
pub(crate) async fn durable(server: &Server, client: &mut Client) -> (u64, bool) {
    loop {
        match client.next().await {
            Told::Durable(durable) => return (durable.items, durable.complete),
            Told::ProgramWanted(wanted) => {
                let (program, digest) = program(PROGRAM);
                assert_eq!(wanted.digest, digest);
                put(server, pieces(&program, &digest)).await.expect("it was asked for");
            }
            other => panic!("nothing is durable but {other:?}"),
        }
    }
}

pub(crate) async fn until_complete(server: &Server, client: &mut Client, items: u64) {
    let mut before = 0;
    loop {
        let (durable, complete) = durable(server, client).await;
        assert!(durable >= before && durable <= items, "{before}, then {durable}");
        before = durable;
        if complete {
            assert_eq!(durable, items);
            return;
        }
    }
}

pub(crate) async fn attach(channel: Channel, name: &str, first: u64, wait: bool) -> Client {
    attach_as(channel, Attach { name: name.to_owned(), first, wait, ..Attach::default() }).await
}

pub(crate) async fn attach_as(channel: Channel, attach: Attach) -> Client {
    let (out, frames) = outgoing(0, Arc::new(Notify::new()));
    out.push(farpool_proto::v1::ClientMessage { body: Some(Ask::Attach(Box::new(attach))) });
    let reply = soon("a stream", DetachedJobsClient::new(channel).attach(frames)).await;
    Client::of(out, reply.expect("the call is answered").into_inner())
}

/// What the outcomes of a job come to.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    Ended,
    Cancelled,
    Failed(String),
    /// There is nothing more for now.
    Open,
}

pub(crate) type Outcomes = Vec<(u64, Result<Vec<u8>, String>)>;

/// All outcomes from an index on, in the order in which they come, which must be that of the items.
pub(crate) async fn outcomes(channel: Channel, name: &str, first: u64, wait: bool) -> (DetachedJob, Outcomes, End) {
    let mut client = attach(channel, name, first, wait).await;
    let described = match client.next().await {
        Told::DetachedJob(job) => *job,
        other => panic!("no job but {other:?}"),
    };
    let (outcomes, end) = rest(&mut client).await;
    (described, outcomes, end)
}

pub(crate) async fn rest(client: &mut Client) -> (Outcomes, End) {
    let mut outcomes = Outcomes::new();
    let end = loop {
        match client.try_next().await.expect("the stream goes on") {
            Some(Told::ItemsDone(done)) => {
                outcomes.extend((done.first..).zip(cut(&done.data, 0, &done.ends).into_iter().map(Ok)));
            }
            Some(Told::ItemsFailed(failed)) => {
                let why = failed.failure.expect("it says why").message;
                outcomes.extend((failed.first..failed.first + failed.count).map(|item| (item, Err(why.clone()))));
            }
            Some(Told::JobEnded(ended)) => break if ended.cancelled { End::Cancelled } else { End::Ended },
            Some(Told::PoolFailed(failed)) => break End::Failed(failed.failure.expect("it says why").message),
            Some(other) => panic!("no outcome but {other:?}"),
            None => break End::Open,
        }
    };
    assert!(outcomes.is_sorted_by(|a, b| a.0 < b.0), "they come in order, and once: {outcomes:?}");
    (outcomes, end)
}

/// What an agent that echoes makes of items.
pub(crate) fn echoes(items: std::ops::Range<u64>) -> Outcomes {
    items.map(|index| (index, Ok(item(index)))).collect()
}

pub(crate) async fn all(server: &Server, name: &str) -> (Outcomes, End) {
    let (_, outcomes, end) = outcomes(server.connect().await, name, 0, true).await;
    (outcomes, end)
}

pub(crate) async fn jobs(server: &Server) -> DetachedJobsClient<Channel> {
    DetachedJobsClient::new(server.connect().await)
}

pub(crate) async fn list(server: &Server) -> Vec<DetachedJob> {
    let list = jobs(server).await.list(ListDetachedRequest {}).await;
    list.expect("jobs are told").into_inner().jobs
}

/// Names and states.
pub(crate) async fn states(server: &Server) -> Vec<(String, DetachedState)> {
    list(server).await.into_iter().map(|job| (job.name.clone(), job.state())).collect()
}

pub(crate) async fn cancel(server: &Server, name: &str) -> Result<(), Status> {
    let request = CancelDetachedRequest { name: name.to_owned(), ..CancelDetachedRequest::default() };
    soon("an answer", jobs(server).await.cancel(request)).await.map(drop)
}

pub(crate) async fn discard(server: &Server, name: &str) -> Result<(), Status> {
    let request = DiscardDetachedRequest { name: name.to_owned(), ..DiscardDetachedRequest::default() };
    soon("an answer", jobs(server).await.discard(request)).await.map(drop)
}

pub(crate) fn end_items() -> Ask {
    Ask::EndItems(EndItems { job: 1 })
}
