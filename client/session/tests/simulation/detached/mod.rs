//! Detached jobs in a history: clients that detach them, clients that attach to them, and checks at the end.

mod attacher;
mod detacher;
mod known_jobs;

use std::time::Duration;

use farpool_proto::v1::OpenJob;
use farpool_session::caller_driven::ReadEvent;
use farpool_testkit::random::{Random, mix};
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::connector::ClientConnector;
use crate::coordinator::Address;
use crate::network::{Host, Network};
use crate::plan::{JobPlan, Plan};
use crate::trace;
use crate::world::Fault;
use attacher::{Attacher, Permissions};
use detacher::{Detacher, detach};
use known_jobs::KnownJobs;

/// The first host numbers of clients that detach, and of those that attach.
const DETACHERS: Host = 3000;
const ATTACHERS: Host = 4000;
/// The host of the client that reads everything at the end.
const FINAL_ATTACHER: Host = 5000;

pub(crate) struct Detached {
    plan: Plan,
    known_jobs: KnownJobs,
    /// Separate, so that histories do not depend on whether they have detached jobs.
    pub(crate) random: Random,
}

impl Detached {
    /// Creates them for every third history.
    pub(crate) fn of(seed: u64, plan: &Plan) -> Option<Self> {
        (seed % 3 == 1).then(|| Self {
            plan: plan.clone(),
            known_jobs: KnownJobs::new(plan.clone()),
            random: Random::new(mix(seed)),
        })
    }

    /// Adds faults that matter most for detached jobs.
    pub(crate) fn add_faults(&mut self, kinds: &mut Vec<Fault>) {
        use Fault::{FailDisk, KillClient, KillCoordinator, SlowDisk, StopCoordinator};
        for fault in [KillCoordinator, StopCoordinator, KillClient, FailDisk, SlowDisk] {
            if self.random.one_in(3) {
                kinds.push(fault);
            }
        }
    }

    /// Starts the clients that detach and attach.
    pub(crate) fn start(&mut self, network: &Network, address: &Address, faults: bool, may_fail: bool) -> Vec<Client> {
        let names: Vec<String> = (0..self.random.within(1..4)).map(|number| format!("kept{number}")).collect();
        let permissions =
            Permissions { names: names.clone(), cancels: self.random.one_in(3), discards: self.random.one_in(4) };
        let mut clients = Vec::new();
        let connector = |host, random: &mut Random| {
            network.set_delay(host, random.pick(&[50, 500, 20_000]));
            ClientConnector { host, network: network.clone(), address: address.clone() }
        };
        for (name, host) in names.into_iter().zip(DETACHERS..) {
            let connector = connector(host, &mut self.random);
            let (plan, known_jobs, random) = (self.plan.clone(), self.known_jobs.clone(), self.random.fork());
            clients.push(Client::run(
                host,
                Detacher { connector, plan, known_jobs, name, faults, may_fail, random }.run(),
            ));
        }
        for host in ATTACHERS..ATTACHERS + self.random.within(0..4) as Host {
            let attacher =
                Attacher::new(connector(host, &mut self.random), self.known_jobs.clone(), self.random.fork());
            clients.push(Client::run(host, attacher.run(permissions.clone())));
        }
        clients
    }

    /// Checks, after the last fault, that all confirmed jobs exist and can be discarded. `detach_timeout`: how long the
    /// coordinator waits for clients that are detaching.
    pub(crate) async fn come_to_rest(&mut self, network: &Network, address: &Address, detach_timeout: Duration) {
        let connector = ClientConnector { host: FINAL_ATTACHER, network: network.clone(), address: address.clone() };
        let mut attacher = Attacher::new(connector, self.known_jobs.clone(), self.random.fork());
        // Dropped jobs are checked last: their names are reused, which needs room.
        let (whole, partial): (Vec<_>, Vec<_>) =
            self.known_jobs.names().into_iter().partition(|name| self.known_jobs.job(name).all_sent);
        for name in whole.iter().chain(&partial) {
            if partial.contains(name) {
                self.check_incomplete_job_is_dropped(name, &mut attacher, detach_timeout).await;
            } else if !matches!(attacher.read(name, true, None).await, Some(ReadEvent::Broken(_))) {
                attacher.read(name, false, None).await;
                // An outage may have hidden this from its client.
                self.known_jobs.change(name, |job| job.kept = true);
                let _ = attacher.ask(name).await;
            }
            attacher.discard(name).await;
            if attacher.ask(name).await.is_ok() {
                trace::violation(format_args!("{name} exists although it was discarded"));
            }
        }
    }

    /// Checks that an incomplete job is dropped, and that its name is free.
    async fn check_incomplete_job_is_dropped(&mut self, name: &str, attacher: &mut Attacher, detach_timeout: Duration) {
        let late = Instant::now() + detach_timeout + Duration::from_secs(30);
        while attacher.ask(name).await.is_ok() {
            if Instant::now() >= late || trace::is_violated() {
                return trace::violation(format_args!("{name} still exists, and no client is detaching it"));
            }
            sleep(Duration::from_secs(1)).await;
        }
        let tag = self.plan.add_job(JobPlan::default());
        self.known_jobs.begin(name, tag, 0);
        let (pool, open) = detach(name, OpenJob::default(), &mut self.random);
        let (detaching_job, sent) = attacher.client.detach(pool, open);
        self.known_jobs.change(name, |job| job.all_sent = true);
        detaching_job.end_input();
        match sent.await {
            Ok(()) => self.known_jobs.change(name, |job| job.kept = true),
            Err(error) => return trace::violation(format_args!("the name {name} is not free: {error}")),
        }
        if !matches!(attacher.read(name, true, None).await, Some(ReadEvent::Finished)) {
            trace::violation(format_args!("{name}, which has no items, does not finish"));
        }
    }
}
