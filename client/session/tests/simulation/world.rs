//! A cluster, its faults, and the checks at the end.

mod faults;
mod rest;

use std::time::Duration;

use farpool_testkit::random::Random;
use tokio::time::Instant;

use crate::agent::Agent;
use crate::client::Client;
use crate::coordinator::{Address, Coordinator};
use crate::detached::Detached;
use crate::disk::Disk;
use crate::network::{Host, Network};
use crate::plan::Plan;
use crate::trace;
use faults::FAULTS;
pub(crate) use faults::Fault;
use faults::FollowUp;

/// The first number of clients' hosts.
const CLIENTS: Host = 1000;

pub(crate) struct World {
    random: Random,
    network: Network,
    address: Address,
    plan: Plan,
    coordinator: Coordinator,
    agents: Vec<Agent>,
    clients: Vec<Client>,
    detached: Option<Detached>,
    hosts: Host,
    follow_ups: Vec<(Instant, FollowUp)>,
    /// The slots of the agents to start.
    agent_slots: Vec<u32>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let network = Network::new(random.fork());
        let address = Address::default();
        let mut coordinator = Coordinator::new(address.clone(), &mut random);
        let agent_slots = (0..random.within(1..4)).map(|_| random.within(1..5) as u32).collect();
        let plan = Plan::new(random.next(), seed);
        let mut detached = Detached::of(seed, &plan);
        detached.iter_mut().for_each(|detached| coordinator.keep_jobs(&mut detached.random));
        Self {
            plan,
            network,
            address,
            coordinator,
            agents: Vec::new(),
            clients: Vec::new(),
            detached,
            hosts: 0,
            follow_ups: Vec::new(),
            agent_slots,
            random,
        }
    }

    /// Runs the whole history.
    pub(crate) async fn run(mut self) {
        // Only some kinds of faults, so that rare pairs of them meet.
        let mut kinds: Vec<Fault> = FAULTS.into_iter().filter(|_| self.random.one_in(3)).collect();
        self.detached.iter_mut().for_each(|detached| detached.add_faults(&mut kinds));
        let faults = if self.random.one_in(8) || kinds.is_empty() { 0 } else { self.random.within(1..13) };
        trace::log(format_args!("{faults} faults of {kinds:?}"));
        if faults > 0 {
            self.plan.expect_losses();
        }
        let pause = self.random.pick(&[10, 100, 1000, 4000]);
        self.coordinator.start(&mut self.random);
        for slots in self.agent_slots.clone() {
            self.start_agent(slots);
        }
        self.start_clients(faults > 0);
        for _ in 0..faults {
            let at = Instant::now() + self.random.millis(0..2 * pause);
            self.wait(at).await;
            if trace::is_violated() || self.clients.iter().all(Client::is_done) {
                break;
            }
            let fault = self.random.pick(&kinds);
            self.inject(fault).await;
        }
        self.wait_for_hangs().await;
        while let Some(at) = self.follow_ups.iter().map(|(at, _)| *at).min() {
            self.wait(at).await;
        }
        self.come_to_rest().await;
    }

    fn start_clients(&mut self, faults: bool) {
        let may_fail = self.coordinator.may_refuse_jobs();
        let detached = &mut self.detached;
        // In some histories detached jobs have the cluster to themselves.
        let alone = detached.as_mut().is_some_and(|detached| detached.random.one_in(2));
        if let Some(detached) = detached {
            self.clients.extend(detached.start(&self.network, &self.address, faults, may_fail));
        }
        if faults && let (Some(disk), Some(detached)) = (&self.coordinator.disk, &mut self.detached) {
            // A crash at each step may lose something else.
            disk.expect_hangs(detached.random.pick(&[0, 0, 1, 3, 6]));
        }
        let count = if alone { 0 } else { self.random.within(1..4) as Host };
        for host in CLIENTS..CLIENTS + count {
            self.network.set_delay(host, self.random.pick(&[50, 500, 20_000]));
            let client = Client::start(host, &self.network, &self.address, &self.plan, faults, &mut self.random);
            self.clients.push(client);
        }
    }

    /// Gives the coordinator's disk time to hang, if it will.
    async fn wait_for_hangs(&mut self) {
        let late = Instant::now() + Duration::from_secs(20);
        let is_to_hang = |world: &Self| world.coordinator.disk.as_ref().is_some_and(Disk::is_to_hang);
        while is_to_hang(self) && !self.clients.iter().all(Client::is_done) && Instant::now() < late {
            self.wait(Instant::now() + Duration::from_millis(500)).await;
        }
    }

    fn start_agent(&mut self, slots: u32) {
        self.hosts += 1;
        let host = self.hosts;
        self.network.set_delay(host, self.random.pick(&[50, 500, 20_000]));
        let agent = Agent::start(host, slots, &self.network, &self.address, &self.plan, &mut self.random);
        self.agents.push(agent);
    }

    fn hosts(&self) -> Vec<Host> {
        self.agents.iter().map(|agent| agent.host).chain(self.clients.iter().map(|client| client.host)).collect()
    }
}
