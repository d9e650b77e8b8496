//! Workers that die before they can serve, again and again.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use farpool_agent::Settings;
use farpool_proto::v1::{StartPool, WorkerSettings};

use crate::pools::host::{Event, Host, program, start};
use crate::pools::protocol::{Command, start_job};

crate::pools::cases![
    an_agent_whose_workers_die_accepts_nothing_until_one_serves,
    an_agent_whose_fork_servers_die_accepts_nothing_until_one_serves,
    an_agent_with_another_serving_pool_keeps_running,
    an_unhealthy_pool_takes_nothing_from_one_whose_workers_exit_often,
    a_pool_that_serves_again_is_reported_as_started,
    a_program_that_never_serves_fails_its_pool,
    a_pool_that_has_served_does_not_fail,
];

/// A file. Workers die while it exists.
struct DeathMarker {
    file: PathBuf,
}

impl DeathMarker {
    fn new(name: &str) -> DeathMarker {
        let file = std::env::temp_dir().join(format!("farpool-sickness-{}-{name}", std::process::id()));
        fs::write(&file, "").unwrap();
        DeathMarker { file }
    }

    fn program(&self, kind: &str) -> farpool_agent::fork_server::Program {
        program(&format!("{kind}:{}", self.file.display()))
    }

    /// Returns how many workers it has killed.
    fn deaths(&self) -> usize {
        fs::read(&self.file).unwrap().len()
    }
}

