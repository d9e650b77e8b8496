//! Sessions, pools and detached jobs belong to their owners: no other principal gets them, whatever it knows of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use farpool_coordinator::Principal;
use farpool_coordinator_server::Settings;
use farpool_net::http2;
use farpool_proto::v1::detached_jobs_client::DetachedJobsClient;
use farpool_proto::v1::{
    AgentHello, CancelDetachedRequest, DetachedState, DiscardDetachedRequest, HeldChunk, HeldPool, ListDetachedRequest,
    OpenJob, OpenPool, PoolReopened, Principal as Named,
};
use farpool_testkit::cable::Cable;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::agent::{Agent, Command, hello};
use crate::client::{Client, Request, id, open_pool_as, secret};
use crate::detached::{Scratch, detach, detached_over, detaching, outcomes};
use crate::restart::{HELD, adopted, result};
use crate::server::{self, Server, soon};

/// Ada and Ben are of one tenant, Eve is of another. Each has an address: 127.0.0.N.
const ADA: u8 = 2;
const BEN: u8 = 3;
const EVE: u8 = 4;

fn of_address(address: Option<SocketAddr>) -> Principal {
    match address.map(|address| address.ip()) {
        Some(IpAddr::V4(ip)) if ip == address_of(ADA) => Principal::new("maths", "ada"),
        Some(IpAddr::V4(ip)) if ip == address_of(BEN) => Principal::new("maths", "ben"),
        Some(IpAddr::V4(ip)) if ip == address_of(EVE) => Principal::new("physics", "eve"),
        _ => Principal::local(),
    }
}

fn address_of(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, number)
}

fn set_principals(settings: &mut Settings) {
    settings.limits.principal = of_address;
    settings.heartbeat_timeout = Duration::from_millis(1500);
}

/// Connects from the address of one of them.
async fn connect(server: &Server, who: u8) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).expect("invalid address");
    let endpoint = endpoint.local_address(Some(address_of(who).into()));
    let connected = http2::endpoint(endpoint, Duration::from_secs(5)).connect().await;
    connected.expect("cannot connect to the server")
}

#[tokio::test]
async fn only_the_owner_resumes_a_session() {
    let server = Server::with(set_principals).await;
    let _agent = Agent::echo(&server, 1, 1).await;
    let cable = Cable::to(server.address);
    let mut client = Client::opened_over(server::connect(cable.socket()).await, open_pool_as(9)).await;
    client.check_works(1).await;
    for other in [BEN, EVE] {
        // The other principal knows the secret.
        let mut thief = Client::opened_over(connect(&server, other).await, open_pool_as(other)).await;
        let refused = thief.resume(connect(&server, other).await, 9).await.map_err(|status| status.code());
        assert_eq!(refused, Err(Code::NotFound));
        // A pool that the other principal opens with this secret is a different pool.
        let mut own = Client::opened_over(connect(&server, other).await, open_pool_as(9)).await;
        own.check_works(1).await;
        client.check_works(u64::from(other)).await;
    }
    cable.cut();
    client.resume(server::connect(cable.socket()).await, 9).await.expect("the session ended");
    client.check_works(9).await;
}

fn reopened_pool(number: u8) -> OpenPool {
    OpenPool { again: true, agents: vec![id(1)], ..open_pool_as(number) }
}

fn reopen(client: &Client) {
    client.send(Request::OpenJob(Box::new(OpenJob { job: 1, chunksize: 1, retries: 2, ..OpenJob::default() })));
    client.items(1, 0, &[b"a"]);
    client.end_items(1);
    client.send(Request::PoolReopened(PoolReopened {}));
}

/// The hello of an agent that outlived a coordinator, with a pool of Ada's.
fn holding() -> AgentHello {
    let chunk = HeldChunk { chunk: 70, job: 1, attempt: 1, first: 0, runs: vec![0, 1] };
    let owner = Some(Named { tenant: "maths".to_owned(), name: "ada".to_owned() });
    let pool = HeldPool { pool: HELD, id: id(9), processes: 0, chunks: vec![chunk], owner, shared: Vec::new() };
    AgentHello { held: vec![pool], ..hello(1, 1) }
}

#[tokio::test]
async fn a_held_pool_is_adopted_only_for_its_owner_in_any_order() {
    for agent_first in [true, false] {
        let server = Server::with(set_principals).await;
        let mut agent = None;
        if agent_first {
            agent = Some(Agent::joined_over(server.connect().await, holding()).await);
        }
        // Ben knows the secret, but is not the owner. Eve does not know it. The third knows the id, which is public.
        let ben = Client::opened_over(connect(&server, BEN).await, reopened_pool(9)).await;
        let eve = Client::opened_over(connect(&server, EVE).await, reopened_pool(8)).await;
        let of_id = OpenPool { id: id(9), ..reopened_pool(7) };
        let local = Client::opened_over(server.connect().await, of_id).await;
        for thief in [&ben, &eve, &local] {
            reopen(thief);
        }
        let mut agent = match agent {
            Some(agent) => agent,
            None => Agent::joined_over(server.connect().await, holding()).await,
        };
        let mut ada = Client::opened_over(connect(&server, ADA).await, reopened_pool(9)).await;
        reopen(&ada);
        let adopt = adopted(&mut agent).await;
        assert_eq!((adopt.held, adopt.chunks.len()), (HELD, 1));
        agent.send(result(&adopt, 0, b"A"));
        let _agent = tokio::spawn(agent.work());
        assert_eq!(ada.results(1).await, [b"A"]);
        // The others' pools adopted nothing: their items run again, and the agent echoes them.
        for mut thief in [ben, eve, local] {
            assert_eq!(thief.results(1).await, [b"a"]);
        }
    }
}

