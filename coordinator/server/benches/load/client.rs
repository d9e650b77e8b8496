//! The client: one job of many small items, each a chunk.

use std::rc::Rc;

use bytes::Bytes;
use farpool_net::{Incoming, Outgoing, http2};
use farpool_proto::v1::clients_client::ClientsClient;
use farpool_proto::v1::{
    ClientEvent, ClientMessage, Items, OpenJob, OpenPool, Program, WorkerSettings, client_event, client_message,
};

use crate::connect;
use crate::figures::Figures;

const JOB: u64 = 1;
/// Items per message.
const BATCH: u64 = 1024;
const ITEM_BYTES: u64 = 8;
/// The size of an item as the window counts it.
const COUNTED_BYTES: u64 = ITEM_BYTES + 4;

pub(crate) struct Client {
    incoming: Incoming<ClientEvent>,
    queue: Outgoing<ClientMessage>,
    /// Bytes of items that may be sent, and that were sent.
    limit: u64,
    sent: u64,
    done: u64,
}

impl Client {
    pub(crate) async fn open(address: &str) -> Self {
        let (queue, frames) = connect::queue();
        let program = Program {
            digest: vec![7; 32].into(),
            size: 1 << 20,
            arguments: vec![Bytes::from_static(b"load")],
            ..Program::default()
        };
        let settings = WorkerSettings { payload_limit: 1 << 30, name: "load".to_owned(), ..WorkerSettings::default() };
        let open = OpenPool {
            settings: Some(settings),
            version: Some(farpool_proto::version()),
            program: program.packed(),
            ..OpenPool::default()
        };
        queue.push(message(client_message::Body::OpenPool(Box::new(open))));
        let channel = connect::connect(address).await;
        let mut client = ClientsClient::new(channel).max_decoding_message_size(http2::MAX_GRPC_MESSAGE);
        let replies = client.session(frames).await.expect("the coordinator refused the client").into_inner();
        let mut client =
            Client { incoming: queue.incoming(replies, connect::MESSAGE_LIMIT), queue, limit: 0, sent: 0, done: 0 };
        while client.limit == 0 {
            client.handle_events(&Figures::default()).await;
        }
        client
    }

    /// Keeps this many items ahead at the coordinator, as long as it is polled.
    pub(crate) async fn feed(mut self, ahead: usize, figures: Rc<Figures>) {
        let job = OpenJob { job: JOB, chunksize: 1, retries: 2, ..OpenJob::default() };
        self.queue.push(message(client_message::Body::OpenJob(Box::new(job))));
        loop {
            while self.sent < self.done + ahead as u64 && (self.sent + BATCH) * COUNTED_BYTES <= self.limit {
                self.queue.push(message(client_message::Body::Items(batch(self.sent))));
                self.sent += BATCH;
            }
            self.handle_events(&figures).await;
        }
    }

    async fn handle_events(&mut self, figures: &Figures) {
        let events = self.incoming.next().await.expect("the session was lost").expect("the session ended");
        for event in events {
            match event.body {
                Some(client_event::Body::Welcome(welcome)) => self.limit = welcome.window,
                Some(client_event::Body::Window(window)) => self.limit = window.limit,
                Some(client_event::Body::ItemsDone(done)) => {
                    let count = done.ends.len() as u64 / 4;
                    self.done += count;
                    figures.items_done(count);
                }
                Some(client_event::Body::ItemsFailed(failed)) => panic!("nothing can fail here: {failed:?}"),
                Some(client_event::Body::PoolFailed(failed)) => panic!("nothing can fail here: {failed:?}"),
                _ => {}
            }
        }
    }
}

fn batch(first: u64) -> Items {
    let data: Vec<u8> = (first..first + BATCH).flat_map(u64::to_le_bytes).collect();
    let ends: Vec<u8> = (1..=BATCH).flat_map(|item| ((item * ITEM_BYTES) as u32).to_le_bytes()).collect();
    Items { job: JOB, first, data: data.into(), ends: ends.into() }
}

fn message(body: client_message::Body) -> ClientMessage {
    ClientMessage { body: Some(body) }
}
