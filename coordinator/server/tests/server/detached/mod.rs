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

/// A job that is to be detached, and its pool.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) pool: OpenPool,
    pub(crate) job: OpenJob,
}

impl Opening {
    /// What the job is kept as.
    pub(crate) fn detach(&mut self) -> &mut Detach {
        self.job.detach.as_mut().expect("it is to be detached")
    }

    /// The same for a coordinator that does not know the session, after one that said that so many items are durable.
    pub(crate) fn again(mut self, durable: u64) -> Self {
        (self.pool.again, self.detach().durable) = (true, durable);
        self
    }

    /// What opens it.
    pub(crate) fn asks(self) -> Vec<Ask> {
        vec![Ask::OpenPool(self.pool.into()), Ask::OpenJob(self.job.into())]
    }
}

/// A job that is detached, with this [`secret`].
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
    detach.asks().into_iter().for_each(|body| client.ask(body));
    client
}

/// Detaches a job of items that are their indices, as many bytes as said.
pub(crate) async fn detached(server: &Server, detach: Opening, items: u64) {
    detached_over(server, server.connect().await, detach, items).await;
}

pub(crate) async fn detached_over(server: &Server, channel: Channel, detach: Opening, items: u64) {
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

/// Sends items as far as they may be sent, and waits until more of them may.
pub(crate) async fn feed(server: &Server, client: &mut Client, all: impl IntoIterator<Item = Items>) {
    let mut sent = 0;
    for items in all {
        while sent >= client.granted {
            hear(server, client).await;
        }
        sent += (items.data.len() + items.ends.len()) as u64;
        client.ask(Ask::Items(items));
    }
}

/// The next word on what is durable. A program that is asked for is sent.
pub(crate) async fn durable(server: &Server, client: &mut Client) -> (u64, bool) {
    loop {
        if let Some(durable) = hear(server, client).await {
            return durable;
        }
    }
}

/// Hears of one thing: what is durable, or something else.
async fn hear(server: &Server, client: &mut Client) -> Option<(u64, bool)> {
    match client.try_next().await.expect("the session goes on").expect("the session goes on") {
        Told::Durable(durable) => {
            assert_eq!(durable.job, 1);
            return Some((durable.items, durable.complete));
        }
        Told::ProgramWanted(wanted) => {
            let (program, digest) = program(PROGRAM);
            assert_eq!(wanted.digest, digest);
            put(server, pieces(&program, &digest)).await.expect("it was asked for");
        }
        Told::Welcome(_) | Told::Window(_) => {}
        other => panic!("nothing is durable but {other:?}"),
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

/// What reads a job from its first item on, and takes what is there.
pub(crate) fn reading(name: &str) -> Attach {
    Attach { name: name.to_owned(), version: Some(farpool_proto::version()), job: 1, ..Attach::default() }
}

pub(crate) async fn attach_as(channel: Channel, attach: Attach) -> Client {
    let client = Client::over(channel).await;
    client.ask(Ask::Attach(Box::new(attach)));
    client
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
        match client.try_next().await.expect("the session goes on") {
            Some(Told::ItemsDone(done)) => {
                outcomes.extend((done.first..).zip(cut(&done.data, 0, &done.ends).into_iter().map(Ok)));
            }
            Some(Told::ItemsFailed(failed)) => {
                let why = failed.failure.expect("it says why").message;
                outcomes.extend((failed.first..failed.first + failed.count).map(|item| (item, Err(why.clone()))));
            }
            Some(Told::JobEnded(ended)) => break if ended.cancelled { End::Cancelled } else { End::Ended },
            Some(Told::PoolFailed(failed)) => break End::Failed(failed.failure.expect("it says why").message),
            Some(Told::PoolClosed(_)) => break End::Open,
            other => panic!("no outcome but {other:?}"),
        }
    };
    if end != End::Open {
        assert!(matches!(client.try_next().await, Ok(Some(Told::PoolClosed(_)))), "that is the last message");
    }
    client.end().await.expect("the session ends well");
    client.out.finish();
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

pub(crate) async fn describe(server: &Server, name: &str) -> Result<DetachedJob, Status> {
    let request = DescribeDetachedRequest { name: name.to_owned(), ..DescribeDetachedRequest::default() };
    let reply = soon("an answer", jobs(server).await.describe(request)).await?;
    Ok(reply.into_inner().job.expect("it is described"))
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
