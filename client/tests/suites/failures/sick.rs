//! A host on which workers die before they can serve, beside one where they do not.

use std::fs;
use std::path::{Path, PathBuf};

use farpool::Builder;

use crate::cluster::{self, Cluster};
use crate::failures::checks::{seconds, serves_on, within};
use crate::failures::operators;
use crate::failures::scenarios::{SCENARIO, SICKNESS};
use crate::failures::tasks::nap;
use crate::log;
use crate::log::Log;
use crate::pools;
use crate::runner;

crate::runner::cases![others_do_the_work_until_workers_serve_again, a_pool_with_a_limit_gets_its_workers_elsewhere,];

const HOST: &str = "sick";

/// As long as the file is there, workers on the host of this name exit when they start.
fn sickness() -> PathBuf {
    let file = runner::scratch().join("sickness");
    fs::write(&file, HOST).unwrap();
    file
}

fn noted_host(path: String, item: u64) -> u64 {
    log::note(&path, std::env::var("FARPOOL_HOST").unwrap_or_default());
    nap(5);
    item
}

/// One host is sick, and another one is not.
fn hosts() -> Cluster {
    let mut cluster = cluster::empty();
    cluster.add_agent(2, &["--host", HOST]);
    cluster.add_agent(2, &["--host", "well"]);
    cluster
}

fn builder(cluster: &Cluster, sickness: &Path) -> Builder {
    let builder = pools::builder().address(cluster.address()).env(SCENARIO, "a sick host");
    builder.env(SICKNESS, sickness.to_str().unwrap())
}

/// Its only worker was allotted to the host that is there longest, and is wanted where one can serve.
fn a_pool_with_a_limit_gets_its_workers_elsewhere() {
    let (cluster, sickness) = (hosts(), sickness());
    let pool = builder(&cluster, &sickness).processes(1).build().unwrap();
    let log = Log::new("hosts");
    for item in 0..3 {
        assert_eq!(within(seconds(15), || pool.apply(noted_host, (log.path(), item)).unwrap()), item);
    }
    assert_eq!((log.count(HOST), log.count("well")), (0, 3));
    drop(pool);
    cluster.stop().unwrap();
}

fn others_do_the_work_until_workers_serve_again() {
    let (cluster, sickness) = (hosts(), sickness());
    let pool = builder(&cluster, &sickness).build().unwrap();
    let log = Log::new("hosts");
    let map = || {
        let items: Vec<_> = (0..200).map(|item| (log.path(), item)).collect();
        let results = within(seconds(30), || pool.job(noted_host).chunksize(1).starmap(items).unwrap());
        assert_eq!(results, (0..200).collect::<Vec<_>>());
    };
    map();
    operators::until(&cluster, |status| {
        let sick = operators::agents(status).iter().find(|agent| agent["host"] == HOST);
        sick.is_some_and(|agent| {
            let reason = agent["unhealthy"].as_str().unwrap_or_default();
            reason.contains("in a row") && reason.contains("exited with code 3") && agent["chunks"] == 0
        })
    });
    let table = operators::farpool(&cluster, &["agents"]);
    assert!(table.contains("is unhealthy: ") && table.contains("serving"), "{table}");
    map();
    assert_eq!((log.count(HOST), log.count("well")), (0, 400));

    fs::remove_file(sickness).unwrap();
    operators::until(&cluster, |status| operators::agents(status).iter().all(|agent| agent["unhealthy"] == ""));
    map();
    assert!(log.count(HOST) > 0, "it is not used again");
    serves_on(&pool);
    drop(pool);
    cluster.stop().unwrap();
}
