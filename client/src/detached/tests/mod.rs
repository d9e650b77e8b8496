//! Detached jobs with a coordinator whose every word is chosen here.

mod reading;
mod sending;
mod server;

use std::sync::Arc;
use std::time::Duration;

use farpool_proto::v1::{DetachedJob, DetachedState, OpenPool, Program};
use farpool_session::by_hand;
use farpool_session::detached::{Named, Place};

use super::Detached;
use crate::codec;
use crate::fake_session::FakeSession;
use crate::pool::Pool;
use server::{Call, SOON, Server};

/// As long as it takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn place(server: &Server, patience: Duration) -> Place {
    Place { address: server.address.clone(), patience }
}

/// A pool whose detached jobs go to this server.
fn pool(server: &Server, patience: Duration, payload_limit: u64) -> Pool {
    let program = Program { digest: by_hand::own_digest().unwrap(), ..Program::default() };
    let open = OpenPool { processes: 7, program: program.packed(), ..OpenPool::default() };
    let ground = by_hand::own_ground(place(server, patience), open).unwrap();
    let (session, pool): (Arc<FakeSession>, _) =
        FakeSession::mapping(|n: u64| n).on(ground).pool_with_limit(payload_limit);
    drop(session);
    pool
}

fn attached(server: &Server, patience: Duration) -> Detached<u64> {
    Detached::new(place(server, patience), Named::whichever("nightly"))
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
