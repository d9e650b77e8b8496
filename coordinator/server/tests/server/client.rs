//! A fake client: sends the given messages, and returns events as they arrive.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use farpool_net::{Incoming, Outgoing, outgoing, session_id};
use farpool_proto::v1::clients_client::ClientsClient;
use farpool_proto::v1::{
    ClientEvent, ClientMessage, ClosePool, EndItems, EventFrame, Items, OpenJob, OpenPool, Program, WorkerSettings,
};
use tokio::sync::Notify;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

pub(crate) use farpool_proto::v1::client_event::Body as Event;
pub(crate) use farpool_proto::v1::client_message::Body as Request;

use crate::server::{Server, soon};

/// The digest of a program that nobody has.
pub(crate) const DIGEST: [u8; 32] = [7; 32];

pub(crate) struct Client {
    pub(crate) out: Outgoing<ClientMessage>,
    incoming: Incoming<ClientEvent>,
    inbox: VecDeque<Event>,
    /// Bytes of items that it may send for each job at first, and for its last job now.
    pub(crate) window: u64,
    pub(crate) granted: u64,
}

impl Client {
    /// Connects a client that has opened a pool.
    pub(crate) async fn open(server: &Server) -> Self {
        Self::opened(server, open_pool()).await
    }

    pub(crate) async fn opened(server: &Server, open: OpenPool) -> Self {
        Self::opened_over(server.connect().await, open).await
    }

    pub(crate) async fn opened_over(channel: Channel, open: OpenPool) -> Self {
        let mut client = Self::over(channel).await;
        client.send(Request::OpenPool(Box::new(open)));
        match client.try_next().await.expect("the session ended") {
            Some(Event::Welcome(_)) => client,
            other => panic!("unexpected event instead of Welcome: {other:?}"),
        }
    }

    /// Resumes its session, which has this [`secret`], on another connection.
    pub(crate) async fn resume(&mut self, channel: Channel, id: u8) -> Result<(), Status> {
        let frames = self.out.resume(secret(id));
        let reply = soon("a session", ClientsClient::new(channel).session(frames)).await?;
        self.incoming = soon("the answer", self.out.resumed(reply.into_inner(), 1 << 30)).await?;
        Ok(())
    }

    /// Connects a client that has sent nothing yet.
    pub(crate) async fn silent(server: &Server) -> Self {
        Self::over(server.connect().await).await
    }

    pub(crate) async fn over(channel: Channel) -> Self {
        let (out, frames) = outgoing(0, Arc::new(Notify::new()));
        let reply = soon("a session", ClientsClient::new(channel).session(frames)).await;
        Self::of(out, reply.expect("cannot begin a session").into_inner())
    }

    /// Creates a client over this queue and stream.
    pub(crate) fn of(out: Outgoing<ClientMessage>, stream: Streaming<EventFrame>) -> Self {
        let incoming = out.incoming(stream, 1 << 30);
        Self { out, incoming, inbox: VecDeque::new(), window: 0, granted: 0 }
    }

    pub(crate) fn send(&self, body: Request) {
        self.out.push(ClientMessage { body: Some(body) });
    }

    pub(crate) async fn try_next(&mut self) -> Result<Option<Event>, Status> {
        while self.inbox.is_empty() {
            match soon("a message for the client", self.incoming.next()).await? {
                None => return Ok(None),
                Some(events) => self.inbox.extend(events.into_iter().filter_map(|event| event.body)),
            }
            if self.inbox.iter().any(|told| matches!(told, Event::PoolAt(at) if !at.gone)) {
                self.out.acknowledge();
            }
        }
        let told = self.inbox.pop_front();
        match &told {
            Some(Event::Welcome(welcome)) => (self.window, self.granted) = (welcome.window, welcome.window),
            Some(Event::Window(window)) => self.granted = window.limit,
            _ => {}
        }
        Ok(told)
    }

