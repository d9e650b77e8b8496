//! Programs that fork while they have a pool: the child's calls fail with the reason, the parent is not affected, and the child
//! can open its own pools.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;

use farpool::{AsyncResult, Error, ErrorKind};
use farpool_testkit::processes;
use farpool_testkit::waiting;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::failures::checks::{check_words, pool, seconds, still_works};
use crate::failures::client::Client;
use crate::failures::tasks::{FOREVER, nap, square};
use crate::report_pipe::{self, ReportPipe};

crate::runner::cases![
    calls_in_a_fork_are_rejected,
    forks_of_a_busy_program_are_harmless,
    a_fork_that_calls_exit_is_harmless,
    a_fork_opens_its_own_pool,
    a_fork_of_a_fork_opens_its_own_pool,
    a_program_that_becomes_a_daemon,
    an_input_that_forks,
    an_input_that_forks_on_farpools_thread,
    a_killed_client_whose_fork_survives,
    tasks_that_fork,
    tasks_that_fork_and_return_twice,
];

/// Forks; a child that hangs is ended after 20 s.
pub(crate) fn forked() -> Option<Pid> {
    // SAFETY: the child does what a forked child must be able to do with farpool, which is what these tests check. Besides, it
    // only uses the allocator, which works in a child with glibc.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => Some(child),
        ForkResult::Child => {
            // SAFETY: alarm(2) sets a timer of this process.
            unsafe { libc::alarm(20) };
            None
        }
    }
}

/// Exits a fork without exit handlers.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: _exit(2) may be called at any time.
    unsafe { libc::_exit(code) }
}

/// Runs `work` in a fork of this process, which then exits without exit handlers. Fails if it panics or hangs.
#[track_caller]
pub(crate) fn in_a_fork(work: impl FnOnce()) {
    match forked() {
        Some(child) => assert_success(child),
        None => leave(i32::from(catch_unwind(AssertUnwindSafe(work)).is_err())),
    }
}

/// Waits for a fork and checks that it exited with 0.
#[track_caller]
pub(crate) fn assert_success(child: Pid) {
    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
}

/// Drops a value in a fork that the parent drops, too.
pub(crate) fn drop_in_fork<T>(value: &T) {
    // SAFETY: its owner is in a stack frame to which this process does not return.
    drop(unsafe { std::ptr::read(value) });
}

#[track_caller]
fn refused(error: &Error, parent: u32) {
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    let opened = format!("the pool was opened by process {parent}; this process is a fork of it");
    check_words(error, &[&opened, "open a pool in the fork"]);
}

fn poll<T: Send + 'static>(result: AsyncResult<T>) -> Poll<Result<T, Error>> {
    pin!(result).poll(&mut Context::from_waker(Waker::noop()))
}

fn calls_in_a_fork_are_rejected() {
    let pool = pool(2);
    let parent = std::process::id();
    let (send, receive) = mpsc::channel();
    let done = pool.apply_async(nap, (0,));
    assert!(done.wait(seconds(20)));
    let mut imap = pool.imap(square, 0..);
    assert_eq!(imap.next().unwrap().unwrap(), 0);
    let ended = pool.apply_async(nap, (100,)).callback(move |_| send.send(()).unwrap());
    let results: Vec<_> = (0..6).map(|_| pool.apply_async(nap, (300,))).collect();
    let fresh = pool.imap_unordered(square, 0..3);
    in_a_fork(|| {
        let verbs = [
            pool.apply(square, (1,)).unwrap_err(),
            pool.apply_async(square, (1,)).get().unwrap_err(),
            pool.map(square, 0..3).unwrap_err(),
            pool.map_async(square, 0..3).get().unwrap_err(),
            pool.starmap(u64::pow, [(1, 2)]).unwrap_err(),
            pool.starmap_async(u64::pow, [(1, 2)]).get().unwrap_err(),
            pool.imap(square, 0..3).next().unwrap().unwrap_err(),
            pool.imap_unordered(square, 0..3).next().unwrap().unwrap_err(),
            pool.job(square).detach("nothing").map(0..3).unwrap_err(),
            pool.join().unwrap_err(),
        ];
        verbs.iter().for_each(|error| refused(error, parent));
        let mut results = results.into_iter();
        let mut next = || results.next().unwrap();
        let mut first = next();
        refused(&first.get_timeout(seconds(60)).unwrap_err(), parent);
        assert!(first.ready() && first.wait(seconds(60)));
        refused(&first.successful().unwrap_err(), parent);
        first.cancel();
        refused(&first.get().unwrap_err(), parent);
        let Poll::Ready(outcome) = poll(next()) else { panic!("the fork sleeps without a deadline") };
        refused(&outcome.unwrap_err(), parent);
        let (send, receive) = mpsc::channel();
        let with_callbacks = next()
            .callback(|_| panic!("the call has no value"))
            .error_callback(move |error| send.send(error.clone()).unwrap());
        refused(&receive.recv().unwrap(), parent);
        drop(with_callbacks);
        assert!(!format!("{:?} {pool:?}", next()).is_empty());
        refused(&done.get().unwrap_err(), parent);
        drop(ended);
        let mut fresh = fresh;
        refused(&imap.next().unwrap().unwrap_err(), parent);
        assert!(imap.next().is_none() && imap.next().is_none());
        refused(&fresh.next().unwrap().unwrap_err(), parent);
        drop((imap, fresh, results));
        pool.close();
        pool.terminate();
        refused(&pool.apply(square, (1,)).unwrap_err(), parent);
        drop_in_fork(&pool);
    });
    receive.recv().unwrap();
}

