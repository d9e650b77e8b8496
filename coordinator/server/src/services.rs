//! The gRPC services.

use std::io;

use farpool_coordinator::{AgentId, ClientId};
use farpool_net::Replies;
use farpool_net::http2::MAX_GRPC_MESSAGE;
use farpool_proto::v1::agents_server::{self, Agents, AgentsServer};
use farpool_proto::v1::clients_server::{self, Clients, ClientsServer};
use farpool_proto::v1::detached_jobs_server::{self, DetachedJobsServer};
use farpool_proto::v1::operators_server::{self, OperatorsServer};
use farpool_proto::v1::{
    AgentCommand, AgentEvent, AgentFrame, ClientEvent, ClientFrame, ClientMessage, DESCRIPTORS, FetchProgramRequest,
    ProgramPiece, PutProgramReply,
};
use tonic::{Request, Response, Status, Streaming};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthService, HealthServer};
use tonic_health::server::HealthReporter;

use super::detached::DetachedEdge;
use super::link::{ControlRequest, Link};
use super::operators::OperatorsEdge;
use super::origin::source;
use super::programs::{Fetched, Programs};
use super::published_method::Published;
use super::router::Router;
use super::sessions::{Kind, open};
use super::settings::Settings;

/// Makes all services, and the health service that reports their state.
pub(super) fn services(settings: &Settings, link: &Link, programs: &Programs) -> Result<(Health, Router), io::Error> {
    let (own, health) = Health::new();
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (meters, link_to_loop) = (link.meters.clone(), link.clone());
    let (link, programs) = (link.clone(), programs.clone());
    let operators = OperatorsServer::new(OperatorsEdge { link: link.clone() });
    let operators = operators.max_decoding_message_size(SMALL_MESSAGE);
    let detached = DetachedJobsServer::new(DetachedEdge { link: link.clone() });
    let detached = detached.max_decoding_message_size(SMALL_MESSAGE);
    let agents = AgentsEdge { link: link.clone(), programs: programs.clone(), kind: Kind::agent(settings) };
    let agents = AgentsServer::new(agents);
    let clients = ClientsServer::new(ClientsEdge { link, programs, kind: Kind::client(settings) });
    let router = Router::new(meters, settings.limits.principal)
        .with(clients.max_decoding_message_size(MAX_GRPC_MESSAGE))
        .with(agents.max_decoding_message_size(MAX_GRPC_MESSAGE))
        .with(Published::new(detached, link_to_loop.clone(), "List", ControlRequest::ListDetached))
        .with(Published::new(operators, link_to_loop, "Status", |_, asker| ControlRequest::Status(asker)))
        .with(health)
        .with(reflection().build_v1().map_err(io::Error::other)?)
        .with(reflection().build_v1alpha().map_err(io::Error::other)?);
    Ok((own, router))
}

/// Whether the server accepts new work, as reported by its health service.
pub(super) struct Health {
    reporter: HealthReporter,
}

impl Health {
    pub(super) fn new() -> (Self, HealthServer<impl HealthService>) {
        let (reporter, service) = tonic_health::server::health_reporter();
        (Self { reporter }, service)
    }

    /// Sets the state of each service, and of the server as a whole, which has no name.
    pub(super) async fn report(&self, status: ServingStatus) {
        let services = [
            clients_server::SERVICE_NAME,
            detached_jobs_server::SERVICE_NAME,
            agents_server::SERVICE_NAME,
            operators_server::SERVICE_NAME,
        ];
        for name in [""].into_iter().chain(services) {
            self.reporter.set_service_status(name, status).await;
        }
    }
}

/// The largest request of an operator, and of an owner of detached jobs.
const SMALL_MESSAGE: usize = 64 << 10;

struct ClientsEdge {
    link: Link,
    programs: Programs,
    kind: Kind<ClientEvent, ClientMessage, ClientId>,
}

#[tonic::async_trait]
impl Clients for ClientsEdge {
    type SessionStream = Replies<ClientEvent>;

    async fn session(&self, request: Request<Streaming<ClientFrame>>) -> Result<Response<Self::SessionStream>, Status> {
        let (caller, frames) = source(&request);
        Ok(Response::new(open(frames, caller, &self.link, self.kind.clone())))
    }

    async fn put_program(
        &self,
        request: Request<Streaming<ProgramPiece>>,
    ) -> Result<Response<PutProgramReply>, Status> {
        let (caller, frames) = source(&request);
        self.programs.put(frames, &caller.meter).await?;
        Ok(Response::new(PutProgramReply {}))
    }
}

struct AgentsEdge {
    link: Link,
    programs: Programs,
    kind: Kind<AgentCommand, AgentEvent, AgentId>,
}

#[tonic::async_trait]
impl Agents for AgentsEdge {
    type SessionStream = Replies<AgentCommand>;
    type FetchProgramStream = Fetched;

    async fn session(&self, request: Request<Streaming<AgentFrame>>) -> Result<Response<Self::SessionStream>, Status> {
        let (caller, frames) = source(&request);
        Ok(Response::new(open(frames, caller, &self.link, self.kind.clone())))
    }

    async fn fetch_program(
        &self,
        request: Request<FetchProgramRequest>,
    ) -> Result<Response<Self::FetchProgramStream>, Status> {
        self.programs.fetch(&request.into_inner().digest).await.map(Response::new)
    }
}
