//! The clusters that cases run on, and those that they start themselves.

use std::env;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

pub(crate) use farpool_testkit::cluster::{ADDRESS, Cluster};
use farpool_testkit::{folder, processes};

use crate::runner;

/// As many agents has the cluster that a case runs on.
pub(crate) const AGENTS: usize = 3;
/// And as many slots each of them.
pub(crate) const SLOTS: usize = 4;

/// Whether this process is a case, or one of its tasks, that runs on a cluster.
pub(crate) fn is_here() -> bool {
    env::var_os(ADDRESS).is_some()
}

/// One of so many agents and slots, for a case. All share what they keep of programs: what was sent once need not be sent again.
pub(crate) fn of_case(tag: &str) -> Cluster {
    let mut cluster = Cluster::start(&format!("{tag}.daemons"), &folder::all().join("programs"), &[]);
    cluster.add_agents(SLOTS, [&[][..]; AGENTS]);
    cluster
}

/// The clusters of cases that leave them as they were. Each is one case's at a time.
pub(crate) struct Shared(Mutex<Vec<Cluster>>);

impl Shared {
    pub(crate) const fn new() -> Shared {
        Shared(Mutex::new(Vec::new()))
    }

    /// One that is at rest.
    pub(crate) fn take(&self) -> Cluster {
        static CLUSTERS: AtomicU32 = AtomicU32::new(0);
        let idle = self.idle().pop();
        idle.unwrap_or_else(|| {
            let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
            of_case(&format!("{}.shared.{number}", std::process::id()))
        })
    }

    /// Keeps it for the next case, if this one has left nothing; otherwise tells what is wrong.
    pub(crate) fn put_back(&self, mut cluster: Cluster) -> Result<(), String> {
        match cluster.check_at_rest() {
            Ok(()) => self.idle().push(cluster),
            Err(wrong) => return Err(cluster.stop().err().unwrap_or(wrong)),
        }
        Ok(())
    }

    /// Stops all that nobody uses; tells what is wrong with them.
    pub(crate) fn stop(&self) -> Result<(), String> {
        let idle = std::mem::take(&mut *self.idle());
        idle.into_iter().try_for_each(Cluster::stop)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Cluster>> {
        self.0.lock().expect("nobody panics with it")
    }
}

/// One for this case alone, without an agent and with programs of its own: nobody has any yet.
pub(crate) fn empty() -> Cluster {
    empty_with(&[])
}

/// The same; these are arguments of the coordinator's.
pub(crate) fn empty_with(arguments: &[&str]) -> Cluster {
    Cluster::start(&tag_of_own(&processes::own_tag()), &own_programs(), arguments)
}

/// The tag of the clusters that the case with this tag starts itself.
pub(crate) fn tag_of_own(case: &str) -> String {
    format!("{case}.own")
}

fn own_programs() -> PathBuf {
    runner::scratch().join("programs")
}
