//! A cluster, what befalls it, and what must be left of it in the end.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::agent::Agent;
use crate::client::{self, Client};
use crate::coordinator::{Address, Coordinator};
use crate::detached::Detached;
use crate::disk::Disk;
use crate::network::{Host, Network};
use crate::plan::Plan;
use crate::random::Random;
use crate::trace;
use crate::workers::Workers;

/// How long everything may take when nothing happens any more.
const BOUND: Duration = Duration::from_secs(600);
/// Clients' hosts are called from here on.
const CLIENTS: Host = 1000;
/// The host of a client that comes in the end.
const PROBE: Host = 2000;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Cut,
    CutAll,
    HalfOpen,
    Part,
    Pause,
    KillAgent,
    PowerOff,
    Leave,
    KillClient,
    KillCoordinator,
    PauseCoordinator,
    Leap,
    Lose,
    Slow,
    KillWorkers,
    /// These only if detached jobs are kept.
    StopCoordinator,
    FailDisk,
    SlowDisk,
}

const FAULTS: [Fault; 15] = [
    Fault::Cut,
    Fault::CutAll,
    Fault::HalfOpen,
    Fault::Part,
    Fault::Pause,
    Fault::KillAgent,
    Fault::PowerOff,
    Fault::Leave,
    Fault::KillClient,
    Fault::KillCoordinator,
    Fault::PauseCoordinator,
    Fault::Leap,
    Fault::Lose,
    Fault::Slow,
    Fault::KillWorkers,
];

