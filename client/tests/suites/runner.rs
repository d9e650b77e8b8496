//! Runs each case in a separate process: a case that crashes, hangs or leaves processes behind fails, without affecting others.
//! Each runs twice: on this machine, and on a cluster that is started for it.

use std::env;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use farpool_testkit::processes::{self, TAG};
use farpool_testkit::{doses, folder};
use libtest_mimic::{Arguments, Failed, Trial};

use crate::cluster::{self, Shared};

/// A case: a name and a function. It fails by panicking, or by leaving a process behind.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: fn(),
}

/// The cases of a module, named after their functions.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub(crate) const CASES: &[$crate::runner::Case] = &[
            $($crate::runner::Case { name: concat!(module_path!(), "::", stringify!($name)), run: $name }),*
        ];
    };
}
pub(crate) use cases;

/// The variable that tells a process which case to run.
pub(crate) const CASE: &str = "FARPOOL_TEST_CASE";
/// A case that takes longer than this hangs: the slowest takes a few seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A suite's cases, and where they run.
#[derive(Clone, Copy)]
pub(crate) struct Suite {
    /// On this machine and on a cluster, unless they are named in `local_only`.
    pub(crate) both: &'static [&'static [Case]],
    pub(crate) cluster_only: &'static [&'static [Case]],
    /// Cases, or modules of them, that do not apply to a cluster, and why.
    pub(crate) local_only: &'static [(&'static str, &'static str)],
    /// Cases that change their cluster, and how. Each gets its own.
    pub(crate) own_cluster: &'static [(&'static str, &'static str)],
}

static SHARED: Shared = Shared::new();

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Local,
    Cluster,
    /// On a cluster that no other case uses.
    OwnCluster,
}

/// The test program's main function, called after `farpool::init()`.
pub(crate) fn main(suites: &[Suite]) -> ExitCode {
    if let Ok(name) = env::var(CASE) {
        let mut cases = suites.iter().flat_map(|suite| [suite.both.concat(), suite.cluster_only.concat()].concat());
        let case = cases.find(|case| case.name == name).expect("no such case");
        (case.run)();
        processes::assert_none_left();
        return ExitCode::SUCCESS;
    }
    let trials = suites.iter().flat_map(Suite::trials).collect();
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or_else(doses::threads);
    let ended = libtest_mimic::run(&arguments, trials).exit_code();
    match SHARED.stop() {
        Ok(()) => ended,
        Err(wrong) => {
            println!("{wrong}");
            ExitCode::FAILURE
        }
    }
}

impl Suite {
    fn trials(&self) -> Vec<Trial> {
        let (both, cluster_only) = (self.both.concat(), self.cluster_only.concat());
        let is = |case: &Case, name: &str| {
            within_suite(case.name).strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        for (name, why) in self.local_only.iter().chain(self.own_cluster) {
            let exists = both.iter().chain(&cluster_only).any(|case| is(case, name));
            assert!(exists, "{name} is listed ({why}), but does not exist");
        }
        let is_among = |case: &Case, names: &[(&str, &str)]| names.iter().any(|(name, _)| is(case, name));
        let cluster = |case: &Case| if is_among(case, self.own_cluster) { Mode::OwnCluster } else { Mode::Cluster };
        let local = both.iter().map(|case| (Mode::Local, *case));
        let anywhere = both.iter().filter(|case| !is_among(case, self.local_only));
        let on_cluster = anywhere.chain(&cluster_only).map(|case| (cluster(case), *case));
        let trials = local.chain(on_cluster).map(|(mode, case)| {
            let name = format!("{}::{}", mode.name(), without_crate(case.name));
            Trial::test(name, move || run_apart(mode, case))
        });
        trials.collect()
    }
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Local => "local",
            Mode::Cluster | Mode::OwnCluster => "cluster",
        }
    }
}

/// Returns this case's own directory, which is deleted after the case has passed.
pub(crate) fn scratch() -> PathBuf {
    let tag = processes::own_tag();
    let case = tag.split('/').next().expect("the tag is empty");
    folder::all().join(case)
}

fn without_crate(name: &str) -> &str {
    name.split_once("::").map_or(name, |(_, rest)| rest)
}

/// Returns the name without the names of the crate and the suite.
fn within_suite(name: &str) -> &str {
    without_crate(without_crate(name))
}

fn run_apart(mode: Mode, case: Case) -> Result<(), Failed> {
    let tag = format!("{}.{}.{}", std::process::id(), mode.name(), case.name.replace("::", "."));
    let scratch = folder::all().join(&tag);
    fs::create_dir_all(&scratch)?;
    // A file and not a pipe: a process that is left behind would hold a pipe open, and block the test.
    let output = scratch.join("output");
    let file = File::create(&output)?;
    let cluster = match mode {
        Mode::Local => None,
        Mode::Cluster => Some(SHARED.take()),
        Mode::OwnCluster => Some(cluster::of_case(&tag)),
    };
    let mut command = Command::new(env::current_exe()?);
    command.env(CASE, case.name).env(TAG, &tag).env_remove(cluster::ADDRESS).env_remove("RUST_BACKTRACE");
    // Freed memory is returned to the system at once, so that cases measure what they hold.
    command.envs(["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"].map(|name| (name, "131072")));
    command.envs(cluster.iter().map(|cluster| (cluster::ADDRESS, cluster.address())));
    let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
    let ended = wait(child, PATIENCE);
    let left = processes::tagged(&tag);
    processes::kill(&left);
    // A case that hung or died could not stop its own cluster.
    processes::kill(&processes::tagged(&cluster::tag_of_own(&tag)));
    let is_fine = ended.is_some_and(|status| status.success()) && left.is_empty();
    let cluster = cluster.map_or(Ok(()), |cluster| match mode {
        Mode::Cluster if is_fine => SHARED.put_back(cluster),
        _ => cluster.stop(),
    });
    let wrong = match ended {
        None => format!("it hangs: after {PATIENCE:?} there are\n{}", processes::list(&left)),
        Some(status) if !status.success() => format!("it ended with {status}"),
        Some(_) if !left.is_empty() => format!("it left processes behind:\n{}", processes::list(&left)),
        Some(_) => match cluster {
            Err(wrong) => wrong,
            Ok(()) => {
                fs::remove_dir_all(&scratch)?;
                return Ok(());
            }
        },
    };
    let said = fs::read(&output)?;
    let said = String::from_utf8_lossy(&said[said.len().saturating_sub(16 << 10)..]).into_owned();
    fs::remove_dir_all(&scratch)?;
    Err(format!("{wrong}\n--- its output ends with:\n{said}").into())
}

/// Waits for the child; `None` if it still runs after this time.
pub(crate) fn wait(mut child: Child, patience: Duration) -> Option<ExitStatus> {
    let (sender, receiver) = mpsc::channel();
    // If it hangs, the thread keeps waiting; the caller kills the processes.
    thread::spawn(move || sender.send(child.wait()));
    receiver.recv_timeout(patience).ok().map(|status| status.expect("cannot wait for a child"))
}
