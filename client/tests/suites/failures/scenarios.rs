//! The scenarios of clients in separate processes. They share this program's main; tests wait for their lines on stdout.

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use farpool::{AsyncResult, Pool};

use crate::failures::checks::{pool, seconds};
use crate::failures::detached;
use crate::failures::forks;
use crate::failures::inherited;
use crate::failures::litter::{STARTS, litter};
use crate::failures::tasks::{FOREVER, Fault, identity, nap, pid_after, square};
use crate::pools;
use crate::report_pipe;

/// The variable that names the scenario.
pub(crate) const SCENARIO: &str = "FARPOOL_TEST_SCENARIO";
/// The variable that names a file: while it exists, workers die on the host that it contains.
pub(crate) const UNHEALTHY_MARKER: &str = "FARPOOL_TEST_UNHEALTHY";
/// farpool's own variable, which tells a process that it is a fork server or worker.
const ROLE: &str = "FARPOOL_ROLE";

fn scenario() -> Option<String> {
    std::env::var(SCENARIO).ok()
}

fn argument(at: usize) -> String {
    std::env::args().nth(at).expect("the scenario lacks an argument")
}

/// Writes a line to the test.
fn report_line(line: impl std::fmt::Display) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

/// Waits until the test lets it continue.
fn wait_to_resume() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// The process that has run `main` up to `farpool::init()`.
static CAME_THROUGH_MAIN: AtomicU32 = AtomicU32::new(0);

/// Runs scenarios that go wrong before `farpool::init()`, or never call it.
pub(crate) fn before_init() {
    CAME_THROUGH_MAIN.store(std::process::id(), Ordering::Relaxed);
    match scenario().as_deref() {
        Some("forgets init") => {
            report_line(Pool::new(2).unwrap_err());
            std::process::exit(0);
        }
        Some("leaves before init") if std::env::var_os(ROLE).is_some() => std::process::exit(7),
        Some("threads before init") => drop(thread::spawn(|| thread::sleep(seconds(3600)))),
        Some("an unhealthy host") => fail_on_unhealthy_host(),
        Some("ignores SIGCHLD") if std::env::var_os(ROLE).is_none() => ignore(nix::sys::signal::Signal::SIGCHLD),
        _ => {}
    }
}

/// Starts a thread in a fork server, so that workers run `main`, too; these exit on the unhealthy host.
fn fail_on_unhealthy_host() {
    if std::env::var(ROLE).is_ok_and(|role| role == "fork-server") {
        drop(thread::spawn(|| thread::sleep(seconds(3600))));
        return;
    }
    let host = std::env::var(UNHEALTHY_MARKER).ok().and_then(|file| std::fs::read_to_string(file).ok());
    if host.is_some() && host == std::env::var("FARPOOL_HOST").ok() {
        std::process::exit(3);
    }
}

/// Runs the scenario, if this process is a client.
pub(crate) fn after_init() {
    let Some(scenario) = scenario() else { return };
    match scenario.as_str() {
        "leaves before init" => report_line(failure_of(pools::builder().processes(2).build())),
        "threads before init" => works_and_fails(true),
        "ignores SIGCHLD" => works_and_fails(false),
        "hangs" => hangs(),
        "hangs in its initializer" => hangs_in_its_initializer(),
        "opens pools" => opens_pools(),
        "exits" => exits(),
        "panics" => panics(),
        "forgets its pool" => {
            std::mem::forget(busy_pool());
            wait_to_resume();
        }
        "becomes a daemon" => forks::becomes_a_daemon(&argument(1)),
        "forks and hangs" => forks::forks_and_hangs(argument(1)),
        "detaches" => detached::detaches(&argument(1), &argument(2), argument(3).parse().unwrap()),
        "detaches not all" => detached::detaches_not_all(&argument(1), &argument(2), argument(3).parse().unwrap()),
        "returns a pool's error" => returns_an_error(),
        "prints" => prints(),
        "closes descriptors" => {
            inherited::closes_descriptors(argument(1) == "before", argument(2).parse().unwrap(), &argument(3))
        }
        "reads from its terminal" => inherited::reads_from_its_terminal(),
        "prints for ever" => prints_for_ever(),
        other => panic!("no scenario is called {other:?}"),
    }
    std::process::exit(0);
}

fn ignore(signal: nix::sys::signal::Signal) {
    // SAFETY: a signal is ignored, no handler is installed.
    unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn) }.unwrap();
}

