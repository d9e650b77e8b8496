//! Local mode: the coordinator and one agent, embedded in the client's process.
//!
//! The three exchange the same messages that travel over gRPC on a cluster. Only the thread that drives them differs.
//! Waking another thread costs 15 to 60 us, more than everything else in a call together. So a thread that waits for an
//! outcome drives the engine itself until it has it. The session's own thread drives only while no thread waits. See
//! [`driver`].

mod driver;
mod engine;
mod intake;

use std::sync::Arc;
use std::time::Instant;

use farpool_proto::v1::Label;
use farpool_proto::v1::client_message::Body;

use crate::carrier::Carrier;
use crate::error::Error;
use crate::inbox::Inbox;
use crate::labels;
use crate::settings::Settings;
use driver::LocalDriver;

/// Opens a pool on this machine.
pub(crate) fn open(settings: Settings) -> Result<Arc<dyn Carrier>, Error> {
    let processes = settings.processes;
    let slots = processes.saturating_mul(settings.settings.threads.max(1));
    let driver = LocalDriver::start(settings)?;
    let window = driver.act(|engine| engine.window());
    Ok(Arc::new(LocalSession { processes, slots, window, driver }))
}

struct LocalSession {
    processes: u32,
    slots: u32,
    window: u64,
    driver: Arc<LocalDriver>,
}

impl Carrier for LocalSession {
    fn submit(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        if let Some(Body::OpenJob(open)) = messages.first_mut() {
            // They were checked, and the embedded agent has no labels.
            open.require = Vec::new();
        }
        self.driver.act(|engine| engine.submit(inbox, messages))
    }

    fn submit_soon(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        if let Some(Body::OpenJob(open)) = messages.first_mut() {
            open.require = Vec::new();
        }
        self.driver.submit_soon(inbox, messages);
        Ok(())
    }

    fn send(&self, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.driver.act(|engine| engine.send(messages))
    }

    fn wait(&self, inbox: &Inbox, deadline: Option<Instant>) {
        self.driver.drive_until(|_| inbox.has_arrivals(), |deadline| inbox.park(deadline), deadline);
    }

    fn wait_closed(&self, deadline: Option<Instant>) -> bool {
        self.driver.drive_until(engine::Engine::is_closed, driver::park, deadline);
        self.driver.act(|engine| engine.is_closed())
    }

    fn processes(&self) -> u32 {
        self.processes
    }

    fn worker_pids(&self) -> Vec<u32> {
        self.driver.act(|engine| engine.worker_pids())
    }

    fn slots(&self) -> u32 {
        self.slots
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn failure(&self) -> Option<Error> {
        self.driver.act(|engine| engine.inboxes.failure())
    }

    fn check_labels(&self, require: &[Label]) -> Result<(), Error> {
        labels::check_here(require)
    }
}
