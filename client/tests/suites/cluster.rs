//! The clusters that cases run on or start themselves.

use std::env;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

pub(crate) use farpool_testkit::cluster::{ADDRESS, Cluster};
use farpool_testkit::{folder, processes};

use crate::runner;

/// Number of agents of the cluster that a case runs on.
pub(crate) const AGENTS: usize = 3;
/// Slots of each of these agents.
pub(crate) const SLOTS: usize = 4;

/// Returns whether this process is a case on a cluster, or one of its tasks.
pub(crate) fn is_on_cluster() -> bool {
    env::var_os(ADDRESS).is_some()
}

/// Starts a cluster for a case.
pub(crate) fn of_case(tag: &str) -> Cluster {
    let mut cluster = Cluster::start(&format!("{tag}.daemons"), &shared_programs(), &[]);
    cluster.add_agents(SLOTS, [&[][..]; AGENTS]);
    cluster
}

/// Clusters for cases that leave them unchanged. One case uses a cluster at a time.
pub(crate) struct Shared(Mutex<Vec<Cluster>>);

impl Shared {
    pub(crate) const fn new() -> Shared {
        Shared(Mutex::new(Vec::new()))
    }

    /// Returns an idle cluster.
    pub(crate) fn take(&self) -> Cluster {
        static CLUSTERS: AtomicU32 = AtomicU32::new(0);
        let idle = self.idle().pop();
        idle.unwrap_or_else(|| {
            let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
            of_case(&format!("{}.shared.{number}", std::process::id()))
        })
    }

    /// Keeps the cluster for the next case, if this one has left nothing behind; otherwise returns what is wrong.
    pub(crate) fn put_back(&self, mut cluster: Cluster) -> Result<(), String> {
        match cluster.check_at_rest() {
            Ok(()) => self.idle().push(cluster),
            Err(wrong) => return Err(cluster.stop().err().unwrap_or(wrong)),
        }
        Ok(())
    }

    /// Stops all unused clusters; returns what is wrong with them.
    pub(crate) fn stop(&self) -> Result<(), String> {
        let idle = std::mem::take(&mut *self.idle());
        idle.into_iter().try_for_each(Cluster::stop)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Cluster>> {
        self.0.lock().expect("a thread panicked while it held the lock")
    }
}

/// Starts a cluster for this case alone, without agents.
pub(crate) fn empty() -> Cluster {
    empty_with(&[])
}

/// Starts a cluster like [`empty`], with these arguments for the coordinator.
pub(crate) fn empty_with(arguments: &[&str]) -> Cluster {
    Cluster::start(&tag_of_own(&processes::own_tag()), &shared_programs(), arguments)
}

/// Starts a cluster like [`empty_with`], but with an empty program folder.
pub(crate) fn without_programs(arguments: &[&str]) -> Cluster {
    Cluster::start(&tag_of_own(&processes::own_tag()), &runner::scratch().join("programs"), arguments)
}

/// Returns the tag of the clusters that the case with this tag starts itself.
pub(crate) fn tag_of_own(case: &str) -> String {
    format!("{case}.own")
}

/// The folder for the programs of all clusters but those [`without_programs`], so that each is sent only once.
fn shared_programs() -> PathBuf {
    folder::all().join("programs")
}
