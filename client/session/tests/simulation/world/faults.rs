//! The faults of a world, and their repairs.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::World;
use crate::disk::Disk;
use crate::network::Host;
use crate::trace;
use crate::workers::Workers;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Cut,
    CutAll,
    HalfOpen,
    Partition,
    Pause,
    KillAgent,
    PowerOff,
    Leave,
    KillClient,
    KillCoordinator,
    PauseCoordinator,
    TimeJump,
    Lose,
    Slow,
    KillWorkers,
    /// This and the following kinds occur only with detached jobs.
    StopCoordinator,
    FailDisk,
    SlowDisk,
}

pub(super) const FAULTS: [Fault; 15] = [
    Fault::Cut,
    Fault::CutAll,
    Fault::HalfOpen,
    Fault::Partition,
    Fault::Pause,
    Fault::KillAgent,
    Fault::PowerOff,
    Fault::Leave,
    Fault::KillClient,
    Fault::KillCoordinator,
    Fault::PauseCoordinator,
    Fault::TimeJump,
    Fault::Lose,
    Fault::Slow,
    Fault::KillWorkers,
];

/// The later consequence of a fault.
#[derive(Clone, Copy, Debug)]
pub(super) enum FollowUp {
    Heal(Host),
    Resume(Host),
    SpeedUp(Host),
    StartAgent(u32),
    StartCoordinator,
    ResumeCoordinator,
    KillCoordinator,
    RepairDisk,
    SpeedUpDisk,
}

impl World {
    pub(super) async fn inject(&mut self, fault: Fault) {
        let hosts = self.hosts();
        if hosts.is_empty() {
            return;
        }
        let host = self.random.pick(&hosts);
        let directions = self.random.pick(&[[true, true], [true, false], [false, true]]);
        trace::log(format_args!("{fault:?}, of host {host} if it is of one, {directions:?}"));
        let last = self.random.pick(&[300, 3000, 15_000]);
        let lasting = self.random.millis(1..last);
        match fault {
            Fault::Cut => self.network.cut(|of| of == host),
            Fault::CutAll => self.network.cut(|_| true),
            Fault::HalfOpen => self.network.half_open(host, directions),
            Fault::Partition => {
                self.network.partition(host, directions);
                self.schedule(lasting, FollowUp::Heal(host));
            }
            Fault::Pause => {
                self.stop(host, true);
                self.network.partition(host, [true, true]);
                self.schedule(lasting, FollowUp::Resume(host));
            }
            Fault::KillAgent | Fault::PowerOff | Fault::Leave => {
                let count = self.agents.len() as u64;
                if count == 0 {
                    return;
                }
                let at = self.random.below(count) as usize;
                let slots = self.random.within(1..5) as u32;
                self.schedule(lasting, FollowUp::StartAgent(slots));
                if fault == Fault::Leave {
                    return self.agents[at].ask_to_leave();
                }
                let agent = self.agents.remove(at);
                if fault == Fault::PowerOff {
                    // No connection is closed.
                    self.network.partition(agent.host, [true, true]);
                    agent.stop(true);
                    return agent.power_off().await;
                }
                agent.kill(&self.network).await;
            }
            Fault::KillClient => {
                // One client stays, so that there is work.
                if self.clients.len() > 1 {
                    let at = self.random.below(self.clients.len() as u64) as usize;
                    self.clients.remove(at).kill(&self.network).await;
                }
            }
            Fault::KillCoordinator => {
                self.coordinator.kill(&self.network).await;
                self.schedule(lasting, FollowUp::StartCoordinator);
            }
            Fault::PauseCoordinator => {
                self.coordinator.stop(true);
                hosts.into_iter().for_each(|host| self.network.partition(host, [true, true]));
                self.schedule(lasting, FollowUp::ResumeCoordinator);
            }
            Fault::Lose => self.network.lose(host, self.random.millis(1..last.min(1000))),
            Fault::Slow => {
                let delay = self.random.pick(&[20_000, 300_000]);
                self.slow_down(host, 20, delay);
                self.schedule(lasting, FollowUp::SpeedUp(host));
            }
            Fault::KillWorkers => {
                let agent = self.agents.iter().find(|agent| agent.host == host);
                agent.into_iter().for_each(|agent| agent.with_workers(Workers::kill_running));
            }
            Fault::StopCoordinator => {
                self.coordinator.ask_to_end();
                self.schedule(lasting, FollowUp::KillCoordinator);
            }
            Fault::FailDisk => {
                self.coordinator.disk.iter_mut().for_each(Disk::fail);
                self.schedule(lasting, FollowUp::RepairDisk);
            }
            Fault::SlowDisk => {
                self.coordinator.disk.iter().for_each(|disk| disk.slow_down(true));
                self.schedule(lasting, FollowUp::SpeedUpDisk);
            }
            // Time jumps for everyone, as on a host that slept.
            Fault::TimeJump => tokio::time::advance(lasting).await,
        }
    }

