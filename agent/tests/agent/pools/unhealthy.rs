//! Workers that die before they can serve, again and again.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use farpool_agent::Settings;
use farpool_proto::v1::{StartPool, WorkerSettings};

use crate::pools::host::{Event, Host, program, start};
use crate::pools::protocol::{Command, start_job};

crate::pools::cases![
    an_agent_whose_workers_die_takes_nothing_until_one_serves,
    an_agent_whose_fork_servers_die_takes_nothing_until_one_serves,
    an_agent_with_another_pool_that_serves_goes_on,
    a_pool_that_ails_keeps_nothing_from_one_whose_workers_come_and_go,
    a_pool_that_serves_again_is_reported_as_started,
    a_program_that_never_serves_is_given_up,
    a_pool_that_has_served_is_not_given_up,
];

/// As long as it is there, workers die.
struct Sickness {
    file: PathBuf,
}

impl Sickness {
    fn new(name: &str) -> Sickness {
        let file = std::env::temp_dir().join(format!("farpool-sickness-{}-{name}", std::process::id()));
        fs::write(&file, "").unwrap();
        Sickness { file }
    }

    fn program(&self, kind: &str) -> farpool_agent::fork_server::Program {
        program(&format!("{kind}:{}", self.file.display()))
    }

    /// How often it has struck.
    fn deaths(&self) -> usize {
        fs::read(&self.file).unwrap().len()
    }
}

