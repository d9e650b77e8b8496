//! The state of a process that opens a pool (on a cluster: that starts an agent), and what workers inherit of it.

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};

use farpool::{ErrorKind, Pool};
use farpool_testkit::binaries;
use farpool_testkit::processes;
use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, kill, signal};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::cluster::{self, Cluster};
use crate::failures::checks::{check_words, millis, pool, seconds, still_works, within};
use crate::failures::client::Client;
use crate::failures::tasks::{FOREVER, Fault, identity, nap, square};
use crate::log::Log;
use crate::pools;
use crate::runner;

crate::runner::cases![
    everything_in_the_table,
    blocked_or_ignored_signals_are_harmless,
    a_deleted_working_directory,
    a_memory_limit_above_the_process_limit,
    a_file_size_limit_below_a_workers_memory,
    closed_standard_descriptors,
    the_controlling_terminal,
];

pub(crate) const OF_CLUSTERS: &[runner::Case] = &[
    runner::Case {
        name: concat!(module_path!(), "::an_agent_with_a_file_size_limit"),
        run: an_agent_with_a_file_size_limit,
    },
    runner::Case {
        name: concat!(module_path!(), "::daemons_with_closed_standard_descriptors"),
        run: daemons_with_closed_standard_descriptors,
    },
];

/// A descriptor without close-on-exec.
const LEFT_OPEN: i32 = 251;

/// The state of a process, as the system reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    /// Lines of /proc/self/status: masks of signals, and more.
    status: Vec<String>,
    limits: String,
    nice: String,
    terminal: String,
    oom_score_adj: String,
    left_open: bool,
    stdin: String,
    pid: u32,
    process_group: String,
    session: String,
    /// SCHED_OTHER is 0, SCHED_BATCH is 3.
    policy: String,
    /// The class and the level, as ioprio_get(2) encodes them.
    io_priority: i64,
    groups: String,
    namespaces: Vec<String>,
    subreaper: bool,
    dumpable: bool,
    death_signal: Option<i32>,
    /// Seconds until SIGALRM; 0: none.
    alarm: u32,
}

const STATUS: [&str; 13] = [
    "SigBlk",
    "SigIgn",
    "Umask",
    "NoNewPrivs",
    "Cpus_allowed_list",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "SigPnd",
    "ShdPnd",
    "VmLck",
];
/// State that farpool does not change.
const STATUS_AS_BEFORE: [&str; 6] = ["Umask", "NoNewPrivs", "Cpus_allowed_list", "CapInh", "CapBnd", "CapAmb"];
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// For ioprio_set(2): this process, and the second lowest level of the class best-effort.
const IOPRIO_WHO_PROCESS: i32 = 1;
const BEST_EFFORT_6: i32 = 2 << 13 | 6;

fn observe(_: u64) -> Seen {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap();
    let link = |name: &str| fs::read_link(format!("/proc/self/{name}")).unwrap().to_str().unwrap().to_owned();
    let stat = read("stat");
    let field = |at: usize| stat.rsplit_once(')').unwrap().1.split_whitespace().nth(at).unwrap().to_owned();
    let status = read("status");
    let wanted = |line: &&str| STATUS.iter().any(|name| line.starts_with(name));
    Seen {
        status: status.lines().filter(wanted).map(str::to_owned).collect(),
        limits: read("limits"),
        nice: field(16),
        terminal: field(4),
        oom_score_adj: read("oom_score_adj"),
        left_open: fs::exists(format!("/proc/self/fd/{LEFT_OPEN}")).unwrap(),
        stdin: link("fd/0"),
        pid: std::process::id(),
        process_group: field(2),
        session: field(3),
        policy: field(38),
        // SAFETY: only takes numbers.
        io_priority: unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) },
        groups: read("cgroup"),
        namespaces: NAMESPACES.iter().map(|name| link(&format!("ns/{name}"))).collect(),
        subreaper: nix::sys::prctl::get_child_subreaper().unwrap(),
        dumpable: nix::sys::prctl::get_dumpable().unwrap(),
        death_signal: nix::sys::prctl::get_pdeathsig().unwrap().map(|signal| signal as i32),
        alarm: nix::unistd::alarm::cancel().unwrap_or(0),
    }
}

