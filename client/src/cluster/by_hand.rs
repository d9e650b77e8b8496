//! A session whose conversation somebody else drives.

use std::sync::Arc;
use std::time::Duration;

use farpool_proto::v1::OpenPool;
use farpool_proto::v1::client_message::Body;
use tokio::sync::oneshot;

use super::Address;
use super::connect::Connect;
use super::conversation::{self, Opener, Terms};
use super::shared::Shared;
use crate::error::Error;
use crate::gate::Gate;
use crate::inbox::Inbox;

/// The program's side of it.
#[derive(Clone)]
pub(crate) struct Conversation(Arc<Shared>);

/// A session that opens this pool, what says when it is open, and its conversation.
pub(crate) fn converse<C: Connect>(
    connect: C,
    open: OpenPool,
    reconnect_timeout: Duration,
) -> (Conversation, oneshot::Receiver<Result<(), Error>>, impl Future<Output = Result<(), Error>>) {
    let address = Address::parse("simulation:1").expect("it has a host and a port");
    let payload_limit = open.settings.as_ref().map_or(1 << 30, |settings| settings.payload_limit);
    let terms = Terms { id: open.id.clone(), payload_limit, reconnect_timeout };
    let shared = Shared::new(address, open.processes, open);
    let own = Arc::clone(&shared);
    let (tell, opened) = oneshot::channel();
    let opener: Opener = Box::new(move |answer| drop(tell.send(answer)));
    let talk = async move {
        let mut opener = Some(opener);
        let ended = conversation::converse(&own, connect, terms, &mut opener).await;
        conversation::end(&own, ended.clone(), opener);
        ended
    };
    (Conversation(shared), opened, talk)
}

impl Conversation {
    pub(crate) fn submit(&self, inbox: &Arc<Inbox>, open: Body) -> Result<(), Error> {
        self.0.submit(inbox, &mut vec![open])
    }

    pub(crate) fn say(&self, body: Body) {
        self.0.send(&mut vec![body]);
    }

    pub(crate) fn window(&self) -> u64 {
        self.0.window()
    }

    pub(crate) fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.0.gate)
    }

    pub(crate) fn abandon(&self) {
        self.0.abandon();
    }

    pub(crate) fn kept(&self) -> (usize, usize) {
        self.0.state().kept.size()
    }

    pub(crate) fn repeated(&self) -> u64 {
        self.0.state().kept.repeated()
    }
}