/// What follows later.
#[derive(Clone, Copy, Debug)]
enum Later {
    Heal(Host),
    GoOn(Host),
    Hurry(Host),
    StartAgent(u32),
    StartCoordinator,
    CoordinatorGoesOn,
    KillCoordinator,
    MendDisk,
    HurryDisk,
}

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
    later: Vec<(Instant, Later)>,
    /// Agents that are to be there in the end.
    wanted: Vec<u32>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let network = Network::new(random.fork());
        let address = Address::default();
        let mut coordinator = Coordinator::new(address.clone(), &mut random);
        let wanted = (0..random.within(1..4)).map(|_| random.within(1..5) as u32).collect();
        let plan = Plan::new(random.next());
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
            later: Vec::new(),
            wanted,
            random,
        }
    }

    /// The whole history.
    pub(crate) async fn run(mut self) {
        // Some faults only, so that rare pairs of them come about.
        let mut kinds: Vec<Fault> = FAULTS.into_iter().filter(|_| self.random.one_in(3)).collect();
        self.detached.iter_mut().for_each(|detached| detached.add_faults(&mut kinds));
        let faults = if self.random.one_in(8) || kinds.is_empty() { 0 } else { self.random.within(1..13) };
        trace::say(format_args!("{faults} faults of {kinds:?}"));
        if faults > 0 {
            self.plan.expect_losses();
        }
        let pause = self.random.pick(&[10, 100, 1000, 4000]);
        self.coordinator.start(&mut self.random);
        for slots in self.wanted.clone() {
            self.start_agent(slots);
        }
        self.start_clients(faults > 0);
        for _ in 0..faults {
            let at = Instant::now() + self.random.millis(0..2 * pause);
            self.wait(at).await;
            if trace::is_violated() || self.clients.iter().all(Client::is_through) {
                break;
            }
            let fault = self.random.pick(&kinds);
            self.strike(fault).await;
        }
        self.wait_for_hangs().await;
        while let Some(at) = self.later.iter().map(|(at, _)| *at).min() {
            self.wait(at).await;
        }
        self.come_to_rest().await;
    }

    fn start_clients(&mut self, faults: bool) {
        let may_fail = self.coordinator.may_refuse_jobs();
        let detached = &mut self.detached;
        // Some have the cluster for themselves.
        let alone = detached.as_mut().is_some_and(|detached| detached.random.one_in(2));
        if let Some(detached) = detached {
            self.clients.extend(detached.start(&self.network, &self.address, faults, may_fail));
        }
        if faults && let (Some(disk), Some(detached)) = (&self.coordinator.disk, &mut self.detached) {
            // At each step of what it does something else may be lost.
            disk.expect_hangs(detached.random.pick(&[0, 0, 1, 3, 6]));
        }
        let count = if alone { 0 } else { self.random.within(1..4) as Host };
        for host in CLIENTS..CLIENTS + count {
            self.network.set_delay(host, self.random.pick(&[50, 500, 20_000]));
            let client = Client::start(host, &self.network, &self.address, &self.plan, faults, &mut self.random);
            self.clients.push(client);
        }
    }

    /// Until this time, with all that follows until then.
    async fn wait(&mut self, until: Instant) {
        loop {
            let next = (0..self.later.len()).min_by_key(|&at| self.later[at].0).filter(|&at| self.later[at].0 <= until);
            tokio::select! {
                biased;
                () = self.coordinator.hangs() => {
                    self.hang().await;
                    continue;
                }
                () = sleep_until(next.map_or(until, |next| self.later[next].0)) => {}
            }
            let Some(next) = next else { return };
            let (_, later) = self.later.remove(next);
            trace::say(format_args!("{later:?}"));
            match later {
                Later::Heal(host) => self.network.heal(host),
                Later::GoOn(host) => {
                    self.stop(host, false);
                    self.network.heal(host);
                }
                Later::Hurry(host) => self.slow_down(host, 1, 500),
                Later::StartAgent(slots) => self.start_agent(slots),
                Later::StartCoordinator => {
                    if !self.coordinator.start(&mut self.random) {
                        self.follow(Duration::from_secs(1), Later::StartCoordinator);
                    }
                }
                Later::KillCoordinator => {
                    self.coordinator.kill(&self.network).await;
                    self.follow(Duration::from_millis(100), Later::StartCoordinator);
                }
                Later::MendDisk => self.coordinator.disk.iter_mut().for_each(Disk::mend),
                Later::HurryDisk => self.coordinator.disk.iter().for_each(|disk| disk.slow_down(false)),
                Later::CoordinatorGoesOn => {
                    self.coordinator.stop(false);
                    self.hosts().into_iter().for_each(|host| self.network.heal(host));
                }
            }
        }
    }

    /// Gives the coordinator's disk time to hang, if it is to.
    async fn wait_for_hangs(&mut self) {
        let late = Instant::now() + Duration::from_secs(20);
        let is_to_hang = |world: &Self| world.coordinator.disk.as_ref().is_some_and(Disk::is_to_hang);
        while is_to_hang(self) && !self.clients.iter().all(Client::is_through) && Instant::now() < late {
            self.wait(Instant::now() + Duration::from_millis(500)).await;
        }
    }

    /// The disk of the coordinator hangs, and a while later its host goes down.
    async fn hang(&mut self) {
        trace::say(format_args!("the coordinator's disk hangs"));
        let (most, down) = (self.random.pick(&[1, 20, 200, 2000]), self.random.pick(&[300, 3000]));
        sleep(self.random.millis(0..most)).await;
        self.coordinator.kill(&self.network).await;
        let down = self.random.millis(1..down);
        self.follow(down, Later::StartCoordinator);
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

    fn stop(&self, host: Host, stop: bool) {
        self.agents.iter().filter(|agent| agent.host == host).for_each(|agent| agent.stop(stop));
        self.clients.iter().filter(|client| client.host == host).for_each(|client| client.stop(stop));
    }

    /// What runs at a host takes so many times as long, and what is said there, so many us.
    fn slow_down(&self, host: Host, times: u32, delay: u64) {
        self.network.set_delay(host, delay);
        let agent = self.agents.iter().find(|agent| agent.host == host);
        agent.into_iter().for_each(|agent| agent.touch(|workers| workers.slow_down(times)));
    }

    fn follow(&mut self, after: Duration, later: Later) {
        self.later.push((Instant::now() + after, later));
    }

    async fn strike(&mut self, fault: Fault) {
        let hosts = self.hosts();
        if hosts.is_empty() {
            return;
        }
        let host = self.random.pick(&hosts);
        let ways = self.random.pick(&[[true, true], [true, false], [false, true]]);
        trace::say(format_args!("{fault:?}, of host {host} if it is of one, {ways:?}"));
        let last = self.random.pick(&[300, 3000, 15_000]);
        let lasting = self.random.millis(1..last);
        match fault {
            Fault::Cut => self.network.cut(|of| of == host),
            Fault::CutAll => self.network.cut(|_| true),
            Fault::HalfOpen => self.network.half_open(host, ways),
            Fault::Part => {
                self.network.part(host, ways);
                self.follow(lasting, Later::Heal(host));
            }
            Fault::Pause => {
                self.stop(host, true);
                self.network.part(host, [true, true]);
                self.follow(lasting, Later::GoOn(host));
            }
            Fault::KillAgent | Fault::PowerOff | Fault::Leave => {
                let count = self.agents.len() as u64;
                if count == 0 {
                    return;
                }
                let at = self.random.below(count) as usize;
                let slots = self.random.within(1..5) as u32;
                self.follow(lasting, Later::StartAgent(slots));
                if fault == Fault::Leave {
                    return self.agents[at].ask_to_leave();
                }
                let agent = self.agents.remove(at);
                if fault == Fault::PowerOff {
                    // Nobody is told.
                    self.network.part(agent.host, [true, true]);
                    agent.stop(true);
                    return agent.power_off().await;
                }
                agent.kill(&self.network).await;
            }
            Fault::KillClient => {
                // One stays, so that there is something to do.
                if self.clients.len() > 1 {
                    let at = self.random.below(self.clients.len() as u64) as usize;
                    self.clients.remove(at).kill(&self.network).await;
                }
            }
            Fault::KillCoordinator => {
                self.coordinator.kill(&self.network).await;
                self.follow(lasting, Later::StartCoordinator);
            }
            Fault::PauseCoordinator => {
                self.coordinator.stop(true);
                hosts.into_iter().for_each(|host| self.network.part(host, [true, true]));
                self.follow(lasting, Later::CoordinatorGoesOn);
            }
            Fault::Lose => self.network.lose(host, self.random.millis(1..last.min(1000))),
            Fault::Slow => {
                let delay = self.random.pick(&[20_000, 300_000]);
                self.slow_down(host, 20, delay);
                self.follow(lasting, Later::Hurry(host));
            }
            Fault::KillWorkers => {
                let agent = self.agents.iter().find(|agent| agent.host == host);
                agent.into_iter().for_each(|agent| agent.touch(Workers::kill_running));
            }
            Fault::StopCoordinator => {
                self.coordinator.ask_to_end();
                self.follow(lasting, Later::KillCoordinator);
            }
            Fault::FailDisk => {
                self.coordinator.disk.iter_mut().for_each(Disk::fail);
                self.follow(lasting, Later::MendDisk);
            }
            Fault::SlowDisk => {
                self.coordinator.disk.iter().for_each(|disk| disk.slow_down(true));
                self.follow(lasting, Later::HurryDisk);
            }
            // A host that slept: everybody's time goes on at once.
            Fault::Leap => tokio::time::advance(lasting).await,
        }
    }

    /// Nothing happens any more: everything that was begun comes to its end, and nothing is left.
    async fn come_to_rest(mut self) {
        trace::say(format_args!("nothing happens any more"));
        self.coordinator.disk.iter().for_each(|disk| disk.expect_hangs(0));
        self.hosts().into_iter().for_each(|host| self.network.heal(host));
        self.agents.retain(|agent| !agent.is_over());
        if self.agents.is_empty() {
            self.start_agent(2);
        }
        let deadline = Instant::now() + BOUND;
        while !self.clients.iter().all(Client::is_through) {
            if trace::is_violated() {
                return;
            }
            if Instant::now() >= deadline {
                let hosts: Vec<Host> =
                    self.clients.iter().filter(|client| !client.is_through()).map(|client| client.host).collect();
                let status = self.coordinator.status().await;
                return trace::violation(format_args!("clients {hosts:?} are not through after {BOUND:?}: {status:?}"));
            }
            if let Some(client) = self.clients.iter().find(|client| client.has_crashed()) {
                return trace::violation(format_args!("client {} has crashed", client.host));
            }
            sleep(Duration::from_millis(500)).await;
        }
        trace::say(format_args!("all clients are through"));
        self.nothing_is_forgotten().await;
        // Sessions that are away, and workers that are killed, have their time; then nothing may be left.
        sleep(Duration::from_secs(90)).await;
        self.nothing_is_left().await;
        self.every_slot_works().await;
        self.nothing_is_held().await;
    }

    /// What was detached is there, comes to its end, and goes.
    async fn nothing_is_forgotten(&mut self) {
        let Some(detached) = &mut self.detached else { return };
        let (late, patience) = (Instant::now() + BOUND, self.coordinator.detach_patience());
        let swept = timeout_at(late, detached.come_to_rest(&self.network, &self.address, patience)).await;
        if swept.is_err() {
            let status = self.coordinator.status().await;
            trace::violation(format_args!("detached jobs are not through after {BOUND:?}: {status:?}"));
        }
    }

    /// No slot has got lost: there is a job for all of them.
    async fn every_slot_works(&mut self) {
        self.hosts().into_iter().for_each(|host| self.slow_down(host, 1, 500));
        self.agents.iter().for_each(|agent| agent.touch(Workers::forget_peak));
        let slots: usize = self.agents.iter().map(|agent| agent.touch(|workers| workers.slots())).sum();
        let done = client::fill(PROBE, &self.network, &self.address, &self.plan, slots as u64, &mut self.random);
        let late = Instant::now() + Duration::from_secs(60);
        if !timeout_at(late, done).await.unwrap_or(false) {
            return trace::violation(format_args!("a job for all slots does not end well"));
        }
        for agent in &self.agents {
            let (peak, slots) = agent.touch(|workers| (workers.peak(), workers.slots()));
            if peak != slots {
                trace::violation(format_args!(
                    "of the {slots} slots of host {} no more than {peak} were ever busy",
                    agent.host
                ));
            }
        }
        // Those who were told to stop have done so, and what they kept is settled.
        sleep(Duration::from_secs(10)).await;
    }

    async fn nothing_is_left(&mut self) {
        let late = Instant::now() + Duration::from_secs(5);
        let Ok(status) = timeout_at(late, self.coordinator.status()).await else {
            return trace::violation(format_args!("the coordinator does not answer"));
        };
        let busy = status.agents.iter().any(|agent| agent.chunks > 0 || agent.busy > 0 || agent.away);
        if status.pools.len() + status.jobs.len() > 0 || busy || status.held_bytes > 0 {
            trace::violation(format_args!("something is left at the coordinator: {status:?}"));
        }
        if let Some(journal) = &status.journal
            && (journal.jobs > 0 || !journal.failing.is_empty() || journal.bytes > self.coordinator.journal_rest())
        {
            trace::violation(format_args!("something is left in the journal: {journal:?}"));
        }
        self.agents.retain(|agent| !agent.is_over());
        if status.agents.len() != self.agents.len() {
            let count = self.agents.len();
            trace::violation(format_args!(
                "the coordinator knows of other agents than the {count} there are: {status:?}"
            ));
        }
        for agent in &self.agents {
            if let Some(remains) = agent.remains() {
                trace::violation(format_args!("at the agent of host {} is left: {remains}", agent.host));
            }
        }
    }

    /// A coordinator that knows nothing is told what agents hold.
    async fn nothing_is_held(&mut self) {
        self.coordinator.kill(&self.network).await;
        self.coordinator.start(&mut self.random);
        sleep(Duration::from_secs(10)).await;
        for agent in self.agents.iter().filter(|agent| agent.held() > 0) {
            trace::violation(format_args!("the agent of host {} still holds {} pools", agent.host, agent.held()));
        }
        let status = self.coordinator.status().await;
        if status.agents.len() != self.agents.len() {
            trace::violation(format_args!("not all agents have come back: {status:?}"));
        }
        if status.journal.as_ref().is_some_and(|journal| journal.jobs > 0) {
            trace::violation(format_args!("jobs have come back that were gone: {status:?}"));
        }
    }
}
