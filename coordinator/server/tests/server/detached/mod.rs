//! Detached jobs: their guarantees, whatever breaks.

mod asks;
mod attaching;
mod detaching;
mod fake_store;
mod full;
mod killed;
mod other_store;
mod program;
mod running;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use farpool_coordinator_server::journal::Settings;
use farpool_proto::v1::detached_jobs_client::DetachedJobsClient;
use farpool_proto::v1::{
    Attach, CancelDetachedRequest, DescribeDetachedRequest, Detach, DetachedJob, DetachedState, DiscardDetachedRequest,
    EndItems, Items, ListDetachedRequest, OpenJob, OpenPool, Program,
};
use tonic::Status;
use tonic::transport::Channel;

use crate::client::{Client, Event, Request, batch, cut, open_pool, secret};
use crate::programs::{pieces, program, put};
use crate::server::{Server, soon};

/// The size of the program that the jobs run, in bytes.
const PROGRAM: usize = 10_000;

/// A directory for a journal, removed on drop.
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
        // A thread of a killed server in this process may still hold the lock.
        while std::fs::File::open(path.join("lock")).is_ok_and(|lock| lock.try_lock().is_err()) {
            tokio::task::yield_now().await;
        }
        Server::with(|settings| {
            settings.journal = Some(Settings::new(&path));
            settings.programs = path.join("programs");
            // The recovery must not wait long for missing agents.
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

/// A job to be detached, and its pool.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) pool: OpenPool,
    pub(crate) job: OpenJob,
}

impl Opening {
    /// Returns the part that detaches the job.
    pub(crate) fn detach(&mut self) -> &mut Detach {
        self.job.detach.as_mut().expect("the job is not detached")
    }

    /// Reopens the job at a coordinator that does not know the session, after this many items were reported as durable.
    pub(crate) fn reopened_after(mut self, durable: u64) -> Self {
        (self.pool.again, self.detach().durable) = (true, durable);
        self
    }

    /// Returns the messages that open it.
    pub(crate) fn messages(self) -> Vec<Request> {
        vec![Request::OpenPool(self.pool.into()), Request::OpenJob(self.job.into())]
    }
}

/// A job to be detached, with this [`secret`].
pub(crate) fn detach(name: &str, id: u8) -> Opening {
    let digest = program(PROGRAM).1;
    let program = Program { digest: digest.into(), size: PROGRAM as u64, ..Program::default() }.packed();
    let detach = Detach { name: name.to_owned(), result: "u64".to_owned(), format: 1, durable: 0 };
    Opening {
        pool: OpenPool { program, secret: secret(id), detached: true, ..open_pool() },
        job: OpenJob { job: 1, retries: 2, detach: Some(detach), ..OpenJob::default() },
    }
}

pub(crate) async fn detaching(channel: Channel, detach: Opening) -> Client {
    let client = Client::over(channel).await;
    detach.messages().into_iter().for_each(|body| client.send(body));
    client
}

/// Detaches a job of this many items, each of which is its index.
pub(crate) async fn detached(server: &Server, detach: Opening, items: u64) {
    detached_over(server, server.connect().await, detach, items).await;
}

pub(crate) async fn detached_over(server: &Server, channel: Channel, detach: Opening, items: u64) {
    let mut client = detaching(channel, detach).await;
    assert_eq!(durable(server, &mut client).await, (0, false));
    send(&client, 0, items);
    client.end_items(1);
    until_complete(server, &mut client, items).await;
    client.end().await.expect("the stream ended with an error");
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
        client.send(Request::Items(some_items(at, 100.min(end - at))));
    }
}

/// Sends all items, as the window allows.
pub(crate) async fn feed(server: &Server, client: &mut Client, all: impl IntoIterator<Item = Items>) {
    let mut sent = 0;
    for items in all {
        while sent >= client.granted {
            handle_next(server, client).await;
        }
        sent += (items.data.len() + items.ends.len()) as u64;
        client.send(Request::Items(items));
    }
}

/// Returns the next report of durable items. Sends the program if it is requested.
pub(crate) async fn durable(server: &Server, client: &mut Client) -> (u64, bool) {
    loop {
        if let Some(durable) = handle_next(server, client).await {
            return durable;
        }
    }
}

/// Handles what has arrived before the connection is lost. Returns how many items are durable, if anything reports that.
async fn durable_when_lost(server: &Server, client: &mut Client) -> Option<u64> {
    let mut durable = None;
    while let Ok(event) = client.try_next().await {
        let event = event.expect("the session ended, and the connection was not lost");
        durable = handle(server, event).await.map(|(items, _)| items).or(durable);
    }
    durable
}