/// Opens a pool here, or on a cluster whose only agent starts now.
fn pool_of_this() -> (Option<Cluster>, Pool) {
    let cluster = cluster::is_on_cluster().then(|| {
        let mut cluster = cluster::empty();
        cluster.add_agent(2, &[]);
        cluster
    });
    let options = pools::builder().processes(2);
    let options = match &cluster {
        Some(cluster) => options.address(cluster.address()),
        None => options,
    };
    (cluster, options.build().unwrap())
}

fn end((cluster, pool): (Option<Cluster>, Pool)) {
    drop(pool);
    // SAFETY: no handler is installed. Daemons are waited for.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.unwrap();
    assert_eq!(cluster.map_or(Ok(()), Cluster::stop), Ok(()));
}

fn block_and_ignore() {
    if cluster::is_on_cluster() {
        // Cargo may have to build them, and could not wait for its processes afterwards.
        binaries::build_daemons();
    }
    SigSet::all().thread_set_mask().unwrap();
    for ignored in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGCHLD,
        Signal::SIGTSTP,
    ] {
        // SAFETY: a signal is ignored, no handler is installed.
        unsafe { signal(ignored, SigHandler::SigIgn) }.unwrap();
    }
}

/// Checks README's table, row by row.
fn everything_in_the_table() {
    let pinned = Command::new("taskset").args(["-cp", "0", &std::process::id().to_string()]).output().unwrap();
    assert!(pinned.status.success(), "{pinned:?}");
    block_and_ignore();
    // SAFETY: only takes a number.
    assert_ne!(unsafe { libc::nice(5) }, -1);
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o037));
    for (limit, soft, hard) in [
        (Resource::RLIMIT_NOFILE, 400, 500),
        (Resource::RLIMIT_FSIZE, 100 << 20, 200 << 20),
        (Resource::RLIMIT_CPU, 3000, 4000),
        (Resource::RLIMIT_AS, 100 << 30, 200 << 30),
        (Resource::RLIMIT_STACK, 6 << 20, 60 << 20),
        (Resource::RLIMIT_CORE, 0, 0),
        (Resource::RLIMIT_NPROC, 20_000, 30_000),
    ] {
        let most = getrlimit(limit).unwrap().1;
        setrlimit(limit, soft.min(most), hard.min(most)).unwrap();
    }
    fs::write("/proc/self/oom_score_adj", "300").unwrap();
    nix::sys::prctl::set_no_new_privs().unwrap();
    // SAFETY: the number is free, and nothing else owns the new descriptor.
    let _left_open = unsafe {
        assert_eq!(libc::dup2(1, LEFT_OPEN), LEFT_OPEN);
        OwnedFd::from_raw_fd(LEFT_OPEN)
    };
    set_scheduling();
    let own = observe(0);
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    nix::sys::prctl::set_pdeathsig(Signal::SIGHUP).unwrap();
    assert_eq!(nix::unistd::alarm::set(10_000), None);
    kill(Pid::this(), Signal::SIGUSR2).unwrap();
    // SAFETY: it locks a page of a static in memory.
    assert_eq!(unsafe { libc::mlock(STATUS.as_ptr().cast(), 1) }, 0, "{}", Errno::last());
    nix::sys::prctl::set_dumpable(false).unwrap();
    let opened = pool_of_this();
    let worker = opened.1.map(observe, [0]).unwrap().remove(0);
    let line = |of: &Seen, name: &str| of.status.iter().find(|line| line.starts_with(name)).unwrap().clone();
    for as_before in STATUS_AS_BEFORE {
        assert_eq!(line(&worker, as_before), line(&own, as_before));
    }
    for none in ["SigPnd:\t0000000000000000", "ShdPnd:\t0000000000000000", "VmLck:\t       0 kB"] {
        assert!(worker.status.iter().any(|line| line == none), "{none}: {:?}", worker.status);
    }
    assert_eq!(line(&worker, "SigBlk"), "SigBlk:\t0000000000000000", "no signal is blocked");
    let mask = |of: &Seen, name: &str| u64::from_str_radix(line(of, name).rsplit_once('\t').unwrap().1, 16).unwrap();
    for capabilities in ["CapPrm", "CapEff"] {
        // As for every program that root starts.
        assert_eq!(mask(&worker, capabilities), mask(&own, capabilities) & mask(&own, "CapBnd"), "{capabilities}");
    }
    // Two signals belong to the C library, and programs cannot change them.
    assert_eq!(mask(&worker, "SigIgn") & !(3 << 31), 1 << 12, "SIGPIPE is ignored, as in every Rust program");
    assert_eq!((&worker.limits, &worker.nice, &worker.oom_score_adj), (&own.limits, &own.nice, &own.oom_score_adj));
    assert_eq!(worker.nice, "5");
    assert_eq!(worker.left_open, !cluster::is_on_cluster(), "inherited from a client, never from an agent");
    assert_eq!((&*worker.terminal, &*worker.stdin), ("0", "/dev/null"));
    assert_eq!((&worker.policy, worker.io_priority), (&own.policy, own.io_priority));
    assert_eq!((&*worker.policy, worker.io_priority), ("3", BEST_EFFORT_6.into()));
    assert_eq!((&worker.groups, &worker.namespaces), (&own.groups, &own.namespaces));
    assert_eq!((&worker.session, worker.process_group), (&own.session, worker.pid.to_string()));
    assert_eq!((worker.subreaper, worker.dumpable, worker.alarm), (false, true, 0));
    assert_eq!(worker.death_signal, Some(Signal::SIGKILL as i32));
    let [orphan, forker, worker] = opened.1.apply(leave_an_orphan, ((),)).unwrap();
    assert_eq!((orphan, forker != worker), (forker, true), "the fork server is a subreaper");
    end(opened);
}

