//! The clusters that cases run on, and those that they start themselves.

use std::env;
use std::path::PathBuf;

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

/// What the cases of the suites run on. All clusters share what they keep of programs: what was sent once need not be sent again.
pub(crate) fn of_case(tag: &str) -> Cluster {
    let mut cluster = Cluster::start(&format!("{tag}.daemons"), &folder::all().join("programs"), &[]);
    cluster.add_agents(SLOTS, [&[][..]; AGENTS]);
    cluster
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