impl Drop for DeathMarker {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

fn start_unhealthy(host: &mut Host, pool: u64, marker: &DeathMarker, kind: &str) {
    host.agent.start_pool(StartPool { pool, ..start() }, marker.program(kind)).unwrap();
    host.send(start_job(pool, pool));
}

/// Returns the last reported reason why the agent is unhealthy; empty: healthy.
fn unhealthy(events: &[Event]) -> Option<&str> {
    events.iter().rev().find_map(|event| match event {
        Event::HealthReport(unhealthy) if unhealthy.pool == 0 => Some(&*unhealthy.reason),
        _ => None,
    })
}

fn becomes_unhealthy(host: &mut Host) -> String {
    host.wait(|events| unhealthy(events).filter(|reason| !reason.is_empty()).map(str::to_owned))
}

fn recovers(host: &mut Host) {
    host.wait(|events| unhealthy(events).filter(|reason| reason.is_empty()).map(drop));
}

fn check_health(kind: &str, words: &str) {
    let marker = DeathMarker::new(kind);
    let mut host = Host::new(2);
    start_unhealthy(&mut host, 1, &marker, kind);
    let [chunk] = host.assign(1, ["echo a"]);
    let reason = becomes_unhealthy(&mut host);
    assert!(reason.contains("in a row") && reason.contains(words), "{reason}");
    // Another agent must run the item, so this one asks for no chunks before it returns the item.
    let back = host.wait_for_event(|event| matches!(event, Event::Returned(back) if back.chunk == chunk));
    let none = host.wait_for_event(|event| matches!(event, Event::Credit(credit) if credit.chunks == 0));
    assert!(none < back, "{:?}", host.events);
    let [late] = host.assign(1, ["echo a"]);
    host.wait_for_event(|event| matches!(event, Event::Returned(back) if back.chunk == late));
    host.drive_for(Duration::from_millis(1500));
    assert_eq!(host.credit(), Some(0));
    // Two at a time at first, then one after 100, 200, 400 and 800 ms, or half of that.
    assert!((5..=13).contains(&marker.deaths()), "{} deaths", marker.deaths());
    drop(marker);
    recovers(&mut host);
    assert_eq!(host.run(1, "echo a"), "a");
    assert!(host.credit().is_some_and(|chunks| chunks >= 2), "{:?}", host.credit());
    host.end();
}

fn an_agent_whose_workers_die_accepts_nothing_until_one_serves() {
    check_health("sick", "exited with code 3");
}

fn an_agent_whose_fork_servers_die_accepts_nothing_until_one_serves() {
    check_health("forks-nothing", "fork server");
}

fn an_agent_with_another_serving_pool_keeps_running() {
    let marker = DeathMarker::new("other");
    let mut host = Host::new(2);
    host.pool(1);
    host.run(1, "echo a");
    start_unhealthy(&mut host, 2, &marker, "sick");
    host.assign(2, ["echo never"]);
    host.drive_for(Duration::from_millis(500));
    assert!(marker.deaths() >= 3);
    assert_eq!(host.run(1, "echo b"), "b");
    assert_eq!(unhealthy(&host.events), None);
    let [back] = host.events.iter().filter(|event| matches!(event, Event::Returned(_))).collect::<Vec<_>>()[..] else {
        panic!("{:?}", host.events)
    };
    let is_unhealthy = |event: &&Event| matches!(event, Event::HealthReport(unhealthy) if unhealthy.pool == 2);
    let at = |wanted: &Event| host.events.iter().position(|event| event == wanted);
    assert!(
        at(host.events.iter().find(is_unhealthy).expect("pool 2 is reported as unhealthy")) < at(back),
        "{:?}",
        host.events
    );
    host.send(Command::StopPool(farpool_proto::v1::StopPool { pool: 1, now: true }));
    becomes_unhealthy(&mut host);
    // A new pool may be able to serve.
    host.pool(3);
    assert_eq!(host.run(3, "echo c"), "c");
    assert_eq!(unhealthy(&host.events), Some(""));
    host.end();
}

/// The workers of one pool exit after each item, so that there is often none; those of the other die at once.
fn an_unhealthy_pool_takes_nothing_from_one_whose_workers_exit_often() {
    let marker = DeathMarker::new("comes-and-goes");
    let mut host = Host::new(1);
    let settings = WorkerSettings { max_tasks_per_child: 1, ..start().settings.unwrap_or_default() };
    host.pool_of(StartPool { pool: 1, settings: Some(settings), ..start() });
    host.run(1, "echo a");
    start_unhealthy(&mut host, 2, &marker, "sick");
    host.assign(2, ["echo never"]);
    let end = Instant::now() + Duration::from_millis(2500);
    let mut items = 0;
    while Instant::now() < end {
        assert_eq!(host.run(1, "echo b"), "b");
        items += 1;
    }
    assert!(marker.deaths() >= 4 && items > 50, "{} deaths, {items} items", marker.deaths());
    let health = host.events.iter().filter(|event| matches!(event, Event::HealthReport(_)));
    assert_eq!(health.count(), 1, "the pool is reported once, and the agent as a whole never");
    // Its items were returned, so all of the credit is for the other pool.
    assert_eq!(unhealthy(&host.events), None);
    assert!(host.events.iter().any(|event| matches!(event, Event::Returned(_))));
    assert_ne!(host.credit(), Some(0));
    host.end();
}

fn a_pool_that_serves_again_is_reported_as_started() {
    let marker = DeathMarker::new("heals");
    let mut host = Host::new(1);
    host.pool(1);
    host.run(1, "echo a");
    start_unhealthy(&mut host, 2, &marker, "sick");
    host.assign(2, ["echo never"]);
    host.wait_for_event(|event| matches!(event, Event::HealthReport(unhealthy) if unhealthy.pool == 2));
    drop(marker);
    let started = |event: &&Event| matches!(event, Event::PoolStarted(started) if started.pool == 2);
    // One of its workers is started as a probe although it has no items here.
    host.wait(|events| (events.iter().filter(started).count() == 2).then_some(()));
    assert_eq!(host.run(2, "echo b"), "b");
    assert_eq!(unhealthy(&host.events), None);
    host.end();
}

fn host_with_start_limit(start_limit: Duration) -> Host {
    let mut settings = Settings::host(1);
    settings.start_limit = start_limit;
    Host::with(settings)
}

fn a_program_that_never_serves_fails_its_pool() {
    let marker = DeathMarker::new("never");
    let mut host = host_with_start_limit(Duration::from_secs(2));
    start_unhealthy(&mut host, 1, &marker, "sick");
    becomes_unhealthy(&mut host);
    let failure = host.pool_fault(1);
    assert!(failure.message.contains("exited with code 3"), "{failure:?}");
    recovers(&mut host);
    assert!(host.credit() >= Some(1));
    host.end();
}

fn a_pool_that_has_served_does_not_fail() {
    let marker = DeathMarker::new("had-served");
    let healthy = marker.file.with_extension("healthy");
    fs::rename(&marker.file, &healthy).unwrap();
    let mut host = host_with_start_limit(Duration::from_secs(1));
    start_unhealthy(&mut host, 1, &marker, "sick");
    assert_eq!(host.run(1, "echo a"), "a");
    fs::rename(&healthy, &marker.file).unwrap();
    let [dies] = host.assign(1, ["exit 7"]);
    assert!(host.outcome(dies).is_err());
    becomes_unhealthy(&mut host);
    host.drive_for(Duration::from_secs(3));
    assert!(!host.events.iter().any(|event| matches!(event, Event::PoolFault(_))));
    drop(marker);
    recovers(&mut host);
    assert_eq!(host.run(1, "echo b"), "b");
    host.end();
}