/// Sets an unusual scheduling policy, I/O priority and capability bound.
fn set_scheduling() {
    let batch = libc::sched_param { sched_priority: 0 };
    // SAFETY: only takes numbers, and a structure that is read.
    unsafe {
        assert_eq!(libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const batch), 0, "{}", Errno::last());
        let set = libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, BEST_EFFORT_6);
        assert_eq!(set, 0, "{}", Errno::last());
        // Only root has capabilities. This drops CAP_SYS_PACCT, which nothing here needs.
        let _ = libc::prctl(libc::PR_CAPBSET_DROP, 20, 0, 0, 0);
    }
}

/// Starts a shell that leaves a process behind. Returns that process's parent, the worker's parent, and the worker.
fn leave_an_orphan((): ()) -> [u32; 3] {
    let shell = Command::new("sh").args(["-c", "sleep 100 >/dev/null 2>&1 & echo $!"]).output().unwrap();
    let pid: u32 = String::from_utf8(shell.stdout).unwrap().trim().parse().unwrap();
    // The shell has been reaped, so this is the new parent.
    let parent = processes::every().find(|process| process.pid == pid).unwrap().parent;
    processes::send(pid, Signal::SIGKILL).unwrap();
    [parent, nix::unistd::getppid().as_raw().cast_unsigned(), std::process::id()]
}

