//! Detached jobs with a coordinator whose every message the tests choose.

mod reading;
mod sending;
mod server;

use std::sync::Arc;
use std::time::Duration;

use farpool_proto::v1::{DetachedJob, DetachedState, OpenPool, Program};
use farpool_session::by_hand;
use farpool_session::detached::{JobLocation, JobRef};

use super::Detached;
use crate::codec;
use crate::fake_session::FakeSession;
use crate::pool::Pool;
use server::{Call, Server, TIMEOUT};

/// Longer than any test takes.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);

fn location(server: &Server, reconnect_timeout: Duration) -> JobLocation {
    JobLocation { address: server.address.clone(), reconnect_timeout }
}

/// A pool whose detached jobs go to this server.
fn pool(server: &Server, reconnect_timeout: Duration, payload_limit: u64) -> Pool {
    let program = Program { digest: by_hand::own_digest().unwrap(), ..Program::default() };
    let open = OpenPool { processes: 7, program: program.packed(), ..OpenPool::default() };
    let detach_settings = by_hand::own_detach_settings(location(server, reconnect_timeout), open).unwrap();
    let (session, pool): (Arc<FakeSession>, _) =
        FakeSession::mapping(|n: u64| n).on(detach_settings).pool_with_limit(payload_limit);
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

/// Sends the doubles of these items as results.
fn send_doubles(call: &Call, items: std::ops::Range<u64>) {
    let results: Vec<_> = items.clone().map(|item| encoded(2 * item)).collect();
    let results: Vec<_> = results.iter().map(Vec::as_slice).collect();
    call.send_done(items.start, &results);
}

fn doubles(items: u64) -> Vec<u64> {
    (0..items).map(|item| 2 * item).collect()
}
