//! Detached jobs with a coordinator whose every message the tests choose.

mod reading;
mod sending;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use farpool_proto::v1::{DetachedJob, DetachedState, OpenPool, Program};
use farpool_session::detached::{JobLocation, JobRef};
use farpool_session::{Address, caller_driven};
use farpool_testkit::coordinator::clients::{self, Peer, Server};

use super::Detached;
use crate::codec;
use crate::fake_session::FakeSession;
use crate::pool::Pool;

/// Longer than any test takes.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts a coordinator that forgets sessions whose connection is lost, so that each connection begins another one.
fn start() -> Server {
    let server = Server::start();
    server.forget_lost_sessions();
    server
}

/// Starts such a coordinator at this address.
fn start_at(address: SocketAddr) -> Server {
    let server = Server::start_at(address);
    server.forget_lost_sessions();
    server
}

fn location(server: &Server, reconnect_timeout: Duration) -> JobLocation {
    JobLocation { address: Address::parse(&server.url()).unwrap(), reconnect_timeout }
}

/// A pool whose detached jobs go to this server.
fn pool(server: &Server, reconnect_timeout: Duration, payload_limit: u64) -> Pool {
    let program = Program { digest: caller_driven::own_digest().unwrap(), ..Program::default() };
    let open = OpenPool { processes: 7, program: program.packed(), ..OpenPool::default() };
    let detach_settings = caller_driven::own_detach_settings(location(server, reconnect_timeout), open).unwrap();
    let (session, pool): (Arc<FakeSession>, _) =
        FakeSession::mapping(|n: u64| n).with_detach_settings(detach_settings).pool_with_limit(payload_limit);
    drop(session);
    pool
}

fn attached(server: &Server, reconnect_timeout: Duration) -> Detached<u64> {
    Detached::new(location(server, reconnect_timeout), JobRef::by_name("nightly"))
}

fn running(items: u64) -> DetachedJob {
    DetachedJob {
        name: "nightly".to_owned(),
        state: DetachedState::Running.into(),
        items,
        result: std::any::type_name::<u64>().to_owned(),
        detached_ms: 1_795_000_000_000,
        format: codec::DETACHED_FORMAT,
        ..DetachedJob::default()
    }
}

fn encoded(value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(&value, &mut bytes).unwrap();
    bytes
}

/// Sends these results of the items from `first` on.
fn send_done(peer: &Peer, first: u64, results: &[&[u8]]) {
    peer.send(clients::done(1, first, results));
}

/// Sends the doubles of these items as results.
fn send_doubles(peer: &Peer, items: std::ops::Range<u64>) {
    let results: Vec<_> = items.clone().map(|item| encoded(2 * item)).collect();
    let results: Vec<_> = results.iter().map(Vec::as_slice).collect();
    send_done(peer, items.start, &results);
}

fn doubles(items: u64) -> Vec<u64> {
    (0..items).map(|item| 2 * item).collect()
}
