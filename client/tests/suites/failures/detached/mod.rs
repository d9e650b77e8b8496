//! Detached jobs: whatever is killed, restarted or disconnected, each item has exactly one outcome, or there is no job at all.

pub(super) mod forked;
pub(super) mod losses;
pub(super) mod outcomes;
pub(super) mod refused;

use farpool::{Detached, Pool};
use nix::sys::signal::Signal;

use crate::cluster::{self, Cluster};
use crate::failures::checks::{seconds, within};
use crate::failures::client::Client;
use crate::failures::tasks::nap;
use crate::log::{self, Log};
use crate::{pools, runner};

/// Starts a coordinator with a journal, without agents or programs.
fn bare() -> Cluster {
    cluster::without_programs(&["--journal", &journal()])
}

fn journal() -> String {
    let journal = runner::scratch().join("journal");
    journal.into_os_string().into_string().expect("the path is not UTF-8")
}

/// Starts a coordinator with a journal, and two agents of two slots.
fn cluster() -> Cluster {
    let mut cluster = cluster::empty_with(&["--journal", &journal()]);
    cluster.add_agents(2, [&[][..]; 2]);
    cluster
}

fn pool(address: &str) -> Pool {
    pools::builder().address(address).build().expect("cannot open the pool")
}

fn attach(cluster: &Cluster, name: &str) -> Detached<u64> {
    farpool::attach_to(cluster.address(), name).expect("no such job")
}

fn noted_nap(path: String, item: u64) -> u64 {
    log::note(&path, item);
    nap(20);
    item * item
}

fn items(path: String, count: u64) -> impl Iterator<Item = (String, u64)> {
    (0..count).map(move |item| (path.clone(), item))
}

fn squares(count: u64) -> Vec<u64> {
    (0..count).map(|n| n * n).collect()
}

/// Detaches a job with this many items, reports that, and waits to be killed.
pub(crate) fn detaches(address: &str, path: &str, items: u64) {
    let pool = pool(address);
    let job = pool.job(noted_nap).chunksize(1).label("naps");
    let job = job.detach("nightly").starmap(self::items(path.to_owned(), items)).unwrap();
    // If the coordinator is lost together with the client, agents would keep the workers of the client's own pool for a while.
    drop(pool);
    println!("{} is detached", job.name());
    nap(crate::failures::tasks::FOREVER);
}

/// Detaches a job, but hangs before its last item.
pub(crate) fn detaches_not_all(address: &str, path: &str, items: u64) {
    let pool = pool(address);
    let items = self::items(path.to_owned(), items).inspect(move |(_, item)| {
        if *item == items - 1 {
            println!("nearly all");
            nap(crate::failures::tasks::FOREVER);
        }
    });
    pool.job(noted_nap).detach("nightly").starmap(items).unwrap();
}

/// Leaves a job with this many items whose client was killed after detaching it.
fn orphan(cluster: &Cluster, log: &Log, items: u64) {
    let mut client = Client::start("detaches", &[cluster.address(), &log.path(), &items.to_string()]);
    assert_eq!(within(seconds(20), || client.line()), "nightly is detached");
    client.signal(Signal::SIGKILL);
    client.end();
}