    /// Waits until this time, and carries out what is due until then.
    pub(super) async fn wait(&mut self, until: Instant) {
        loop {
            let next = (0..self.follow_ups.len())
                .min_by_key(|&at| self.follow_ups[at].0)
                .filter(|&at| self.follow_ups[at].0 <= until);
            tokio::select! {
                biased;
                () = self.coordinator.hangs() => {
                    self.hang().await;
                    continue;
                }
                () = sleep_until(next.map_or(until, |next| self.follow_ups[next].0)) => {}
            }
            let Some(next) = next else { return };
            let (_, follow_up) = self.follow_ups.remove(next);
            trace::log(format_args!("{follow_up:?}"));
            match follow_up {
                FollowUp::Heal(host) => self.network.heal(host),
                FollowUp::Resume(host) => {
                    self.stop(host, false);
                    self.network.heal(host);
                }
                FollowUp::SpeedUp(host) => self.slow_down(host, 1, 500),
                FollowUp::StartAgent(slots) => self.start_agent(slots),
                FollowUp::StartCoordinator => {
                    if !self.coordinator.start(&mut self.random) {
                        self.schedule(Duration::from_secs(1), FollowUp::StartCoordinator);
                    }
                }
                FollowUp::KillCoordinator => {
                    self.coordinator.kill(&self.network).await;
                    self.schedule(Duration::from_millis(100), FollowUp::StartCoordinator);
                }
                FollowUp::RepairDisk => self.coordinator.disk.iter_mut().for_each(Disk::repair),
                FollowUp::SpeedUpDisk => self.coordinator.disk.iter().for_each(|disk| disk.slow_down(false)),
                FollowUp::ResumeCoordinator => {
                    self.coordinator.stop(false);
                    self.hosts().into_iter().for_each(|host| self.network.heal(host));
                }
            }
        }
    }

    /// The disk of the coordinator hangs, and a while later its host goes down.
    async fn hang(&mut self) {
        trace::log(format_args!("the coordinator's disk hangs"));
        let (most, down) = (self.random.pick(&[1, 20, 200, 2000]), self.random.pick(&[300, 3000]));
        sleep(self.random.millis(0..most)).await;
        self.coordinator.kill(&self.network).await;
        let down = self.random.millis(1..down);
        self.schedule(down, FollowUp::StartCoordinator);
    }

    fn stop(&self, host: Host, stop: bool) {
        self.agents.iter().filter(|agent| agent.host == host).for_each(|agent| agent.stop(stop));
        self.clients.iter().filter(|client| client.host == host).for_each(|client| client.stop(stop));
    }

    /// Makes runs at a host take this many times as long, and sets the delay of its frames, in us.
    pub(super) fn slow_down(&self, host: Host, times: u32, delay: u64) {
        self.network.set_delay(host, delay);
        let agent = self.agents.iter().find(|agent| agent.host == host);
        agent.into_iter().for_each(|agent| agent.with_workers(|workers| workers.slow_down(times)));
    }

    fn schedule(&mut self, after: Duration, follow_up: FollowUp) {
        self.follow_ups.push((Instant::now() + after, follow_up));
    }
}