#[tokio::test]
async fn agents_keep_the_owner_of_a_pool() {
    let server = Server::with(set_principals).await;
    let mut agent = Agent::joined(&server, 1, 1).await;
    let _client = Client::opened_over(connect(&server, ADA).await, open_pool_as(9)).await;
    let start = loop {
        let commands = soon("a pool", agent.next()).await.expect("the session ended").expect("the session ended");
        let start = commands
            .into_iter()
            .find_map(|command| if let Command::StartPool(start) = command { Some(start) } else { None });
        if let Some(start) = start {
            break start;
        }
    };
    assert_eq!(start.id, id(9));
    assert_eq!(start.owner, Some(Named { tenant: "maths".to_owned(), name: "ada".to_owned() }));
}

#[tokio::test]
async fn knowing_an_agents_id_is_not_enough_to_replace_it() {
    let server = Server::with(set_principals).await;
    let agent = Agent::echo(&server, 1, 1).await;
    let mut client = Client::open(&server).await;
    client.check_works(1).await;
    // Everybody can see the id. An id that an agent sends in its hello is ignored.
    let posing = Agent::joined_over(server.connect().await, AgentHello { id: id(1), ..hello(5, 1) }).await;
    let mut resuming = Agent::joined(&server, 6, 1).await;
    assert_eq!(
        resuming.resume(connect(&server, EVE).await, 1).await.map_err(|status| status.code()),
        Err(Code::NotFound)
    );
    let status = server.until("both", |status| status.agents.len() == 2).await;
    assert_ne!(status.agents[0].agent, status.agents[1].agent);
    drop(resuming);
    assert!(!agent.is_finished());
    drop(posing);
    client.check_works(2).await;
}

#[tokio::test]
async fn names_of_detached_jobs_are_unique_within_a_tenant() {
    let scratch = Scratch::new();
    let server = scratch.server_with(set_principals).await;
    detached_over(&server, connect(&server, ADA).await, detach("one", 1), 3).await;
    // Another tenant may use the same name. Within the tenant nobody may, whatever secret they send.
    detached_over(&server, connect(&server, EVE).await, detach("one", 2), 5).await;
    for secret in [1, 3] {
        let mut taken = detaching(connect(&server, BEN).await, detach("one", secret)).await;
        taken.must_be_refused(Code::AlreadyExists, "already is a job \"one\"").await;
    }
    let agent = Agent::echo(&server, 1, 2).await;
    let check = async |server: &Server, who, expected: &[(&str, u64)]| {
        let mut jobs = DetachedJobsClient::new(connect(server, who).await);
        let list = jobs.list(ListDetachedRequest {}).await.expect("the request failed").into_inner().jobs;
        let found: Vec<_> = list.iter().map(|job| (&*job.name, job.items)).collect();
        assert_eq!(found, expected, "{who}");
        for (name, items) in expected {
            let (job, outcomes, _) = outcomes(connect(server, who).await, name, 0, true).await;
            assert_eq!((job.items, outcomes.len() as u64), (*items, *items));
        }
    };
    check(&server, ADA, &[("one", 3)]).await;
    check(&server, BEN, &[("one", 3)]).await;
    check(&server, EVE, &[("one", 5)]).await;
    check(&server, 1, &[]).await;
    // A tenant can end only its own jobs.
    let mut local = DetachedJobsClient::new(server.connect().await);
    let cancelled = local.cancel(CancelDetachedRequest { name: "one".to_owned(), ..Default::default() }).await;
    assert_eq!(cancelled.expect_err("a missing job was found").code(), Code::NotFound);
    let mut eve = DetachedJobsClient::new(connect(&server, EVE).await);
    eve.discard(DiscardDetachedRequest { name: "one".to_owned(), ..Default::default() }).await.expect("no such job");
    check(&server, EVE, &[]).await;
    check(&server, ADA, &[("one", 3)]).await;
    // The same holds after a restart.
    agent.abort();
    server.kill_and_wait().await;
    let server = scratch.server_with(set_principals).await;
    check(&server, BEN, &[("one", 3)]).await;
    check(&server, EVE, &[]).await;
    detached_over(&server, connect(&server, EVE).await, detach("one", 4), 1).await;
    let mut eve = DetachedJobsClient::new(connect(&server, EVE).await);
    let list = eve.list(ListDetachedRequest {}).await.expect("the request failed").into_inner().jobs;
    assert_eq!((list.len(), list[0].state()), (1, DetachedState::Running));
}

#[tokio::test]
async fn listing_a_job_is_not_enough_to_continue_it() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let _receiving = detaching(server.connect().await, detach("one", 1)).await;
    let mut jobs = DetachedJobsClient::new(server.connect().await);
    let listed = loop {
        let list = jobs.list(ListDetachedRequest {}).await.expect("the request failed").into_inner().jobs;
        if let [job] = &list[..] {
            break job.id.clone();
        }
    };
    assert_eq!(listed, id(1));
    let mut posing = detach("one", 5);
    (posing.pool.id, posing.pool.secret) = (listed, secret(5));
    let mut posing = detaching(server.connect().await, posing).await;
    posing.must_be_refused(Code::AlreadyExists, "already is a job \"one\"").await;
}
