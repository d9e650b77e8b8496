use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use farpool_link::Memory;
use farpool_proto::v1::WorkerSettings;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

use super::super::report::Report;
use super::super::round::Round;
use super::Worker;
use crate::{Host, Settings};

/// How often the worker must begin to wait while the agent reads its doorbells.
const TIMES: u32 = 20;
/// If the machine has a single processor, that may never happen.
const PATIENCE: Duration = Duration::from_secs(5);
/// Doorbells that the agent reads at once, so that it takes a while.
const DOORBELLS: u32 = 200;
/// The worker's thread ends.
const END: u32 = u32::MAX;

#[test]
fn a_worker_that_begins_to_wait_while_its_doorbells_are_read_is_noticed() {
    let round = round();
    let (mut worker, [memory, socket]) = Worker::prepare(0, &round).unwrap();
    let memory = Memory::open(memory.as_fd()).unwrap();
    let ring = || {
        send(socket.as_raw_fd(), &[0], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).unwrap();
    };
    let (begun, answered) = (AtomicU32::new(0), AtomicU32::new(0));
    let (reads, met, mut missed) = (AtomicBool::new(false), AtomicU32::new(0), 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for time in 1.. {
                spin_until(|| begun.load(Ordering::SeqCst) >= time);
                if begun.load(Ordering::SeqCst) == END {
                    return;
                }
                memory.status().begin_waiting();
                ring();
                met.fetch_add(u32::from(reads.load(Ordering::SeqCst)), Ordering::SeqCst);
                answered.store(time, Ordering::SeqCst);
            }
        });
        let until = Instant::now() + PATIENCE;
        for time in 1.. {
            if met.load(Ordering::SeqCst) >= TIMES || Instant::now() >= until {
                break;
            }
            (0..DOORBELLS).for_each(|_| ring());
            reads.store(true, Ordering::SeqCst);
            begun.store(time, Ordering::SeqCst);
            let mut noticed = worker.socket_ready(&round);
            reads.store(false, Ordering::SeqCst);
            spin_until(|| answered.load(Ordering::SeqCst) == time);
            // If a doorbell is left, the agent is woken again.
            while is_rung(&worker) {
                noticed |= worker.socket_ready(&round);
            }
            missed += u32::from(!noticed);
            memory.status().end_waiting();
        }
        begun.store(END, Ordering::SeqCst);
    });
    assert_eq!(missed, 0, "the worker began to wait {} times while its doorbells were read", met.into_inner());
}

fn round() -> Round {
    Round {
        now: 1,
        held: false,
        report: Report::default(),
        id: 1,
        serial: 1,
        threads: 1,
        settings: WorkerSettings::default(),
        start_limit: 0,
        host: Arc::new(Host::new(Settings::host(1)).unwrap()),
    }
}

fn is_rung(worker: &Worker) -> bool {
    poll(&mut [PollFd::new(worker.socket(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() > 0
}

fn spin_until(is_so: impl Fn() -> bool) {
    let soon = || {
        (0..10_000).any(|_| {
            std::hint::spin_loop();
            is_so()
        })
    };
    while !soon() {
        std::thread::yield_now();
    }
}