impl Drop for Sickness {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

fn start_unhealthy(host: &mut Host, pool: u64, sickness: &Sickness, kind: &str) {
    host.agent.start_pool(StartPool { pool, ..start() }, sickness.program(kind)).unwrap();
    host.say(start_job(pool, pool));
}

/// Why the agent is unhealthy, as it said last.
fn unhealthy(told: &[Event]) -> Option<&str> {
    told.iter().rev().find_map(|event| match event {
        Event::HealthReport(unhealthy) if unhealthy.pool == 0 => Some(&*unhealthy.reason),
        _ => None,
    })
}

fn becomes_unhealthy(host: &mut Host) -> String {
    host.wait(|told| unhealthy(told).filter(|reason| !reason.is_empty()).map(str::to_owned))
}

fn recovers(host: &mut Host) {
    host.wait(|told| unhealthy(told).filter(|reason| reason.is_empty()).map(drop));
}

fn check_health(kind: &str, words: &str) {
    let sickness = Sickness::new(kind);
    let mut host = Host::new(2);
    start_unhealthy(&mut host, 1, &sickness, kind);
    let [chunk] = host.assign(1, ["echo a"]);
    let reason = becomes_unhealthy(&mut host);
    assert!(reason.contains("in a row") && reason.contains(words), "{reason}");
    // Others are to run it, and not this one again: so it wants nothing before it gives it back.
    let back = host.wait_for_event(|event| matches!(event, Event::Returned(back) if back.chunk == chunk));
    let none = host.wait_for_event(|event| matches!(event, Event::Credit(credit) if credit.chunks == 0));
    assert!(none < back, "{:?}", host.told);
    let [late] = host.assign(1, ["echo a"]);
    host.wait_for_event(|event| matches!(event, Event::Returned(back) if back.chunk == late));
    host.drive_for(Duration::from_millis(1500));
    assert_eq!(host.credit(), Some(0));
    // Two at a time at first, then one after 100, 200, 400 and 800 ms, or half of that.
    assert!((5..=13).contains(&sickness.deaths()), "{} deaths", sickness.deaths());
    drop(sickness);
    recovers(&mut host);
    assert_eq!(host.run(1, "echo a"), "a");
    assert!(host.credit().is_some_and(|chunks| chunks >= 2), "{:?}", host.credit());
    host.end();
}

fn an_agent_whose_workers_die_takes_nothing_until_one_serves() {
    check_health("sick", "exited with code 3");
}

fn an_agent_whose_fork_servers_die_takes_nothing_until_one_serves() {
    check_health("forks-nothing", "fork server");
}

fn an_agent_with_another_pool_that_serves_goes_on() {
    let sickness = Sickness::new("other");
    let mut host = Host::new(2);
    host.pool(1);
    host.run(1, "echo a");
    start_unhealthy(&mut host, 2, &sickness, "sick");
    host.assign(2, ["echo never"]);
    host.drive_for(Duration::from_millis(500));
    assert!(sickness.deaths() >= 3);
    assert_eq!(host.run(1, "echo b"), "b");
    assert_eq!(unhealthy(&host.told), None);
    let [back] = host.told.iter().filter(|event| matches!(event, Event::Returned(_))).collect::<Vec<_>>()[..] else {
        panic!("{:?}", host.told)
    };
    let told = |event: &&Event| matches!(event, Event::HealthReport(unhealthy) if unhealthy.pool == 2);
    let at = |wanted: &Event| host.told.iter().position(|event| event == wanted);
    assert!(at(host.told.iter().find(told).expect("pool 2 is reported as unhealthy")) < at(back), "{:?}", host.told);
    host.say(Command::StopPool(farpool_proto::v1::StopPool { pool: 1, now: true }));
    becomes_unhealthy(&mut host);
    // A pool that comes can be the one that serves.
    host.pool(3);
    assert_eq!(host.run(3, "echo c"), "c");
    assert_eq!(unhealthy(&host.told), Some(""));
    host.end();
}

/// The workers of one pool leave after each item, so that there is often none; those of the other die at once.
fn a_pool_that_ails_keeps_nothing_from_one_whose_workers_come_and_go() {
    let sickness = Sickness::new("comes-and-goes");
    let mut host = Host::new(1);
    let settings = WorkerSettings { max_tasks_per_child: 1, ..start().settings.unwrap_or_default() };
    host.pool_of(StartPool { pool: 1, settings: Some(settings), ..start() });
    host.run(1, "echo a");
    start_unhealthy(&mut host, 2, &sickness, "sick");
    host.assign(2, ["echo never"]);
    let end = Instant::now() + Duration::from_millis(2500);
    let mut items = 0;
    while Instant::now() < end {
        assert_eq!(host.run(1, "echo b"), "b");
        items += 1;
    }
    assert!(sickness.deaths() >= 4 && items > 50, "{} deaths, {items} items", sickness.deaths());
    let health = host.told.iter().filter(|event| matches!(event, Event::HealthReport(_)));
    assert_eq!(health.count(), 1, "the pool is reported once, and the agent as a whole never");
    // Its items were given back, so all of the credit is for the other pool.
    assert_eq!(unhealthy(&host.told), None);
    assert!(host.told.iter().any(|event| matches!(event, Event::Returned(_))));
    assert_ne!(host.credit(), Some(0));
    host.end();
}

fn a_pool_that_serves_again_is_reported_as_started() {
    let sickness = Sickness::new("heals");
    let mut host = Host::new(1);
    host.pool(1);
    host.run(1, "echo a");
    start_unhealthy(&mut host, 2, &sickness, "sick");
    host.assign(2, ["echo never"]);
    host.wait_for_event(|event| matches!(event, Event::HealthReport(unhealthy) if unhealthy.pool == 2));
    drop(sickness);
    let started = |event: &&Event| matches!(event, Event::PoolStarted(started) if started.pool == 2);
    // A worker of it is tried although it has no items here.
    host.wait(|told| (told.iter().filter(started).count() == 2).then_some(()));
    assert_eq!(host.run(2, "echo b"), "b");
    assert_eq!(unhealthy(&host.told), None);
    host.end();
}

fn sickly(start_limit: Duration) -> Host {
    let mut settings = Settings::host(1);
    settings.start_limit = start_limit;
    Host::with(settings)
}

fn a_program_that_never_serves_is_given_up() {
    let sickness = Sickness::new("never");
    let mut host = sickly(Duration::from_secs(2));
    start_unhealthy(&mut host, 1, &sickness, "sick");
    becomes_unhealthy(&mut host);
    let failure = host.pool_fault(1);
    assert!(failure.message.contains("exited with code 3"), "{failure:?}");
    recovers(&mut host);
    assert!(host.credit() >= Some(1));
    host.end();
}

fn a_pool_that_has_served_is_not_given_up() {
    let sickness = Sickness::new("had-served");
    let healthy = sickness.file.with_extension("healthy");
    fs::rename(&sickness.file, &healthy).unwrap();
    let mut host = sickly(Duration::from_secs(1));
    start_unhealthy(&mut host, 1, &sickness, "sick");
    assert_eq!(host.run(1, "echo a"), "a");
    fs::rename(&healthy, &sickness.file).unwrap();
    let [dies] = host.assign(1, ["exit 7"]);
    assert!(host.outcome(dies).is_err());
    becomes_unhealthy(&mut host);
    host.drive_for(Duration::from_secs(3));
    assert!(!host.told.iter().any(|event| matches!(event, Event::PoolFault(_))));
    drop(sickness);
    recovers(&mut host);
    assert_eq!(host.run(1, "echo b"), "b");
    host.end();
}
