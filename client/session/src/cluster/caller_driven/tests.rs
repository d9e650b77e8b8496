//! A client and a coordinator on one thread, with streams in memory between them.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use farpool_net::{Frames, Opening, Outgoing, outgoing};
use farpool_programs::Pieces;
use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::{
    ClientEvent, ClientMessage, EventFrame, Items, ItemsDone, JobEnded, OpenJob, Output, PoolClosed, PoolOpened,
    Welcome,
};
use futures_core::Stream;
use tokio::sync::mpsc;
use tonic::Status;

use super::*;

const SOON: Duration = Duration::from_secs(20);

/// Shows nothing.
struct Silent;

impl Front for Silent {
    fn output(&self, _: &Output) {}

    fn notice(&self, _: &str) {}

    fn flush(&self, _: Duration) {}
}

/// A coordinator that returns each item as its result. After 2 messages of items it loses its connection, and at every third
/// loss also its state.
#[derive(Clone, Default)]
struct Echo {
    session: Arc<Mutex<Option<Outgoing<ClientEvent>>>>,
    losses: Arc<Mutex<u32>>,
}

impl Connect for Echo {
    type Connection = Echo;

    async fn connect(&self) -> Result<Echo, Status> {
        Ok(self.clone())
    }
}

/// The frames of a connection until it is cut.
struct Replies(mpsc::Receiver<EventFrame>);

impl Stream for Replies {
    type Item = Result<EventFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|frame| frame.map(Ok))
    }
}

struct Calls(Frames<ClientMessage>);

impl Stream for Calls {
    type Item = Result<farpool_proto::v1::ClientFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(context).map(|frame| frame.map(Ok))
    }
}

impl Connection for Echo {
    type Events = Replies;

    async fn session(&mut self, frames: Frames<ClientMessage>) -> Result<Replies, Status> {
        let (out, replies, mut incoming, first) = match Opening::read(Calls(frames), 1 << 30, SOON).await? {
            Opening::New { messages, rest } => {
                let (out, replies) = outgoing(0, Arc::default());
                *self.session.lock().unwrap() = Some(out.clone());
                let incoming = rest.incoming(&out);
                (out, replies, incoming, messages)
            }
            Opening::Resume { resume, rest } => {
                let known = self.session.lock().unwrap().clone();
                let out = known.ok_or_else(|| Status::not_found("no such session"))?;
                let replies = out.reconnect(resume.received)?;
                let incoming = rest.incoming(&out);
                (out, replies, incoming, Vec::new())
            }
        };
        let (sender, receiver) = mpsc::channel(1);
        let pump = tokio::spawn(pump(replies, sender));
        let echo = self.clone();
        let mut left = 2;
        tokio::spawn(async move {
            let mut messages = first;
            loop {
                messages.into_iter().for_each(|message| left -= i32::from(answer(&out, message)));
                if left <= 0 {
                    break;
                }
                match incoming.next().await {
                    Ok(Some(more)) => messages = more,
                    Ok(None) | Err(_) => return,
                }
            }
            pump.abort();
            let mut losses = echo.losses.lock().unwrap();
            *losses += 1;
            if losses.is_multiple_of(3) {
                *echo.session.lock().unwrap() = None;
            }
        });
        Ok(Replies(receiver))
    }

    fn put_program(&mut self, _: Pieces) -> impl Future<Output = bool> + Send + 'static {
        std::future::ready(true)
    }
}

async fn pump(mut frames: Frames<ClientEvent>, sender: mpsc::Sender<EventFrame>) {
    while let Some(frame) = poll_fn(|context| Pin::new(&mut frames).poll_next(context)).await {
        let _ = sender.send(frame).await;
    }
}

/// Returns whether the message had items.
fn answer(out: &Outgoing<ClientEvent>, message: ClientMessage) -> bool {
    let send = |event| out.push(ClientEvent { body: Some(event) });
    match message.body {
        Some(Body::OpenPool(_)) => {
            send(Event::Welcome(Welcome { window: 100, ..Welcome::default() }));
            send(Event::PoolOpened(PoolOpened { slots: 1 }));
        }
        Some(Body::Items(Items { job, first, data, ends })) => {
            send(Event::ItemsDone(ItemsDone { job, first, data, ends, failed: false, attempts: 0 }));
            send(Event::Window(farpool_proto::v1::Window { job, limit: u64::MAX / 2 }));
            return true;
        }
        Some(Body::EndItems(end)) => send(Event::JobEnded(JobEnded { job: end.job, cancelled: false })),
        Some(Body::ClosePool(_)) => send(Event::PoolClosed(PoolClosed {})),
        _ => {}
    }
    false
}

#[test]
fn a_caller_driven_session_survives_losses() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let echo = Echo::default();
        let pool = OpenPool { id: vec![3; 16].into(), ..OpenPool::default() };
        let (session, handle, opened, talk) = open(echo.clone(), pool, SOON, Arc::new(Silent));
        let talk = tokio::spawn(talk);
        opened.await.unwrap();
        let mut job = session.job(OpenJob { retries: 2, ..OpenJob::default() }).unwrap();
        let mut outcomes = Vec::new();
        for item in 0..12_u64 {
            while !job.has_room() {
                outcomes.extend(job.next().await.unwrap());
            }
            (0..item % 2).for_each(|_| job.refuse(Error::invalid("it cannot be sent")));
            job.send(&[item.to_le_bytes()]).unwrap();
            outcomes.extend(job.next().await.unwrap());
        }
        job.end_input().unwrap();
        while let Some(more) = job.next().await {
            outcomes.extend(more);
        }
        assert!(job.error().is_none());
        let (sent, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|outcome| outcome.result.is_ok());
        assert_eq!(refused.len(), 6);
        let indices: Vec<u64> = sent.iter().map(|outcome| outcome.item).collect();
        assert_eq!(indices, (0..12_u64).map(|item| item + item.div_ceil(2)).collect::<Vec<_>>());
        let results = sent.iter().map(|outcome| outcome.result.clone().unwrap());
        assert!(results.eq((0..12_u64).map(|item| item.to_le_bytes().to_vec())));
        assert_eq!(handle.kept(), (0, 0));
        session.close(false);
        talk.await.unwrap().unwrap();
        assert!(*echo.losses.lock().unwrap() >= 3);
    });
}
