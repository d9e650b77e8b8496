//! Detached jobs in a history: who detaches them, who picks them up, and what must be left of them in the end.

mod books;
mod owner;
mod picker;

use std::time::Duration;

use farpool_proto::v1::OpenJob;
use farpool_session::by_hand::ReadEvent;
use farpool_testkit::random::{Random, mix};
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::coordinator::Address;
use crate::network::{Host, Network};
use crate::plan::{JobPlan, Plan};
use crate::trace;
use crate::way::Way;
use crate::world::Fault;
use books::Books;
use owner::{Owner, detach};
use picker::{Licence, Picker};

/// From here on the hosts of those are called who detach, and of those who pick up.
const OWNERS: Host = 3000;
const PICKERS: Host = 4000;
/// The host of who picks up all in the end.
const SWEEPER: Host = 5000;

pub(crate) struct Detached {
    plan: Plan,
    books: Books,
    /// It has a source of chance of its own, so that histories without detached jobs are what they would be anyway.
    pub(crate) random: Random,
}

impl Detached {
    /// Every third history has some.
    pub(crate) fn of(seed: u64, plan: &Plan) -> Option<Self> {
        (seed % 3 == 1).then(|| Self {
            plan: plan.clone(),
            books: Books::new(plan.clone()),
            random: Random::new(mix(seed)),
        })
    }

    /// Faults that matter more here than elsewhere, or are only here.
    pub(crate) fn add_faults(&mut self, kinds: &mut Vec<Fault>) {
        use Fault::{FailDisk, KillClient, KillCoordinator, SlowDisk, StopCoordinator};
        for fault in [KillCoordinator, StopCoordinator, KillClient, FailDisk, SlowDisk] {
            if self.random.one_in(3) {
                kinds.push(fault);
            }
        }
    }

    /// Those who have to do with them.
    pub(crate) fn start(&mut self, network: &Network, address: &Address, faults: bool, may_fail: bool) -> Vec<Client> {
        let names: Vec<String> = (0..self.random.within(1..4)).map(|number| format!("kept{number}")).collect();
        let licence = Licence { names: names.clone(), cancels: self.random.one_in(3), discards: self.random.one_in(4) };
        let mut clients = Vec::new();
        let way = |host, random: &mut Random| {
            network.set_delay(host, random.pick(&[50, 500, 20_000]));
            Way { host, network: network.clone(), address: address.clone() }
        };
        for (name, host) in names.into_iter().zip(OWNERS..) {
            let way = way(host, &mut self.random);
            let (plan, books, random) = (self.plan.clone(), self.books.clone(), self.random.fork());
            clients.push(Client::run(host, Owner { way, plan, books, name, faults, may_fail, random }.run()));
        }
        for host in PICKERS..PICKERS + self.random.within(0..4) as Host {
            let picker = Picker::new(way(host, &mut self.random), self.books.clone(), self.random.fork());
            clients.push(Client::run(host, picker.run(licence.clone())));
        }
        clients
    }

    /// Nothing happens any more: all that the coordinator has promised is there, and goes when it is not wanted any more.
    /// `patience`: how long it waits for who detaches.
    pub(crate) async fn come_to_rest(&mut self, network: &Network, address: &Address, patience: Duration) {
        let way = Way { host: SWEEPER, network: network.clone(), address: address.clone() };
        let mut picker = Picker::new(way, self.books.clone(), self.random.fork());
        // What has gone by itself is asked for last: its name is to be taken again, for which there must be room.
        let (whole, partial): (Vec<_>, Vec<_>) =
            self.books.names().into_iter().partition(|name| self.books.job(name).all_said);
        for name in whole.iter().chain(&partial) {
            if partial.contains(name) {
                self.goes_by_itself(name, &mut picker, patience).await;
            } else if !matches!(picker.read(name, true, None).await, Some(ReadEvent::Broken(_))) {
                picker.read(name, false, None).await;
                // What an outage has hidden from its client is known now.
                self.books.change(name, |job| job.kept = true);
                let _ = picker.ask(name).await;
            }
            picker.discard(name).await;
            if picker.ask(name).await.is_ok() {
                trace::violation(format_args!("{name} is there although it was discarded"));
            }
        }
    }

    /// A job that is not whole goes, and its name is free.
    async fn goes_by_itself(&mut self, name: &str, picker: &mut Picker, patience: Duration) {
        let late = Instant::now() + patience + Duration::from_secs(30);
        while picker.ask(name).await.is_ok() {
            if Instant::now() >= late || trace::is_violated() {
                return trace::violation(format_args!("{name} is still there, and nobody goes on detaching it"));
            }
            sleep(Duration::from_secs(1)).await;
        }
        let tag = self.plan.add_job(JobPlan::default());
        self.books.begin(name, tag, 0);
        let (pool, open) = detach(name, OpenJob::default(), &mut self.random);
        let (handing, sent) = picker.caller.detach(pool, open);
        self.books.change(name, |job| job.all_said = true);
        handing.end_input();
        match sent.await {
            Ok(()) => self.books.change(name, |job| job.kept = true),
            Err(error) => return trace::violation(format_args!("the name {name} is not free: {error}")),
        }
        if !matches!(picker.read(name, true, None).await, Some(ReadEvent::Finished)) {
            trace::violation(format_args!("{name}, which has no items, does not finish"));
        }
    }
}
