//! The coordinator: the real one, without a network.

use std::ffi::OsString;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farpool_coordinator::server::{Server, Settings};
use farpool_proto::v1::StatusReply;

use crate::network::{HEARTBEAT, Network};
use crate::process::Process;
use crate::random::Random;
use crate::trace;

/// Where the coordinator is, if it is there.
#[derive(Clone, Default)]
pub(crate) struct Address(Arc<Mutex<Option<Server>>>);

impl Address {
    pub(crate) fn server(&self) -> Option<Server> {
        self.0.lock().expect("nobody panics with it").clone()
    }
}

pub(crate) struct Coordinator {
    address: Address,
    settings: Settings,
    process: Option<Process>,
}

impl Coordinator {
    pub(crate) fn new(address: Address, random: &mut Random) -> Self {
        let arguments = ["farpool-coordinator", "--memory", "64MiB", "--programs", "/nowhere"].map(OsString::from);
        let mut settings = Settings::load(arguments).expect("the settings are right");
        settings.log = false;
        settings.heartbeat_timeout = HEARTBEAT;
        settings.reconnect_grace = Duration::from_millis(random.pick(&[0, 200, 2000, 2000, 4000]));
        // Small ones have clients wait for room.
        settings.window = random.pick(&[200, 2000, 64 << 20]);
        Self { address, settings, process: None }
    }

    pub(crate) fn start(&mut self, random: &mut Random) {
        if self.process.is_some() {
            return;
        }
        trace::say(format_args!("the coordinator starts"));
        self.settings.id = id(random);
        let (server, run) = Server::new(self.settings.clone(), pending());
        *self.address.0.lock().expect("nobody panics with it") = Some(server);
        self.process = Some(Process::start(run));
    }

    pub(crate) async fn kill(&mut self, network: &Network) {
        let Some(process) = self.process.take() else { return };
        trace::say(format_args!("the coordinator is killed"));
        network.cut(|_| true);
        self.address.0.lock().expect("nobody panics with it").take();
        process.kill().await;
    }

    pub(crate) fn stop(&self, stop: bool) {
        if let Some(process) = &self.process {
            process.stop(stop);
        }
    }

    /// What operators see.
    pub(crate) async fn status(&self) -> StatusReply {
        match self.address.server() {
            Some(server) => server.status().await.unwrap_or_default(),
            None => StatusReply::default(),
        }
    }
}

/// 16 bytes.
pub(crate) fn id(random: &mut Random) -> [u8; 16] {
    (u128::from(random.next()) << 64 | u128::from(random.next())).to_le_bytes()
}
