//! Workers that are killed from outside.

use farpool::ErrorKind;
use farpool_testkit::processes;
use nix::sys::signal::Signal;

use crate::failures::checks::{check_error, millis, pool, seconds, still_works, within};
use crate::failures::tasks::{hang, pid_after, square};
use crate::report_pipe::ReportPipe;

crate::runner::cases![
    a_worker_killed_while_it_runs,
    a_worker_killed_repeatedly,
    an_idle_worker_killed,
    all_workers_killed_at_once,
    workers_killed_continuously,
];

fn a_worker_killed_while_it_runs() {
    let (pool, mut line) = (pool(2), ReportPipe::new("pids"));
    let signals = [
        (Signal::SIGKILL, "signal 9 (SIGKILL)"),
        (Signal::SIGSEGV, "signal 11 (SIGSEGV)"),
        (Signal::SIGTERM, "signal 15 (SIGTERM)"),
        (Signal::SIGBUS, "signal 7 (SIGBUS)"),
    ];
    for (signal, words) in signals {
        let doomed = pool.job(hang).retries(0).apply_async((line.path(),));
        let pid = line.next_number();
        // Rust's own handler of SIGSEGV and SIGBUS ignores the first signal that was no real fault.
        let killed_at = std::time::Instant::now();
        for _ in 0..=u8::from(matches!(signal, Signal::SIGSEGV | Signal::SIGBUS)) {
            processes::send(pid, signal).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let error = doomed.get().unwrap_err();
        assert!(killed_at.elapsed() < seconds(1), "the caller got the error after {:?}", killed_at.elapsed());
        check_error(&error, ErrorKind::WorkerDied, 0, 1, &[words]);
        assert_eq!(error.pid(), Some(pid));
    }
    still_works(&pool);
}

fn a_worker_killed_repeatedly() {
    let (pool, mut line) = (pool(1), ReportPipe::new("pids"));
    let doomed = pool.apply_async(hang, (line.path(),));
    let pids = [(); 3].map(|()| {
        let pid = line.next_number();
        processes::send(pid, Signal::SIGKILL).unwrap();
        pid
    });
    let error = doomed.get().unwrap_err();
    check_error(&error, ErrorKind::WorkerDied, 0, 3, &["SIGKILL", "3 attempts"]);
    assert_eq!(error.pid(), Some(pids[2]));
    still_works(&pool);
}

fn an_idle_worker_killed() {
    let pool = pool(2);
    for _ in 0..12 {
        let pid = pool.apply(pid_after, (0,)).unwrap();
        processes::send(pid, Signal::SIGKILL).unwrap();
        // The next call may come before the death is noticed, and must not fail.
        assert_eq!(within(seconds(5), || pool.map(square, 0..20).unwrap()).len(), 20);
    }
    still_works(&pool);
}

fn all_workers_killed_at_once() {
    let (pool, mut line) = (pool(8), ReportPipe::new("pids"));
    let doomed = pool.job(hang).retries(0).chunksize(1).map_async((0..8).map(|_| line.path()).collect::<Vec<_>>());
    let pids = [(); 8].map(|()| line.next_number());
    for pid in pids {
        processes::send(pid, Signal::SIGKILL).unwrap();
    }
    let error = within(seconds(5), || doomed.get().unwrap_err());
    check_error(&error, ErrorKind::WorkerDied, 0, 1, &["SIGKILL"]);
    still_works(&pool);
}

/// Naps are killed while they run; with enough retries, all of them succeed.
///
/// Each time, the oldest worker is killed, on which the last item runs. Some pauses are shorter than a nap and some longer: if
/// all were shorter, no nap would ever end.
fn workers_killed_continuously() {
    let pool = pool(3);
    let naps = pool.job(pid_after).retries(1000).chunksize(1).map_async([20; 60]);
    let own = std::process::id();
    for pause in [5, 15, 30, 60].map(millis).into_iter().cycle() {
        if naps.wait(pause) {
            break;
        }
        let workers = processes::tagged(&processes::own_tag());
        if let Some(worker) = workers.iter().find(|process| process.name == "farpool-worker" && process.parent != own) {
            // It may have exited by itself meanwhile.
            let _ = processes::send(worker.pid, Signal::SIGKILL);
        }
    }
    assert_eq!(naps.get().unwrap().len(), 60);
    still_works(&pool);
}
