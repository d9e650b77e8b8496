//! Agents: the daemon's real session, with simulated workers.

use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use farpool_agent_daemon::simulation::{
    CommandFrames, Connect, Connecting, End, Log, Session, SessionSettings, Workers as SessionWorkers,
};
use farpool_net::Frames;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{AgentEvent, AgentFrame, AgentHello};
use farpool_testkit::random::Random;
use futures_core::Stream;
use tokio::sync::{Notify, mpsc};
use tonic::Status;

use crate::coordinator::{self, Address};
use crate::network::{HEARTBEAT, Host, Network, at};
use crate::plan::Plan;
use crate::process::Process;
use crate::trace;
use crate::workers::Workers;

/// Agents log to the trace of the run on their thread.
static LOG: LazyLock<Log> = LazyLock::new(|| Log::to(|line| trace::log(format_args!("an agent logs: {line}"))));

pub(crate) struct Agent {
    pub(crate) host: Host,
    process: Process,
    leave: mpsc::Sender<u8>,
    times_asked: u8,
    shared: Shared,
}

/// What the world inspects and changes.
#[derive(Clone)]
struct Shared {
    workers: Arc<Mutex<Workers>>,
    /// The world has changed the workers.
    changed: Arc<Notify>,
    /// How many pools its last hello listed as held.
    held: Arc<Mutex<usize>>,
}

impl Agent {
    pub(crate) fn start(
        host: Host,
        slots: u32,
        network: &Network,
        address: &Address,
        plan: &Plan,
        random: &mut Random,
    ) -> Self {
        trace::log(format_args!("the agent of host {host} starts, with {slots} slots"));
        let hello = AgentHello {
            host: format!("host{host}"),
            slots,
            version: Some(farpool_proto::version()),
            secret: coordinator::secret(random),
            ..AgentHello::default()
        };
        let settings = SessionSettings {
            hello,
            leave_timeout: HEARTBEAT,
            orphan_timeout: Duration::from_secs(random.pick(&[3, 20, 60])),
            seed: random.next(),
            coordinator: "the coordinator".to_owned(),
            log: LOG.clone(),
        };
        let workers = Workers::new(plan.clone(), random.fork(), slots);
        let shared = Shared { workers: Arc::new(Mutex::new(workers)), changed: Arc::default(), held: Arc::default() };
        let connector =
            AgentConnector { host, network: network.clone(), address: address.clone(), shared: shared.clone() };
        let mut session = Session::new(connector, shared.clone(), settings);
        let (leave, mut leave_requests) = mpsc::channel(1);
        let process = Process::start(async move {
            let end = session.serve(&mut leave_requests).await;
            trace::log(format_args!("the agent of host {host} ends: {end:?}"));
            // It was asked to leave more than once, and ended at once.
            let killed = matches!(end, End::Killed(2..));
            if end != End::Left && !killed {
                trace::violation(format_args!("the agent of host {host} should not end with {end:?}"));
            }
        });
        Self { host, process, leave, times_asked: 0, shared }
    }

    /// Asks it to leave; the second time, at once.
    pub(crate) fn ask_to_leave(&mut self) {
        self.times_asked += 1;
        trace::log(format_args!("the agent of host {} is asked to leave", self.host));
        let _ = self.leave.try_send(self.times_asked);
    }

    pub(crate) async fn kill(self, network: &Network) {
        trace::log(format_args!("the agent of host {} is killed", self.host));
        network.cut(|host| host == self.host);
        self.process.kill().await;
    }

    /// Its host disappears without a notice.
    pub(crate) async fn power_off(self) {
        self.process.kill().await;
    }

    pub(crate) fn stop(&self, stop: bool) {
        self.process.stop(stop);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.process.is_over()
    }

    /// Calls a function with its workers.
    pub(crate) fn with_workers<T>(&self, what: impl FnOnce(&mut Workers) -> T) -> T {
        let done = what(&mut self.shared.workers());
        self.shared.changed.notify_one();
        done
    }

    /// Describes what is left here.
    pub(crate) fn remains(&self) -> Option<String> {
        self.shared.workers().remains()
    }

    pub(crate) fn held(&self) -> usize {
        *self.shared.held.lock().expect("a thread panicked while it held the lock")
    }
}

impl Shared {
    fn workers(&self) -> MutexGuard<'_, Workers> {
        self.workers.lock().expect("a thread panicked while it held the lock")
    }
}

impl SessionWorkers for Shared {
    fn command(&mut self, command: Command) -> Result<(), String> {
        self.workers().command(command);
        Ok(())
    }

    fn work(&mut self, events: &mut Vec<AgentEvent>) -> bool {
        self.workers().work(events);
        false
    }

    async fn ready(&mut self) -> Result<(), String> {
        let due = self.workers().due();
        tokio::select! {
            biased;
            () = self.changed.notified() => {}
            () = at(due) => {}
        }
        Ok(())
    }

    fn hold(&mut self, hold: bool) {
        self.workers().hold(hold);
    }

    fn hold_pool(&mut self, pool: u64, hold: bool) {
        self.workers().hold_pool(pool, hold);
    }

    fn cancel_pool_stop(&mut self, pool: u64) {
        self.workers().cancel_pool_stop(pool);
    }

    fn drain(&mut self) {
        self.workers().drain();
    }

    fn is_drained(&self) -> bool {
        self.workers().is_drained()
    }

    fn stop_all(&mut self) {
        self.workers().stop_all();
    }

    fn is_empty(&self) -> bool {
        self.workers().is_empty()
    }
}

/// Connects an agent to the coordinator.
struct AgentConnector {
    host: Host,
    network: Network,
    address: Address,
    shared: Shared,
}

impl Connect for AgentConnector {
    fn connect(&mut self, frames: Frames<AgentEvent>) -> Connecting {
        let (host, network, address) = (self.host, self.network.clone(), self.address.clone());
        let frames = HelloObserver { frames, shared: self.shared.clone() };
        Box::pin(async move {
            network.connect(host, || address.server().is_some()).await?;
            let accept = |stream| address.server().map(|server| server.agent_session(stream));
            let commands: CommandFrames = Box::pin(network.call(host, frames, accept).await?);
            Ok::<_, Status>(commands)
        })
    }
}

/// Notes the contents of hellos.
struct HelloObserver {
    frames: Frames<AgentEvent>,
    shared: Shared,
}

impl Stream for HelloObserver {
    type Item = AgentFrame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<AgentFrame>> {
        let frame = Pin::new(&mut self.frames).poll_next(context);
        if let Poll::Ready(Some(frame)) = &frame {
            for event in frame.messages.iter() {
                if let Some(Event::Hello(hello)) = &event.body {
                    *self.shared.held.lock().expect("a thread panicked while it held the lock") = hello.held.len();
                    if !hello.held.is_empty() {
                        self.shared.workers().note_earlier_chunks();
                    }
                }
            }
        }
        frame
    }
}
