//! The processes that run the items: their number, initializers, environment, and replacement.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use farpool_testkit::processes;

use crate::cluster;
use crate::conformance::tasks::{nap, pid_after, square, whereabouts};
use crate::log::{self, Log};
use crate::pools;

crate::runner::cases![
    all_processes_are_used_and_none_is_the_client,
    the_default_is_one_process_per_core,
    waiting_items_move_to_an_idle_worker,
    an_initializer_runs_once_in_each_worker_before_its_first_item,
    an_initializer_runs_in_replaced_workers_too,
    a_worker_is_replaced_after_its_items,
    workers_are_replaced_without_a_gap,
    replaced_workers_exit,
    few_workers_exit_slowly_at_once,
    a_worker_keeps_its_memory_between_items,
    stdin_of_a_worker_is_empty,
    tasks_do_not_see_farpools_own_environment,
    a_task_may_open_a_pool_of_its_own,
    process_lists_show_the_pools_name,
    variables_are_set_in_the_workers,
    each_worker_has_a_slot_of_its_own,
];

static GREETING: OnceLock<String> = OnceLock::new();

fn prepare(greeting: String, path: String) {
    log::note(&path, std::process::id());
    GREETING.set(greeting).expect("the initializer ran twice");
}

fn greet(name: String) -> (u32, String) {
    (std::process::id(), format!("{} {name}", GREETING.get().expect("the initializer has not run")))
}

fn all_processes_are_used_and_none_is_the_client() {
    let pool = pools::of(4);
    assert_eq!(pool.processes(), 4);
    let pids: BTreeSet<u32> = pool.job(pid_after).chunksize(1).map([100; 16]).unwrap().into_iter().collect();
    assert_eq!(pids.len(), 4, "{pids:?}");
    assert!(!pids.contains(&std::process::id()));
    let start = Instant::now();
    pool.map(nap, [300; 4]).unwrap();
    assert!(start.elapsed() < Duration::from_millis(900), "four naps were not taken at once: {:?}", start.elapsed());
}

fn the_default_is_one_process_per_core() {
    let pool = pools::pool(pools::builder());
    assert_eq!(pool.processes(), std::thread::available_parallelism().unwrap().get());
    assert_eq!(pool.map(square, [2]).unwrap(), [4]);
}

/// Quick items are given to workers ahead of time, but must not wait behind a long one.
fn waiting_items_move_to_an_idle_worker() {
    let pool = pools::of(2);
    pool.map(square, 0..10_000).unwrap();
    let start = Instant::now();
    let naps = [1500].into_iter().chain([0; 500]);
    let outcomes = pool.imap_unordered(nap, naps);
    let quick = outcomes.map(Result::unwrap).take_while(|&nap| nap == 0).count();
    assert_eq!(quick, 500, "after {:?}", start.elapsed());
}

fn an_initializer_runs_once_in_each_worker_before_its_first_item() {
    let log = Log::new("initialized");
    let options = pools::builder().processes(3).initializer(prepare, ("hello".to_owned(), log.path()));
    let pool = pools::pool(options);
    let greetings = pool.map(greet, vec!["world".to_owned(); 300]).unwrap();
    assert!(greetings.iter().all(|(_, greeting)| greeting == "hello world"));
    pool.job(pid_after).chunksize(1).map([30; 12]).unwrap();
    let lines = log.lines();
    assert_eq!(BTreeSet::from_iter(&lines).len(), lines.len(), "the initializer ran twice in a worker: {lines:?}");
    assert_eq!(lines.len(), 3);
    assert!(greetings.iter().all(|(pid, _)| lines.contains(&pid.to_string())));
}

fn an_initializer_runs_in_replaced_workers_too() {
    let log = Log::new("initialized");
    let options = pools::builder().processes(1).max_tasks_per_child(2);
    let pool = pools::pool(options.initializer(prepare, ("hi".to_owned(), log.path())));
    let greetings = pool.job(greet).chunksize(1).map(vec!["x".to_owned(); 10]).unwrap();
    let pids: BTreeSet<u32> = greetings.iter().map(|&(pid, _)| pid).collect();
    assert_eq!(pids.len(), 5, "{pids:?}");
    assert!(pids.iter().all(|&pid| log.count(pid) == 1));
}

fn a_worker_is_replaced_after_its_items() {
    for (processes, limit) in [(1, 1), (2, 1), (2, 3), (3, 10)] {
        let pool = pools::pool(pools::builder().processes(processes).max_tasks_per_child(limit));
        let mut shares: BTreeMap<u32, u64> = BTreeMap::new();
        for (pid, serial) in pool.map(whereabouts::<u64>, 0..60).unwrap() {
            *shares.entry(pid).or_default() += 1;
            assert!(serial < limit, "a worker ran its item number {serial} of {limit}");
        }
        assert!(shares.len() as u64 >= 60 / limit, "{shares:?}");
        assert!(shares.len() as u64 <= 60 / limit + processes as u64, "{shares:?}");
    }
}

fn workers_are_replaced_without_a_gap() {
    let pool = pools::pool(pools::builder().processes(2).max_tasks_per_child(1));
    let start = Instant::now();
    let outcomes: Vec<u32> = pool.imap(pid_after, std::iter::repeat_n(5, 100)).map(Result::unwrap).collect();
    assert_eq!(BTreeSet::from_iter(outcomes).len(), 100);
    // 250 ms of naps, and 100 new processes: a grace period for each would take ten seconds.
    assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
}

