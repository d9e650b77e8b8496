//! Cluster mode: a session with a coordinator over gRPC.
//!
//! One task per session talks to the coordinator ([`conversation`]), on a separate thread or on one that waits for a call
//! ([`driver`]). Threads of the program put messages into its queue, and wait at their job's inbox. [`shared`] has the state
//! of both sides. None of this starts before a pool on a cluster is opened.
//!
//! Detached jobs have sessions of their own, one for each that is being detached or read ([`detached`], [`purpose`]).

mod backoff;
mod borrower;
pub mod caller_driven;
mod connect;
mod conversation;
pub(crate) mod detached;
mod dial;
mod driver;
mod executable;
mod kept;
pub(crate) mod location;
mod notice;
mod outage;
mod purpose;
mod reconnect_deadline;
mod shared;
mod state;
mod subject;
mod upload;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
pub(crate) use farpool_common::address::Address;
use farpool_net::Secret;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{self, Label, OpenPool};

use crate::carrier::Carrier;
use crate::cluster::executable::Executable;
use crate::error::Error;
use crate::front::Front;
use crate::gate::Gate;
use crate::inbox::Inbox;
use crate::program::Program;
use crate::settings::Settings;
use borrower::Borrower;
use conversation::{Opener, Terms};
use driver::SessionDriver;
use location::{DetachSettings, JobLocation};
use purpose::Purpose;
use shared::Shared;

/// How long the end of a pool waits for its workers' output to be printed.
const PRINTING: Duration = Duration::from_secs(1);

/// Parses a coordinator's address, as the user has written it.
pub fn address(url: &str) -> Result<Address, Error> {
    Address::parse(url).map_err(|error| Error::invalid(error.to_string()))
}

/// Opens a pool on the cluster at this address.
pub(crate) fn open(address: Address, settings: Settings, front: Arc<dyn Front>) -> Result<Arc<dyn Carrier>, Error> {
    Ok(Arc::new(open_session(address, settings, front)?))
}

fn open_session(address: Address, settings: Settings, front: Arc<dyn Front>) -> Result<ClusterSession, Error> {
    let Settings { processes, program, settings, require, weight, environment, reconnect_timeout } = settings;
    let executable = Executable::read(&program.file)?;
    let (threads, payload_limit) = (settings.threads.max(1), settings.payload_limit);
    let secret = Secret::random();
    let borrower = Borrower::claim(|line| front.notice(line));
    let open = OpenPool {
        processes,
        settings: Some(settings),
        version: Some(farpool_proto::version()),
        program: describe(&executable, program, environment).packed(),
        require,
        weight,
        secret: secret.to_bytes(),
        ticket: borrower.as_ref().map(|borrower| borrower.ticket()),
        ..OpenPool::default()
    };
    let location = JobLocation { address: address.clone(), reconnect_timeout };
    let detach_settings = DetachSettings {
        location,
        program: Some(executable.clone()),
        pool: OpenPool { secret: Bytes::new(), ticket: None, ..open.clone() },
    };
    let terms = Terms {
        purpose: Purpose::Pool(address.clone()),
        secret,
        payload_limit,
        reconnect_timeout,
        program: Some(executable),
        front: Arc::clone(&front),
    };
    let shared = Shared::new(address, processes, open.into());
    let (sender, receiver) = mpsc::sync_channel(1);
    let opener: Opener = Box::new(move |answer| drop(sender.send(answer)));
    let driver = Arc::new(SessionDriver::default());
    conversation::start(&shared, &driver, terms, opener)?;
    // From here on, dropping this ends the session.
    let session = ClusterSession { shared, driver, threads, detach_settings, front, _borrower: borrower };
    let _lent = farpool_worker::lend();
    receiver.recv().unwrap_or_else(|_| Err(Error::protocol("the pool's thread ended unexpectedly")))?;
    Ok(session)
}

/// Describes the program for agents, with this environment.
fn describe(executable: &Executable, program: Program, environment: Vec<(OsString, OsString)>) -> v1::Program {
    let Program { arguments, directory, .. } = program;
    let bytes = |text: OsString| Bytes::from(text.into_vec());
    let variable = |(name, value)| v1::Variable { name: bytes(name), value: bytes(value) };
    v1::Program {
        digest: executable.digest.to_bytes(),
        size: executable.size,
        arguments: arguments.into_iter().map(bytes).collect(),
        environment: environment.into_iter().map(variable).collect(),
        directory: directory.map(|path| bytes(path.into_os_string())).unwrap_or_default(),
    }
}

struct ClusterSession {
    shared: Arc<Shared>,
    driver: Arc<SessionDriver>,
    threads: u32,
    detach_settings: DetachSettings,
    front: Arc<dyn Front>,
    _borrower: Option<Arc<Borrower>>,
}

impl Carrier for ClusterSession {
    fn submit(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        let submitted = self.shared.submit(inbox, messages);
        self.driver.wake_session_thread();
        submitted
    }

    fn call(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        if let Some(driving) = self.driver.take(&self.shared) {
            return driving.until(async {
                self.shared.submit(inbox, messages)?;
                inbox.first_outcome().await;
                Ok(())
            });
        }
        self.submit(inbox, messages)?;
        self.wait(inbox, None);
        Ok(())
    }

    fn send(&self, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.shared.send(messages);
        self.driver.wake_session_thread();
        Ok(())
    }

    fn wait(&self, inbox: &Inbox, deadline: Option<Instant>) {
        if !inbox.has_arrivals() {
            inbox.park(deadline);
        }
    }

    fn wait_closed(&self, deadline: Option<Instant>) -> bool {
        let _lent = farpool_worker::lend();
        let over = self.shared.wait_until_over(deadline);
        self.front.flush(PRINTING);
        over
    }

    fn processes(&self) -> u32 {
        self.shared.processes()
    }

    fn slots(&self) -> u32 {
        self.processes().saturating_mul(self.threads)
    }

    fn window(&self) -> u64 {
        self.shared.window()
    }

    fn payload_limit(&self) -> u64 {
        self.shared.payload_limit()
    }

    fn failure(&self) -> Option<Error> {
        self.shared.state().inboxes.failure()
    }

    fn waiting(&self) -> Option<String> {
        self.shared.waiting()
    }

    fn check_labels(&self, _: &[Label]) -> Result<(), Error> {
        // A suitable agent may join at any time: until then the coordinator reports why the job waits.
        Ok(())
    }

    fn detach_settings(&self) -> Option<DetachSettings> {
        Some(self.detach_settings.clone())
    }

    fn gate(&self) -> Option<Arc<Gate>> {
        Some(Arc::clone(&self.shared.gate))
    }
}

impl Drop for ClusterSession {
    fn drop(&mut self) {
        self.shared.abandon();
        self.driver.wake_session_thread();
    }
}