/// Includes SIGCHLD, and the signals that ask workers and daemons to exit.
fn blocked_or_ignored_signals_are_harmless() {
    block_and_ignore();
    let opened = pool_of_this();
    let pool = &opened.1;
    let died = within(seconds(3), || {
        pool.job(|fault: Fault| fault.trigger()).retries(1).apply((Fault::Exit(3),)).unwrap_err()
    });
    assert_eq!((died.kind(), died.attempts()), (ErrorKind::WorkerDied, 2), "{died}");
    check_words(&died, &["exited with code 3"]);
    let late = within(seconds(3), || pool.job(nap).timeout(millis(200)).apply((FOREVER,)).unwrap_err());
    assert_eq!(late.kind(), ErrorKind::TimedOut, "{late}");
    // Tasks may start processes and wait for them.
    let status =
        |_: u64| Command::new("true").status().map(|status| status.success()).map_err(|error| error.to_string());
    assert_eq!(pool.map(status, 0..3).unwrap(), [Ok(true), Ok(true), Ok(true)]);
    still_works(pool);
    end(opened);
    assert!(processes::started_by_this_case().is_empty());
}

fn a_deleted_working_directory() {
    let folder = runner::scratch().join("gone");
    fs::create_dir(&folder).unwrap();
    std::env::set_current_dir(&folder).unwrap();
    fs::remove_dir(&folder).unwrap();
    let pool = pool(2);
    still_works(&pool);
    let there = |(): ()| std::env::current_dir().is_ok();
    assert_eq!(pool.apply(there, ((),)).unwrap(), cluster::is_on_cluster());
}

/// The lower limit applies.
fn a_memory_limit_above_the_process_limit() {
    setrlimit(Resource::RLIMIT_AS, 16 << 30, 16 << 30).unwrap();
    let opened = pool_of_this();
    let options = pools::builder().processes(1).memory_limit(64 << 30);
    let options = match &opened.0 {
        Some(cluster) => options.address(cluster.address()),
        None => options,
    };
    let limit = |(): ()| nix::sys::resource::getrlimit(Resource::RLIMIT_AS).unwrap();
    let limited = options.build().unwrap();
    assert_eq!(limited.apply(limit, ((),)).unwrap(), (16 << 30, 16 << 30));
    drop(limited);
    end(opened);
}

/// 8192 blocks of 1 KiB are slightly too few. This used to kill the client without a message.
fn a_file_size_limit_below_a_workers_memory() {
    for bytes in [8 << 20, 1 << 20, 0] {
        setrlimit(Resource::RLIMIT_FSIZE, bytes, RLIM_INFINITY).unwrap();
        let error = pools::builder().processes(2).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        check_words(&error, &["ulimit -f", &format!("limited to {bytes} bytes"), "raise the limit to 8256 KiB"]);
    }
    setrlimit(Resource::RLIMIT_FSIZE, 8256 << 10, RLIM_INFINITY).unwrap();
    still_works(&pool(2));
    processes::assert_none_left();
}