/// Returns the error of a pool, from opening it or from its first call.
fn failure_of(pool: Result<Pool, farpool::Error>) -> farpool::Error {
    match pool {
        Ok(pool) => pool.map(square, 0..3).unwrap_err(),
        Err(error) => error,
    }
}

/// Checks briefly what the other tests check, with workers that were forked, or started by running the program again.
fn works_and_fails(from_scratch: bool) {
    let pool = pool(2);
    let was_started_from_scratch = |_: u64| CAME_THROUGH_MAIN.load(Ordering::Relaxed) == std::process::id();
    assert_eq!(pool.map(was_started_from_scratch, 0..4).unwrap(), [from_scratch; 4]);
    assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
    let died = pool.job(|fault: Fault| fault.trigger()).retries(1).apply((Fault::Exit(3),)).unwrap_err();
    assert_eq!((died.kind(), died.attempts()), (farpool::ErrorKind::WorkerDied, 2), "{died}");
    assert!(died.to_string().contains("exited with code 3"), "{died}");
    let late = pool.job(nap).timeout(crate::failures::checks::millis(100)).apply((FOREVER,)).unwrap_err();
    assert_eq!(late.kind(), farpool::ErrorKind::TimedOut, "{late}");
    crate::failures::checks::still_works(&pool);
    let limited = pools::builder().processes(1).max_tasks_per_child(1).build().unwrap();
    let pids = limited.job(pid_after).chunksize(1).map([0; 3]).unwrap();
    assert!(pids[0] != pids[1] && pids[1] != pids[2]);
    pool.close();
    pool.join().unwrap();
    drop(limited);
    farpool_testkit::processes::assert_none_left();
    report_line("no error");
}

fn one_of_each(path: String, item: u64) {
    if let Some(&start) = STARTS.get(item as usize) {
        litter(start);
    }
    report_pipe::report(&path, std::process::id());
    match item {
        0 => Fault::Spin.trigger(),
        1 => Fault::SpinIgnoringSigterm.trigger(),
        2 => Fault::Stop.trigger(),
        _ => {}
    }
    nap(FOREVER);
}

/// Opens a pool with a worker in each state in which workers can hang, each of which has left processes behind.
fn busy_pool() -> (Pool, AsyncResult<Vec<()>>) {
    let pool = pool(4);
    let path = argument(1);
    let running = pool.job(one_of_each).chunksize(1).starmap_async((0..4).map(move |item| (path.clone(), item)));
    (pool, running)
}

fn hangs() {
    let (_pool, running) = busy_pool();
    running.get().unwrap_err();
}

fn hangs_in_its_initializer() {
    fn initializer(path: String) {
        report_pipe::report(&path, std::process::id());
        Fault::SpinIgnoringSigterm.trigger();
    }
    let options = pools::builder().processes(2);
    let pool = options.initializer(initializer, (argument(1),)).build().unwrap();
    pool.map(nap, [FOREVER]).unwrap_err();
}

/// May be killed at any moment.
fn opens_pools() {
    report_line("ready");
    loop {
        let pool = pool(3);
        pool.map(identity::<u64>, 0..50).unwrap();
    }
}

fn exits() {
    let _pool = busy_pool();
    wait_to_resume();
    std::process::exit(5);
}

fn panics() {
    let _pool = busy_pool();
    wait_to_resume();
    panic!("the client panics on purpose");
}

fn returns_an_error() {
    let pool = pool(2);
    let error = pool.apply(|| -> () { panic!("the story") }, ()).unwrap_err();
    report_line(format!("{error:?}").lines().next().unwrap());
}

fn prints() {
    fn print(bytes: usize) {
        let line = "x".repeat(99);
        for _ in 0..bytes / 100 {
            println!("{line}");
            eprintln!("{line}");
        }
    }
    let pool = pool(2);
    let bytes: usize = argument(1).parse().unwrap();
    pool.map(print, [bytes, bytes]).unwrap();
    pool.close();
    pool.join().unwrap();
}

/// One item prints without end, the others print nothing.
fn prints_for_ever() {
    fn print(item: u64) -> u64 {
        if item == 0 {
            loop {
                eprintln!("{}", "x".repeat(99));
            }
        }
        item
    }
    let pool = pool(2);
    let mut outcomes = pool.job(print).retries(0).imap_unordered(0..1000);
    assert!((1..1000).all(|_| outcomes.next().unwrap().unwrap() > 0));
    report_line("the others are done");
    wait_to_resume();
}