fn replaced_workers_exit() {
    let pool = pools::pool(pools::builder().processes(2).max_tasks_per_child(1));
    pool.job(square).chunksize(1).map(0..60).unwrap();
    let pids = pool.job(pid_after).chunksize(1).map([0; 20]).unwrap();
    let there = || processes::started_by_this_case();
    // The fork server, two workers, and at most as many again that are starting or exiting.
    let start = Instant::now();
    while there().len() > 5 {
        assert!(start.elapsed() < Duration::from_secs(5), "there are:\n{}", processes::list(&there()));
        std::thread::sleep(Duration::from_millis(5));
    }
    let gone = pids.iter().filter(|&&pid| processes::Process::of(pid).is_none()).count();
    assert!(gone >= 16, "only {gone} of 20 workers that were replaced are gone");
}

/// Makes its worker sleep for three seconds on exit.
fn exit_slowly(item: u64) -> u64 {
    extern "C" fn linger() {
        std::thread::sleep(Duration::from_secs(3));
    }
    // SAFETY: the handler is a function of this program and touches nothing of it.
    assert_eq!(unsafe { libc::atexit(linger) }, 0);
    item
}

fn few_workers_exit_slowly_at_once() {
    let pool = pools::pool(pools::builder().processes(2).max_tasks_per_child(1));
    let slow = pool.map_async(exit_slowly, 0..150);
    let mut most = Vec::new();
    while !slow.wait(Duration::from_millis(10)) {
        let there = processes::started_by_this_case();
        if there.len() > most.len() {
            most = there;
        }
    }
    assert_eq!(slow.get().unwrap(), (0..150).collect::<Vec<_>>());
    // On each host with workers: the fork server, the workers, those that are exiting (as many as slots, and four), and as many
    // as can be asked to exit or killed at one moment.
    let (hosts, slots) = if cluster::is_on_cluster() { (cluster::AGENTS, cluster::SLOTS) } else { (1, 2) };
    let bound = hosts * (1 + 2 + slots + 4 + 2 + 2);
    assert!(most.len() <= bound, "{} instead of {bound}:\n{}", most.len(), processes::list(&most));
}

fn a_worker_keeps_its_memory_between_items() {
    let pool = pools::of(1);
    let serials: Vec<u64> = pool.map(whereabouts::<u64>, 0..5).unwrap().into_iter().map(|(_, serial)| serial).collect();
    assert_eq!(serials, [0, 1, 2, 3, 4]);
    assert_eq!(pool.apply(whereabouts::<u64>, (0,)).unwrap().1, 5);
}

fn stdin_of_a_worker_is_empty() {
    fn read_stdin() -> usize {
        std::io::read_to_string(std::io::stdin()).unwrap().len()
    }
    assert_eq!(pools::of(1).apply(read_stdin, ()).unwrap(), 0);
}

fn tasks_do_not_see_farpools_own_environment() {
    fn variables() -> Vec<String> {
        std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("FARPOOL_ROLE")).collect()
    }
    assert_eq!(pools::of(1).apply(variables, ()).unwrap(), Vec::<String>::new());
}

fn a_task_may_open_a_pool_of_its_own() {
    fn sum_of_squares(n: u64) -> u64 {
        let pool = pools::of(2);
        pool.map(square, 0..n).unwrap().into_iter().sum()
    }
    let pool = pools::of(2);
    let expected: Vec<u64> = (0..6).map(|n| (0..n).map(|n| n * n).sum()).collect();
    assert_eq!(pool.map(sum_of_squares, 0..6).unwrap(), expected);
    fn twice(depth: u64) -> u64 {
        if depth == 0 { 1 } else { 2 * pools::of(1).apply(twice, (depth - 1,)).unwrap() }
    }
    assert_eq!(pool.apply(twice, (3,)).unwrap(), 8);
}

fn process_lists_show_the_pools_name() {
    fn shown() -> String {
        std::fs::read_to_string("/proc/self/comm").unwrap()
    }
    let pool = pools::pool(pools::builder().processes(1).name("thumbnails"));
    assert_eq!(pool.apply(shown, ()).unwrap().trim(), "thumbnails");
    let nameless = pools::of(1);
    assert_eq!(nameless.apply(shown, ()).unwrap().trim(), "farpool-worker");
}

fn variables_are_set_in_the_workers() {
    fn variable(name: String) -> Option<String> {
        std::env::var(name).ok()
    }
    let pool = pools::pool(pools::builder().processes(2).env("CHOSEN", "first").env("CHOSEN", "then").env("EMPTY", ""));
    let names = ["CHOSEN", "EMPTY", "FARPOOL_TEST_NOT_CHOSEN"].map(str::to_owned);
    assert_eq!(pool.map(variable, names).unwrap(), [Some("then".to_owned()), Some(String::new()), None]);
}

fn each_worker_has_a_slot_of_its_own() {
    // The parent tells workers of several agents apart: it is their fork server.
    fn slot_after(milliseconds: u64) -> (u32, u32) {
        std::thread::sleep(Duration::from_millis(milliseconds));
        (farpool::slot().unwrap(), std::os::unix::process::parent_id())
    }
    let pool = pools::of(2);
    let slots: BTreeSet<(u32, u32)> = pool.map(slot_after, [50; 8]).unwrap().into_iter().collect();
    assert_eq!(slots.len(), 2, "{slots:?}");
    assert_eq!(farpool::slot(), None);
}