fn an_agent_with_a_file_size_limit() {
    let agent = Command::new("sh")
        .args(["-c", "ulimit -f 8192; exec \"$0\" \"$@\""])
        .arg(binaries::agent())
        .args(["--coordinator", "http://127.0.0.1:9", "--programs"])
        .arg(runner::scratch().join("programs"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&agent.stderr).into_owned();
    assert_eq!(agent.status.code(), Some(1), "{output}");
    assert!(output.contains("ulimit -f") && output.contains("limited to 4194304 bytes"), "{output}");
}

/// Closes each combination of them, before and after the pool is opened.
fn closed_standard_descriptors() {
    for when in ["before", "after"] {
        for closed in 0..8 {
            let log = Log::new(&format!("closed-{when}-{closed}"));
            let mut client = Client::start("closes descriptors", &[when, &closed.to_string(), &log.path()]);
            assert!(client.end().success(), "{when}, {closed:03b}: {:?}", log.lines());
            assert_eq!(log.lines(), ["no error"]);
        }
    }
}

/// The client of that case, which reports to `path`.
pub(crate) fn closes_descriptors(before: bool, closed: i32, path: &str) {
    let is_open = |fd: i32| fs::exists(format!("/proc/self/fd/{fd}")).unwrap();
    let close = || {
        for fd in (0..3).filter(|fd| closed & 1 << fd != 0) {
            // SAFETY: users of these descriptors find them closed, which is what this case is about.
            assert_eq!(unsafe { libc::close(fd) }, 0);
        }
    };
    let prints = |n: u64| {
        println!("a line of item {n} on stdout");
        eprintln!("a line of item {n} on stderr");
        std::process::id()
    };
    if before {
        close();
    }
    let pool = pools::builder().processes(2).max_tasks_per_child(20).build().unwrap();
    if !before {
        pool.map(square, 0..10).unwrap();
        close();
    }
    let pids = pool.job(prints).chunksize(1).map(0..100).unwrap();
    eprintln!("the client's own");
    println!("the client's own");
    let workers: std::collections::BTreeSet<_> = pids.iter().collect();
    // Each worker has run its 20 items, except the last ones: the output of one never ended another.
    assert!(workers.len() <= 8, "{} workers", workers.len());
    let died = pool.job(|fault: Fault| fault.trigger()).retries(0).apply((Fault::Kill,)).unwrap_err();
    assert_eq!(died.kind(), ErrorKind::WorkerDied);
    assert_eq!(pool.map(identity::<u64>, 0..10).unwrap().len(), 10);
    // The program's descriptors are unchanged. While a worker is being started, they are temporarily open.
    farpool_testkit::waiting::until(|| (0..3).all(|fd| is_open(fd) == (closed & 1 << fd == 0)));
    drop(pool);
    crate::log::note(path, "no error");
}

/// Workers have no controlling terminal, so reading from it or writing to it cannot stop them.
fn the_controlling_terminal() {
    let tag = format!("{}/client", processes::own_tag());
    let client = Command::new("script")
        .args(["-qec", &format!("stty tostop; exec {}", std::env::current_exe().unwrap().display()), "/dev/null"])
        .env(crate::failures::scenarios::SCENARIO, "reads from its terminal")
        .env(processes::TAG, tag)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = within(seconds(20), || client.wait_with_output().unwrap());
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.contains("it has none: No such device or address (os error 6)") && output.contains("no error"),
        "{output}"
    );
}

/// The client of that case.
pub(crate) fn reads_from_its_terminal() {
    assert!(fs::File::open("/dev/tty").is_ok(), "the client has no terminal");
    let read = |(): ()| match fs::File::open("/dev/tty") {
        Ok(terminal) => format!("it has one: {}", terminal.as_raw_fd()),
        Err(error) => format!("it has none: {error}"),
    };
    let prints = |n: u64| println!("item {n}");
    let pool = pool(2);
    println!("{}", pool.apply(read, ((),)).unwrap());
    pool.map(prints, 0..10).unwrap();
    println!("no error");
}

fn daemons_with_closed_standard_descriptors() {
    let mut cluster = cluster::empty();
    let programs = runner::scratch().join("closed");
    let mut agent = Command::new("sh")
        .args(["-c", "exec \"$0\" \"$@\" 0<&- 1>&- 2>&-"])
        .arg(binaries::agent())
        .args(["--coordinator", cluster.address(), "--slots", "2", "--programs"])
        .arg(&programs)
        .spawn()
        .unwrap();
    let pool = pools::builder().processes(2).address(cluster.address()).build().unwrap();
    let prints = |n: u64| {
        println!("a line of item {n} on stdout");
        eprintln!("a line of item {n} on stderr");
        n
    };
    assert_eq!(pool.job(prints).chunksize(1).map(0..20).unwrap().len(), 20);
    still_works(&pool);
    drop(pool);
    processes::send(agent.id(), Signal::SIGTERM).unwrap();
    assert!(agent.wait().unwrap().success());
    cluster.add_agent(1, &[]);
    assert_eq!(cluster.stop(), Ok(()));
}
