//! A fake Operators service on loopback, which answers what a test chooses.

use std::sync::{Arc, Mutex};

use farpool_proto::v1::clients_server::ClientsServer;
use farpool_proto::v1::detached_jobs_server::DetachedJobsServer;
use farpool_proto::v1::operators_server::{Operators, OperatorsServer};
use farpool_proto::v1::{
    AgentStatus, CancelJobReply, CancelJobRequest, DrainAgentReply, DrainAgentRequest, FileAside, JobStatus,
    JournalStatus, Label, PoolStatus, StatusReply, StatusRequest, Version,
};
use farpool_testkit::coordinator::clients;
use farpool_testkit::served::Served;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::detached_server::{DetachedServer, KeptJob};

/// A running service.
pub(crate) struct Service {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
    _served: Served,
}

#[derive(Default)]
pub(crate) struct State {
    status: StatusReply,
    /// The requests, as text.
    pub(crate) requests: Vec<String>,
    /// How many more times a drained agent is shown before it has left.
    shown: Option<u32>,
}

impl Service {
    pub(crate) fn start(status: StatusReply) -> Service {
        Self::keeping(status, Vec::new())
    }

    /// Starts a service with detached jobs.
    pub(crate) fn keeping(status: StatusReply, kept: Vec<KeptJob>) -> Service {
        let state = Arc::new(Mutex::new(State { status, ..State::default() }));
        let handler = Handler(Arc::clone(&state));
        let detached = DetachedServer::new(Arc::clone(&state), kept);
        let answers = detached.clone();
        let services = Server::builder()
            .add_service(OperatorsServer::new(handler))
            .add_service(ClientsServer::new(clients::Service::answering(move |peer| answers.answer(&peer))))
            .add_service(DetachedJobsServer::new(detached));
        let served = Served::start(services);
        Service { address: served.url(), state, _served: served }
    }

    /// Returns the requests since the last call.
    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

struct Handler(Arc<Mutex<State>>);

#[tonic::async_trait]
impl Operators for Handler {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let mut state = self.0.lock().unwrap();
        state.requests.push("status".to_owned());
        match &mut state.shown {
            Some(0) => state.status.agents.clear(),
            Some(more) => *more -= 1,
            None => {}
        }
        Ok(Response::new(state.status.clone()))
    }

    async fn cancel_job(&self, request: Request<CancelJobRequest>) -> Result<Response<CancelJobReply>, Status> {
        let job = request.into_inner().job;
        let mut state = self.0.lock().unwrap();
        state.requests.push(format!("cancel {job}"));
        match &*job {
            "403" => Err(Status::permission_denied("only its owner may")),
            _ if state.status.jobs.iter().any(|known| known.job == job) => Ok(Response::new(CancelJobReply {})),
            _ => Err(Status::not_found(format!("there is no job {job:?}"))),
        }
    }

    async fn drain_agent(&self, request: Request<DrainAgentRequest>) -> Result<Response<DrainAgentReply>, Status> {
        let name = request.into_inner().agent;
        let mut state = self.0.lock().unwrap();
        state.requests.push(format!("drain {name}"));
        state.shown = Some(2);
        match state.status.agents.iter().find(|agent| agent.agent == name || agent.host == name) {
            Some(agent) => Ok(Response::new(DrainAgentReply { agent: agent.agent.clone() })),
            None => Err(Status::not_found(format!("there is no agent {name:?}"))),
        }
    }
}

/// Returns the status of a busy cluster.
pub(crate) fn busy_cluster() -> StatusReply {
    let label = |key: &str, value: &str| Label { key: key.to_owned(), value: value.to_owned() };
    StatusReply {
        version: Some(Version { release: "1.2.3".to_owned(), protocol: 9 }),
        uptime_ns: 3_660_000_000_000,
        draining: false,
        pools_left_out: 0,
        jobs_left_out: 0,
        agents: vec![
            AgentStatus {
                agent: "a1b2".to_owned(),
                host: "node1".to_owned(),
                release: "1.2.3".to_owned(),
                labels: vec![label("gpu", "a100"), label("os", "linux")],
                slots: 64,
                busy: 12,
                chunks: 140,
                connected_ns: 61_000_000_000,
                items_done: 123_456,
                items_per_second: 1234.5,
                ..AgentStatus::default()
            },
            AgentStatus {
                agent: "c3d4".to_owned(),
                host: "evil\x1b[2J".to_owned(),
                slots: 4,
                draining: true,
                ..AgentStatus::default()
            },
            AgentStatus {
                agent: "e5f6".to_owned(),
                host: "node2".to_owned(),
                slots: 4,
                unhealthy: "killed by SIGKILL".to_owned(),
                ..AgentStatus::default()
            },
            AgentStatus {
                agent: "a7b8".to_owned(),
                host: "node3".to_owned(),
                slots: 4,
                away: true,
                ..AgentStatus::default()
            },
        ],
        pools: vec![PoolStatus {
            pool: "3".to_owned(),
            name: "thumbnails".to_owned(),
            client: "10.0.0.7:51000".to_owned(),
            processes: 0,
            slots: 68,
            weight: 2,
            require: vec![label("os", "linux")],
            jobs: 1,
            waiting: "an agent with gpu=h100".to_owned(),
            open_ns: 1_500_000_000,
        }],
        jobs: vec![JobStatus {
            job: "31".to_owned(),
            pool: "3".to_owned(),
            label: "resize".to_owned(),
            priority: -1,
            items: 5000,
            done: 1200,
            failed: 3,
            assigned: 140,
            open_ns: 1_000_000_000,
            items_per_second: 99.5,
            ..JobStatus::default()
        }],
        held_bytes: 3 << 20,
        memory: 4 << 30,
        late_messages: 7,
        journal: Some(JournalStatus {
            bytes: 5 << 20,
            size: 10 << 30,
            jobs: 3,
            damage: vec!["0000000002.farpool-journal is missing, and 5.0 MiB of it were durable\x1b".to_owned()],
            failing: "the disk is full\x1b".to_owned(),
            aside: ["0000000001.farpool-journal.damaged-20261130T021338Z", "evil\x1b"]
                .map(|name| FileAside { name: name.to_owned(), bytes: 3 << 20 })
                .into(),
        }),
    }
}
