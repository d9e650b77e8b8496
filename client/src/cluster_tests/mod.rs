//! Sessions with a fake coordinator, whose every message a test chooses.

mod driving;
mod messages;
mod opening;
mod reading;
mod reconnecting;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use farpool_proto::v1::WorkerSettings;
use farpool_session::{Address, Program, Session, Settings, Target};
use farpool_testkit::coordinator::clients::{Peer, Server};

use crate::codec;
use crate::error::Error;
use crate::output::Terminal;
use crate::pool::Pool;

fn settings(processes: u32) -> Settings {
    let settings = WorkerSettings { payload_limit: 1 << 30, ..WorkerSettings::default() };
    Settings {
        processes,
        program: Program::own(),
        settings,
        require: Vec::new(),
        weight: 1,
        environment: Vec::new(),
        reconnect_timeout: Duration::ZERO,
    }
}

fn address_of(server: &Server) -> Address {
    Address::parse(&server.url()).unwrap()
}

fn open(address: &Address, settings: Settings) -> Result<Pool, Error> {
    let payload_limit = settings.settings.payload_limit;
    let session = Session::open(Target::Cluster(address.clone()), settings, Arc::new(Terminal))?;
    Ok(Pool::with_session(session, payload_limit))
}

/// Returns a server and a pool that a client has opened there with two slots.
fn opened() -> (Server, Peer, Pool) {
    opened_with(Duration::ZERO)
}

/// Returns a server and a pool with two slots and this reconnect timeout.
fn opened_with(reconnect_timeout: Duration) -> (Server, Peer, Pool) {
    opened_with_settings(|settings| settings.reconnect_timeout = reconnect_timeout)
}

fn opened_with_settings(change: impl FnOnce(&mut Settings)) -> (Server, Peer, Pool) {
    let server = Server::start();
    let address = address_of(&server);
    let mut settings = settings(0);
    change(&mut settings);
    let client = thread::spawn(move || open(&address, settings));
    let peer = server.next_session();
    peer.welcome(2);
    let pool = client.join().unwrap().unwrap();
    (server, peer, pool)
}

fn encoded(value: &impl crate::args::Data) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(value, &mut bytes).unwrap();
    bytes
}

fn double(n: u64) -> u64 {
    2 * n
}