/// A thread of the parent is always inside farpool: a lock that it holds during a fork stays locked in the child.
fn forks_of_a_busy_program_are_harmless() {
    let (pool, stop) = (pool(3), AtomicBool::new(false));
    let expected: Vec<u64> = (0..500).map(square).collect();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(pool.map(square, 0..500).unwrap(), expected);
                    assert_eq!(pool.map_async(square, 0..500).callback(|_| {}).get().unwrap(), expected);
                }
            });
        }
        for round in 0..24 {
            let result = pool.map_async(square, 0..500);
            let mut imap = pool.imap(square, 0..500);
            imap.next();
            in_a_fork(|| {
                let pool = &pool;
                if round % 3 == 0 {
                    return;
                }
                assert!(pool.map(square, 0..3).is_err());
                if round % 3 == 1 {
                    drop((result, imap));
                    drop_in_fork(pool);
                } else {
                    assert!(result.get().is_err() && imap.next().unwrap().is_err());
                }
            });
        }
        stop.store(true, Ordering::Relaxed);
    });
    still_works(&pool);
}

fn a_fork_that_calls_exit_is_harmless() {
    let pool = pool(2);
    let result = pool.map_async(nap, [50; 8]);
    let child = forked();
    let Some(child) = child else {
        drop((pool, result));
        std::io::stdout().flush().unwrap();
        std::process::exit(0)
    };
    assert_success(child);
    assert_eq!(result.get().unwrap(), [50; 8]);
    still_works(&pool);
}

/// Opens a pool, calls it, runs a callback, and closes the pool.
fn a_new_pool_works() {
    let pool = pool(2);
    assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
    let (send, receive) = mpsc::channel();
    let result = pool.apply_async(square, (3,)).callback(move |nine| send.send(*nine).unwrap());
    assert_eq!((receive.recv().unwrap(), result.get().unwrap()), (9, 9));
    still_works(&pool);
    pool.close();
    pool.join().unwrap();
}

fn a_fork_opens_its_own_pool() {
    a_new_pool_works();
    let pool = pool(2);
    let result = pool.apply_async(nap, (200,)).callback(|_| {});
    in_a_fork(a_new_pool_works);
    assert_eq!(result.get().unwrap(), 200);
    still_works(&pool);
}

fn a_fork_of_a_fork_opens_its_own_pool() {
    let first = pool(1);
    assert_eq!(first.apply(square, (2,)).unwrap(), 4);
    in_a_fork(|| {
        let second = pool(1);
        assert_eq!(second.apply(square, (3,)).unwrap(), 9);
        let parent = std::process::id();
        in_a_fork(|| {
            refused(&second.apply(square, (1,)).unwrap_err(), parent);
            a_new_pool_works();
            drop_in_fork(&first);
            drop_in_fork(&second);
        });
        still_works(&second);
    });
    still_works(&first);
}

/// Calls `daemon(1, 1)` after a pool has run a callback.
fn a_program_that_becomes_a_daemon() {
    let mut line = ReportPipe::new("daemon");
    let mut client = Client::start("becomes a daemon", &[&line.path()]);
    assert_eq!(line.next(), "callback before the fork: 4");
    assert_eq!(line.next(), "callback in the daemon: 9");
    assert_eq!(line.next(), "ended");
    assert!(client.end().success());
    waiting::until_gone(seconds(5), || client.processes());
}

/// The scenario of the client.
pub(crate) fn becomes_a_daemon(path: &str) {
    let calls_back = |n: u64, words: &'static str| {
        let pool = pool(1);
        let path = path.to_owned();
        let report = move |square: &u64| report_pipe::report(&path, format!("{words}: {square}"));
        pool.apply_async(square, (n,)).callback(report).get().unwrap();
    };
    calls_back(2, "callback before the fork");
    // SAFETY: daemon(3) forks, and ends the parent.
    assert_eq!(unsafe { libc::daemon(1, 1) }, 0);
    calls_back(3, "callback in the daemon");
    report_pipe::report(path, "ended");
}