    /// Returns the next event, other than a welcome and those about slots and windows.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            match self.try_next().await.expect("the session ended").expect("the session ended") {
                Event::Welcome(_) | Event::PoolOpened(_) | Event::Waiting(_) | Event::Window(_) | Event::PoolAt(_) => {}
                other => return other,
            }
        }
    }

    /// Reads events until one reports that its pool runs at the agent with this [`secret`].
    pub(crate) async fn wait_for_agent(&mut self, agent: u8) {
        loop {
            match self.try_next().await.expect("the session ended").expect("the session ended") {
                Event::PoolAt(at) if !at.gone && at.agent == id(agent) => return,
                _ => {}
            }
        }
    }

    /// Reads and acknowledges all events until the session ends.
    pub(crate) async fn read_all(mut self) {
        while let Ok(Some(events)) = self.incoming.next().await {
            if events.iter().any(|event| matches!(event.body, Some(Event::PoolAt(_)))) {
                self.out.acknowledge();
            }
        }
    }

    /// Ignores events until the session ends, and returns how it ended.
    pub(crate) async fn end(&mut self) -> Result<(), Status> {
        while self.try_next().await?.is_some() {}
        Ok(())
    }

    /// Checks that the session ends with this status.
    pub(crate) async fn must_be_refused(&mut self, code: Code, words: &str) {
        let status = self.end().await.expect_err("the session ended without an error");
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(words), "{status:?}");
    }

    pub(crate) fn open_job(&self, job: u64) {
        self.send(Request::OpenJob(Box::new(OpenJob { job, ..OpenJob::default() })));
    }

    pub(crate) fn items(&self, job: u64, first: u64, items: &[&[u8]]) {
        self.send(Request::Items(batch(job, first, items)));
    }

    pub(crate) fn end_items(&self, job: u64) {
        self.send(Request::EndItems(EndItems { job }));
    }

    /// Has an agent echo a few items, which shows that the server and this session work.
    pub(crate) async fn check_works(&mut self, job: u64) {
        let items: Vec<Vec<u8>> = (0..20u8).map(|item| vec![item; item as usize]).collect();
        self.open_job(job);
        self.items(job, 0, &items.iter().map(Vec::as_slice).collect::<Vec<_>>());
        self.end_items(job);
        let results = self.results(job).await;
        assert_eq!(results.len(), items.len());
        assert!(results.iter().zip(&items).all(|(result, item)| result.starts_with(item)));
    }

    /// Returns the results of a job in the order of its items. All items must succeed.
    pub(crate) async fn results(&mut self, job: u64) -> Vec<Vec<u8>> {
        let mut results = Vec::new();
        loop {
            match self.next().await {
                Event::ItemsDone(done) if done.job == job => {
                    let items = cut(&done.data, 0, &done.ends);
                    results.extend((done.first..).zip(items));
                }
                Event::JobEnded(ended) if ended.job == job => break,
                other => panic!("unexpected event instead of a result: {other:?}"),
            }
        }
        results.sort();
        results.into_iter().map(|(_, result)| result).collect()
    }

    /// Closes the pool and waits until it is closed.
    pub(crate) async fn close(mut self) {
        self.send(Request::ClosePool(ClosePool { now: false }));
        loop {
            match self.try_next().await.expect("the session ended") {
                Some(Event::PoolClosed(_)) => break,
                Some(_) => {}
                None => panic!("the session ended before the pool"),
            }
        }
        self.end().await.expect("the session ended with an error");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.out.finish();
    }
}

pub(crate) fn open_pool() -> OpenPool {
    let program = Program { digest: Bytes::from_static(&DIGEST), size: 4711, ..Program::default() };
    OpenPool {
        settings: Some(WorkerSettings { payload_limit: 1 << 30, ..WorkerSettings::default() }),
        version: Some(farpool_proto::version()),
        program: program.packed(),
        ..OpenPool::default()
    }
}

/// A secret: this number repeated 32 times.
pub(crate) fn secret(number: u8) -> Bytes {
    vec![number; 32].into()
}

/// The id derived from this secret.
pub(crate) fn id(number: u8) -> Bytes {
    Bytes::copy_from_slice(&session_id(&secret(number)).expect("the secret has a wrong length"))
}

/// The message that opens a pool with this secret.
pub(crate) fn open_pool_as(id: u8) -> OpenPool {
    OpenPool { secret: secret(id), ..open_pool() }
}

pub(crate) fn batch(job: u64, first: u64, items: &[&[u8]]) -> Items {
    let (mut data, mut ends) = (Vec::new(), Vec::new());
    for item in items {
        data.extend_from_slice(item);
        ends.extend((data.len() as u32).to_le_bytes());
    }
    Items { job, first, data: data.into(), ends: ends.into() }
}

/// The payloads of a batch or a segment.
pub(crate) fn cut(data: &[u8], start: u32, ends: &[u8]) -> Vec<Vec<u8>> {
    let mut from = 0;
    let ends = ends.chunks_exact(4).map(|end| u32::from_le_bytes(end.try_into().expect("not 4 bytes")));
    ends.map(|end| {
        let to = (end - start) as usize;
        data[std::mem::replace(&mut from, to)..to].to_vec()
    })
    .collect()
}
