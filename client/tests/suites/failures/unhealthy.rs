//! An unhealthy host, on which workers die at their start, next to a healthy one.

use std::fs;
use std::path::{Path, PathBuf};

use farpool::Builder;

use crate::cluster::{self, Cluster};
use crate::failures::checks::{seconds, still_works, within};
use crate::failures::operators;
use crate::failures::scenarios::{SCENARIO, UNHEALTHY_MARKER};
use crate::failures::tasks::nap;
use crate::log;
use crate::log::Log;
use crate::pools;
use crate::runner;

crate::runner::cases![other_hosts_do_the_work_until_the_host_recovers, a_pool_with_a_limit_gets_its_workers_elsewhere,];

const HOST: &str = "sick";

/// Returns a file: while it exists, workers on the host with this name exit when they start.
fn marker() -> PathBuf {
    let file = runner::scratch().join("sickness");
    fs::write(&file, HOST).unwrap();
    file
}

fn noted_host(path: String, item: u64) -> u64 {
    log::note(&path, std::env::var("FARPOOL_HOST").unwrap_or_default());
    nap(5);
    item
}

/// Starts a cluster of an unhealthy and a healthy host.
fn hosts() -> Cluster {
    let mut cluster = cluster::empty();
    cluster.add_agent(2, &["--host", HOST]);
    cluster.add_agent(2, &["--host", "well"]);
    cluster
}

fn builder(cluster: &Cluster, marker: &Path) -> Builder {
    let builder = pools::builder().address(cluster.address()).env(SCENARIO, "an unhealthy host");
    builder.env(UNHEALTHY_MARKER, marker.to_str().unwrap())
}

/// Its only worker was allotted to the unhealthy host, which joined first, and must move to the healthy one.
fn a_pool_with_a_limit_gets_its_workers_elsewhere() {
    let (cluster, marker) = (hosts(), marker());
    let pool = builder(&cluster, &marker).processes(1).build().unwrap();
    let log = Log::new("hosts");
    for item in 0..3 {
        assert_eq!(within(seconds(15), || pool.apply(noted_host, (log.path(), item)).unwrap()), item);
    }
    assert_eq!((log.count(HOST), log.count("well")), (0, 3));
    drop(pool);
    cluster.stop().unwrap();
}

fn other_hosts_do_the_work_until_the_host_recovers() {
    let (cluster, marker) = (hosts(), marker());
    let pool = builder(&cluster, &marker).build().unwrap();
    let log = Log::new("hosts");
    let map = || {
        let items: Vec<_> = (0..200).map(|item| (log.path(), item)).collect();
        let results = within(seconds(30), || pool.job(noted_host).chunksize(1).starmap(items).unwrap());
        assert_eq!(results, (0..200).collect::<Vec<_>>());
    };
    map();
    operators::until(&cluster, |status| {
        let unhealthy = operators::agents(status).iter().find(|agent| agent["host"] == HOST);
        unhealthy.is_some_and(|agent| {
            let reason = agent["unhealthy"].as_str().unwrap_or_default();
            reason.contains("in a row") && reason.contains("exited with code 3") && agent["chunks"] == 0
        })
    });
    let table = operators::farpool(&cluster, &["agents"]);
    assert!(table.contains("is unhealthy: ") && table.contains("serving"), "{table}");
    map();
    assert_eq!((log.count(HOST), log.count("well")), (0, 400));

    fs::remove_file(marker).unwrap();
    operators::until(&cluster, |status| operators::agents(status).iter().all(|agent| agent["unhealthy"] == ""));
    map();
    assert!(log.count(HOST) > 0, "the host is not used again");
    still_works(&pool);
    drop(pool);
    cluster.stop().unwrap();
}
