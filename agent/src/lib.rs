//! farpool's agent: the daemon of a host, which owns its slots and worker processes.
//!
//! [`Agent`] is the whole of it without its connection to a coordinator: it is told [`AgentCommand`]s and leaves
//! [`AgentEvent`]s. It has no thread of its own and never blocks; whoever drives it calls, in turn,
//! [`Agent::pump`] and [`Agent::arm`], and sleeps on [`Agent::epoll`]. In local mode the client's process drives it,
//! which saves two wake-ups a call.
//!
//! It never looks into functions, items and results.

pub mod clock;
pub mod exit_code;
pub mod fork_server;
pub mod link;

mod pool;

use std::sync::Arc;

use farpool_proto::v1::agent_command::Body;
use farpool_proto::v1::agent_event::Body as EventBody;
use farpool_proto::v1::{
    AgentCommand, AgentEvent, AgentHello, Failure, FailureKind, PoolFault, PoolStarted, PoolStopped, StartPool,
};
use nix::sys::epoll::{Epoll, EpollCreateFlags};

use fork_server::Program;
use pool::{Token, WorkerPool};

pub use pool::Armed;

/// A message of the coordinator's makes no sense; its session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolError {
    message: String,
}

impl ProtocolError {
    pub(crate) fn new(message: String) -> ProtocolError {
        ProtocolError { message }
    }
}

impl std::fmt::Display for ProtocolError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for ProtocolError {}

/// The pools of one host.
#[derive(Debug)]
pub struct Agent {
    host: Arc<str>,
    slots: u32,
    program: Program,
    epoll: Arc<Epoll>,
    pools: Vec<WorkerPool>,
    events: Vec<AgentEvent>,
}

impl Agent {
    /// An agent with so many slots, whose workers run `program`.
    pub fn new(slots: u32, program: Program) -> nix::Result<Agent> {
        let host = nix::unistd::gethostname()?.to_string_lossy().into_owned();
        let epoll = Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        let hello = AgentEvent {
            body: Some(EventBody::Hello(AgentHello { host: host.clone(), slots, ..AgentHello::default() })),
        };
        Ok(Agent { host: host.into(), slots, program, epoll, pools: Vec::new(), events: vec![hello] })
    }

    /// What becomes readable when something happens; its events' data is for [`Agent::ready`].
    pub fn epoll(&self) -> &Arc<Epoll> {
        &self.epoll
    }

    /// Does what the coordinator says.
    pub fn command(&mut self, command: AgentCommand) -> Result<(), ProtocolError> {
        let body = command.body.ok_or_else(|| ProtocolError::new("a command of the coordinator is empty".into()))?;
        match body {
            Body::StartPool(start) => self.start_pool(start),
            Body::StopPool(stop) => {
                if let Some(pool) = self.pools.iter_mut().find(|pool| pool.id == stop.pool) {
                    pool.stop(stop.now);
                }
            }
            Body::StartJob(start) => {
                let id = start.pool;
                let pool = self.pools.iter_mut().find(|pool| pool.id == id);
                pool.ok_or_else(|| ProtocolError::new(format!("a job was started in pool {id}, which is not here")))?
                    .start_job(start)?;
            }
            Body::EndJob(end) => {
                let now = clock::now();
                self.pools.iter_mut().for_each(|pool| pool.end_job(&end, now));
            }
            Body::Assign(assign) => self.assign(assign)?,
            Body::Welcome(_) | Body::ResizePool(_) | Body::Drain(_) => {}
            Body::Retract(retract) => {
                for chunk in retract.chunks {
                    self.pools.iter_mut().for_each(|pool| pool.retract(chunk));
                }
            }
        }
        Ok(())
    }

    /// A descriptor is ready: `data` is that of its epoll event.
    pub fn ready(&mut self, data: u64) {
        for pool in &mut self.pools {
            if let Some(token) = Token::unpack(data, pool.id) {
                pool.ready(token);
            }
        }
    }

    /// One round of work, which never blocks. What the coordinator should know is appended to `events`.
    pub fn pump(&mut self, events: &mut Vec<AgentEvent>) {
        events.append(&mut self.events);
        for pool in &mut self.pools {
            pool.pump(events);
        }
        self.pools.retain(|pool| !pool.is_over());
    }

    /// To be called before the driver sleeps: afterwards, whatever happens wakes it.
    pub fn arm(&mut self) -> Armed {
        let mut first: Option<u64> = None;
        for pool in &mut self.pools {
            match pool.arm() {
                Armed::Busy => return Armed::Busy,
                Armed::Until(None) => {}
                Armed::Until(Some(time)) => first = Some(first.map_or(time, |known| known.min(time))),
            }
        }
        Armed::Until(first)
    }

    fn start_pool(&mut self, start: StartPool) {
        let id = start.pool;
        match WorkerPool::start(start, self.slots, &self.program, &self.host, &self.epoll) {
            Ok(pool) => {
                self.pools.push(pool);
                self.events.push(AgentEvent { body: Some(EventBody::PoolStarted(PoolStarted { pool: id })) });
            }
            Err(error) => {
                let failure = Failure {
                    kind: FailureKind::Unavailable.into(),
                    message: format!("starting {}: {error}", self.program.path.display()),
                    host: self.host.to_string(),
                    ..Failure::default()
                };
                self.events.push(AgentEvent {
                    body: Some(EventBody::PoolFault(PoolFault { pool: id, failure: Some(failure) })),
                });
                self.events.push(AgentEvent { body: Some(EventBody::PoolStopped(PoolStopped { pool: id })) });
            }
        }
    }

    fn assign(&mut self, assign: farpool_proto::v1::Assign) -> Result<(), ProtocolError> {
        // All chunks of a message are of one pool; which one, its jobs tell.
        let Some(job) = assign.chunks.first().map(|chunk| chunk.job) else { return Ok(()) };
        let pool = self.pools.iter_mut().find(|pool| pool.has_job(job));
        pool.ok_or_else(|| ProtocolError::new(format!("a chunk is of job {job}, which was not started")))?
            .assign(assign)
    }
}
