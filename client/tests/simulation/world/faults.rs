//! What befalls a world, and what follows from it later.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::World;
use crate::disk::Disk;
use crate::network::Host;
use crate::trace;
use crate::workers::Workers;

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

pub(super) const FAULTS: [Fault; 15] = [
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
pub(super) enum Later {
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

impl World {
    pub(super) async fn strike(&mut self, fault: Fault) {
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

    /// Until this time, with all that follows until then.
    pub(super) async fn wait(&mut self, until: Instant) {
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

    /// The disk of the coordinator hangs, and a while later its host goes down.
    async fn hang(&mut self) {
        trace::say(format_args!("the coordinator's disk hangs"));
        let (most, down) = (self.random.pick(&[1, 20, 200, 2000]), self.random.pick(&[300, 3000]));
        sleep(self.random.millis(0..most)).await;
        self.coordinator.kill(&self.network).await;
        let down = self.random.millis(1..down);
        self.follow(down, Later::StartCoordinator);
    }

    fn stop(&self, host: Host, stop: bool) {
        self.agents.iter().filter(|agent| agent.host == host).for_each(|agent| agent.stop(stop));
        self.clients.iter().filter(|client| client.host == host).for_each(|client| client.stop(stop));
    }

    /// What runs at a host takes so many times as long, and what is said there, so many us.
    pub(super) fn slow_down(&self, host: Host, times: u32, delay: u64) {
        self.network.set_delay(host, delay);
        let agent = self.agents.iter().find(|agent| agent.host == host);
        agent.into_iter().for_each(|agent| agent.touch(|workers| workers.slow_down(times)));
    }

    fn follow(&mut self, after: Duration, later: Later) {
        self.later.push((Instant::now() + after, later));
    }
}