/// Handles the next event. Returns how many items are durable, if it reports that.
async fn handle_next(server: &Server, client: &mut Client) -> Option<(u64, bool)> {
    handle(server, client.try_next().await.expect("the session ended").expect("the session ended")).await
}

async fn handle(server: &Server, event: Event) -> Option<(u64, bool)> {
    match event {
        Event::Durable(durable) => {
            assert_eq!(durable.job, 1);
            return Some((durable.items, durable.complete));
        }
        Event::ProgramWanted(wanted) => {
            let (program, digest) = program(PROGRAM);
            assert_eq!(wanted.digest, digest);
            put(server, pieces(&program, &digest)).await.expect("the program was refused");
        }
        Event::Welcome(_) | Event::Window(_) => {}
        other => panic!("unexpected event instead of Durable: {other:?}"),
    }
    None
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
    attach_as(channel, Attach { first, wait, ..reading(name) }).await
}

/// Reads a job from its first item on, without waiting.
pub(crate) fn reading(name: &str) -> Attach {
    Attach { name: name.to_owned(), version: Some(farpool_proto::version()), job: 1, ..Attach::default() }
}

pub(crate) async fn attach_as(channel: Channel, attach: Attach) -> Client {
    let client = Client::over(channel).await;
    client.send(Request::Attach(Box::new(attach)));
    client
}

/// How the outcomes of a job end.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    Ended,
    Cancelled,
    Failed(String),
    /// There are no more for now.
    Open,
}

pub(crate) type Outcomes = Vec<(u64, Result<Vec<u8>, String>)>;

/// Reads all outcomes from an index on. They must arrive in the order of the items.
pub(crate) async fn outcomes(channel: Channel, name: &str, first: u64, wait: bool) -> (DetachedJob, Outcomes, End) {
    let mut client = attach(channel, name, first, wait).await;
    let described = match client.next().await {
        Event::DetachedJob(job) => *job,
        other => panic!("unexpected event instead of a job: {other:?}"),
    };
    let (outcomes, end) = rest(&mut client).await;
    (described, outcomes, end)
}

pub(crate) async fn rest(client: &mut Client) -> (Outcomes, End) {
    let mut outcomes = Outcomes::new();
    let end = loop {
        match client.try_next().await.expect("the session ended") {
            Some(Event::ItemsDone(done)) => {
                outcomes.extend((done.first..).zip(cut(&done.data, 0, &done.ends).into_iter().map(Ok)));
            }
            Some(Event::ItemsFailed(failed)) => {
                let why = failed.failure.expect("the outcome has no failure").message;
                outcomes.extend((failed.first..failed.first + failed.count).map(|item| (item, Err(why.clone()))));
            }
            Some(Event::JobEnded(ended)) => break if ended.cancelled { End::Cancelled } else { End::Ended },
            Some(Event::PoolFailed(failed)) => {
                break End::Failed(failed.failure.expect("the job's end has no failure").message);
            }
            Some(Event::PoolClosed(_)) => break End::Open,
            other => panic!("unexpected event instead of an outcome: {other:?}"),
        }
    };
    if end != End::Open {
        assert!(matches!(client.try_next().await, Ok(Some(Event::PoolClosed(_)))), "PoolClosed is the last message");
    }
    client.end().await.expect("the session ended with an error");
    client.out.finish();
    assert!(outcomes.is_sorted_by(|a, b| a.0 < b.0), "outcomes arrive in order, each once: {outcomes:?}");
    (outcomes, end)
}

/// The outcomes of items at an agent that echoes.
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
    list.expect("cannot list the jobs").into_inner().jobs
}

/// Names and states.
pub(crate) async fn states(server: &Server) -> Vec<(String, DetachedState)> {
    list(server).await.into_iter().map(|job| (job.name.clone(), job.state())).collect()
}

pub(crate) async fn describe(server: &Server, name: &str) -> Result<DetachedJob, Status> {
    let request = DescribeDetachedRequest { name: name.to_owned(), ..DescribeDetachedRequest::default() };
    let reply = soon("an answer", jobs(server).await.describe(request)).await?;
    Ok(reply.into_inner().job.expect("the reply has no job"))
}

pub(crate) async fn cancel(server: &Server, name: &str) -> Result<(), Status> {
    let request = CancelDetachedRequest { name: name.to_owned(), ..CancelDetachedRequest::default() };
    soon("an answer", jobs(server).await.cancel(request)).await.map(drop)
}

pub(crate) async fn discard(server: &Server, name: &str) -> Result<(), Status> {
    let request = DiscardDetachedRequest { name: name.to_owned(), ..DiscardDetachedRequest::default() };
    soon("an answer", jobs(server).await.discard(request)).await.map(drop)
}

pub(crate) fn end_items() -> Request {
    Request::EndItems(EndItems { job: 1 })
}