/// The child is inside a call of the parent's pool, like the parent.
fn an_input_that_forks() {
    let (pool, parent) = (pool(2), std::process::id());
    let mut child = None;
    let forks = |n: u64| {
        if n == 700 {
            child = forked();
        }
        n
    };
    let outcome = pool.map(square, (0..3000).map(forks));
    if std::process::id() != parent {
        leave(i32::from(catch_unwind(|| refused(&outcome.unwrap_err(), parent)).is_err()));
    }
    let child = child.expect("the fork failed");
    assert_success(child);
    assert_eq!(outcome.unwrap(), (0..3000).map(square).collect::<Vec<_>>());

    let mut child = None;
    let forks = |n: u64| {
        if n == 5 {
            child = forked();
        }
        n
    };
    let outcomes: Vec<_> = pool.imap(square, (0..20).map(forks)).collect();
    if std::process::id() != parent {
        let last = outcomes.into_iter().last().unwrap();
        leave(i32::from(catch_unwind(|| refused(&last.unwrap_err(), parent)).is_err()));
    }
    let child = child.expect("the fork failed");
    assert_success(child);
    assert_eq!(outcomes.into_iter().map(Result::unwrap).collect::<Vec<_>>(), (0..20).map(square).collect::<Vec<_>>());
    still_works(&pool);
}

/// The input forks on farpool's own thread, which is the child's only thread: it ends, and the child ends with it.
fn an_input_that_forks_on_farpools_thread() {
    let (pool, (send, receive)) = (pool(2), mpsc::channel());
    // Its length is unknown, so that the call itself pulls nothing.
    let mut n = 0;
    let input = std::iter::from_fn(move || {
        n += 1;
        if n == 50
            && let Some(child) = forked()
        {
            send.send(child).unwrap();
        }
        (n <= 100).then_some(n)
    });
    let result = pool.map_async(square, input);
    let child = receive.recv().unwrap();
    assert_success(child);
    assert_eq!(result.get().unwrap(), (1..=100).map(square).collect::<Vec<_>>());
    still_works(&pool);
}

/// The fork holds all sockets of its parent open.
fn a_killed_client_whose_fork_survives() {
    let mut line = ReportPipe::new("pids");
    let mut client = Client::start("forks and hangs", &[&line.path()]);
    let workers = [line.next_number(), line.next_number()];
    let fork: u32 = client.line().parse().unwrap();
    client.signal(Signal::SIGKILL);
    client.end();
    let left = || workers.iter().filter_map(|pid| processes::Process::of(*pid)).collect::<Vec<_>>();
    waiting::until_gone(seconds(5), left);
    assert!(processes::Process::of(fork).is_some_and(|fork| fork.state != 'Z'), "the fork kept running");
    processes::send(fork, Signal::SIGKILL).unwrap();
    waiting::until_gone(seconds(5), || client.processes());
}

/// The scenario of the client.
pub(crate) fn forks_and_hangs(path: String) -> ! {
    fn report_and_hang(path: String) {
        report_pipe::report(&path, std::process::id());
        nap(FOREVER);
    }
    let pool = pool(2);
    let _running = pool.map_async(report_and_hang, [path.clone(), path]);
    // SAFETY: the child only sleeps.
    if let ForkResult::Parent { child } = unsafe { fork() }.unwrap() {
        println!("{child}");
    }
    loop {
        thread::sleep(seconds(FOREVER));
    }
}

/// A fork of a worker may open pools, panic and exit; the worker continues its item.
fn tasks_that_fork() {
    fn task(n: u64) -> u64 {
        in_a_fork(|| {
            if n == 0 {
                a_new_pool_works();
            }
        });
        let panics = forked();
        let Some(panics) = panics else {
            leave(i32::from(catch_unwind(|| panic!("this panic is not the worker's")).is_err()));
        };
        assert_eq!(waitpid(panics, None).unwrap(), WaitStatus::Exited(panics, 1));
        n * n
    }
    let pool = pool(2);
    assert_eq!(pool.job(task).chunksize(1).map(0..8).unwrap(), (0..8).map(square).collect::<Vec<_>>());
    still_works(&pool);
}

/// The child returns from the task or panics, as if it were the worker.
fn tasks_that_fork_and_return_twice() {
    fn task(n: u64) -> u64 {
        match forked() {
            Some(child) => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 1));
                n * n
            }
            None if n.is_multiple_of(2) => 4242,
            None => panic!("in the child"),
        }
    }
    let pool = pool(2);
    assert_eq!(pool.map(task, 0..40).unwrap(), (0..40).map(square).collect::<Vec<_>>());
    still_works(&pool);
    let threads = crate::pools::builder().processes(1).threads(3).build().unwrap();
    assert_eq!(threads.map(task, 0..12).unwrap(), (0..12).map(square).collect::<Vec<_>>());
}
