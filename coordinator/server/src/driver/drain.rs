//! The end of the server: pools that are open finish, new ones are refused.

use tonic_health::ServingStatus;

use super::super::link::shutting_down;
use super::Driver;
use farpool_common::log::info;

/// How often it is said what is waited for, in ns.
const WORD_NS: u64 = 10_000_000_000;
/// How long agents have to end workers when no client is left, in ns.
const WORKERS_NS: u64 = 5_000_000_000;

#[derive(Default)]
pub(super) struct Drain {
    next_word: u64,
    /// When the last client was gone.
    alone_since: Option<u64>,
}

impl Drain {
    pub(super) fn next_look(&self) -> u64 {
        self.alone_since.map_or(self.next_word, |since| since.saturating_add(WORKERS_NS))
    }
}

impl Driver {
    pub(super) async fn begin_to_drain(&mut self) {
        self.drain = Some(Drain::default());
        self.health.say(ServingStatus::NotServing).await;
    }

    pub(super) fn tend_drain(&mut self) {
        let Some(drain) = &mut self.drain else { return };
        let clients = self.clients.len();
        if clients == 0 {
            drain.alone_since.get_or_insert(self.now);
        } else if self.now >= drain.next_word {
            drain.next_word = self.now.saturating_add(WORD_NS);
            let addresses = self.clients.values().filter_map(|client| client.session.address).take(3);
            let mut addresses = addresses.map(|address| address.to_string()).collect::<Vec<_>>().join(",");
            if clients > 3 {
                addresses += ",...";
            }
            info!(self.link.log, pools = clients, clients = addresses, "shutting down: waiting for open pools");
        }
    }

    /// Nothing is left to be done, and nothing more will come.
    pub(super) fn is_over(&self) -> bool {
        let Some(Drain { alone_since: Some(since), .. }) = self.drain else { return false };
        // Detached jobs go on when there is a coordinator again, and agents keep what they have of them.
        let others = || self.coordinator.pool_clients().any(|(_, client)| !self.detached.plays(client));
        self.clients.is_empty() && (!others() || self.now.saturating_sub(since) >= WORKERS_NS)
    }

    pub(super) fn say_goodbye(mut self) {
        self.detached.dismiss();
        info!(self.link.log, "shut down");
        self.dismiss_agents(&shutting_down());
    }
}
