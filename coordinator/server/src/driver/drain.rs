//! The shutdown of the server: open pools finish, new ones are refused.

use farpool_common::log::info;

use super::clients::Clients;
use super::detached::Detached;
use super::round::Round;

/// How often to log what the shutdown waits for, in ns.
const LOG_NS: u64 = 10_000_000_000;
/// How long agents may take to end workers after the last client has left, in ns.
const WORKERS_NS: u64 = 5_000_000_000;

#[derive(Default)]
pub(super) struct Drain {
    next_log: u64,
    /// When the last client left.
    last_client_left_at: Option<u64>,
}

impl Drain {
    pub(super) fn next_check(&self) -> u64 {
        self.last_client_left_at.map_or(self.next_log, |since| since.saturating_add(WORKERS_NS))
    }

    /// Logs from time to time what the shutdown waits for.
    pub(super) fn log_progress(&mut self, round: &Round, clients: &Clients) {
        let pools = clients.with_pools().count();
        if pools == 0 {
            self.last_client_left_at.get_or_insert(round.now);
        } else if round.now >= self.next_log {
            self.next_log = round.now.saturating_add(LOG_NS);
            let addresses = clients.with_pools().filter_map(|client| client.session.address).take(3);
            let mut addresses = addresses.map(|address| address.to_string()).collect::<Vec<_>>().join(",");
            if pools > 3 {
                addresses += ",...";
            }
            info!(round.link.log, pools, clients = addresses, "shutting down: waiting for open pools");
        }
    }

    /// Returns whether the server can stop.
    pub(super) fn is_over(&self, round: &Round, clients: &Clients, detached: &Detached) -> bool {
        let Some(since) = self.last_client_left_at else { return false };
        // The next coordinator resumes detached jobs, and agents keep their items until then. Clients that detach or read them
        // reconnect to it.
        let others = || round.coordinator.pool_clients().any(|(_, client)| !detached.is_internal(client));
        clients.with_pools().next().is_none() && (!others() || round.now.saturating_sub(since) >= WORKERS_NS)
    }
}
