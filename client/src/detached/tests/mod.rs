//! Detached jobs with a coordinator whose every word is chosen here.

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
use server::{Call, SOON, Server};

/// As long as it takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn location(server: &Server, patience: Duration) -> JobLocation {
    JobLocation { address: server.address.clone(), reconnect_timeout: patience }
}

/// A pool whose detached jobs go to this server.
fn pool(server: &Server, patience: Duration, payload_limit: u64) -> Pool {
    let program = Program { digest: by_hand::own_digest().unwrap(), ..Program::default() };
    let open = OpenPool { processes: 7, program: program.packed(), ..OpenPool::default() };
    let detach_settings = by_hand::own_detach_settings(location(server, patience), open).unwrap();
    let (session, pool): (Arc<FakeSession>, _) =
        FakeSession::mapping(|n: u64| n).on(detach_settings).pool_with_limit(payload_limit);
    drop(session);
    pool
}

fn attached(server: &Server, patience: Duration) -> Detached<u64> {
    Detached::new(location(server, patience), JobRef::by_name("nightly"))
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

/// Says the doubles of these items.
fn say_doubles(call: &Call, items: std::ops::Range<u64>) {
    let results: Vec<_> = items.clone().map(|item| encoded(2 * item)).collect();
    let results: Vec<_> = results.iter().map(Vec::as_slice).collect();
    call.say_done(items.start, &results);
}

fn doubles(items: u64) -> Vec<u64> {
    (0..items).map(|item| 2 * item).collect()
}
