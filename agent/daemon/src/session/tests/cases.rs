use std::collections::BTreeMap;
use std::time::Duration;

use farpool_common::log::Log;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{
    AdoptPool, AdoptedChunk, AdoptedJob, AgentHello, Assign, Chunk, Credit, HeldPool, Segment, Settled, StartJob,
    StartPool,
};
use farpool_testkit::doses;
use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::super::{End, Session, SessionSettings};
use super::coordinator::{ConnectAttempt, Peer, TestConnect};
use super::workers::{Action, Actions, FakeWorkers, ITEM};

const ORPHAN_TIMEOUT: Duration = Duration::from_secs(60);

/// A running session, with the handles by which the test controls and observes it.
struct Daemon {
    attempts: mpsc::UnboundedReceiver<ConnectAttempt>,
    signals: mpsc::Sender<u8>,
    actions: Actions,
    end: JoinHandle<End>,
}

impl Daemon {
    fn start(seed: u64) -> Daemon {
        let (connect, attempts) = mpsc::unbounded_channel();
        let (signals, mut received_signals) = mpsc::channel(2);
        let actions = Actions::default();
        let workers = FakeWorkers::new(actions.clone());
        let settings = SessionSettings {
            hello: AgentHello { secret: vec![1; 32].into(), host: "here".into(), slots: 1, ..AgentHello::default() },
            leave_timeout: Duration::from_secs(5),
            orphan_timeout: ORPHAN_TIMEOUT,
            seed,
            coordinator: "there".into(),
            log: Log::silent(),
        };
        let end = tokio::spawn(async move {
            Session::new(TestConnect(connect), workers, settings).serve(&mut received_signals).await
        });
        Daemon { attempts, signals, actions, end }
    }

    async fn attempt(&mut self) -> ConnectAttempt {
        let attempt = timeout(Duration::from_secs(1000), self.attempts.recv());
        attempt.await.expect("the daemon stopped retrying").expect("no further attempt")
    }

    fn actions(&self) -> Vec<Action> {
        self.actions.0.lock().expect("a thread panicked while it held the lock").clone()
    }
}

/// Starts pool 1, with job 5.
fn start_pool(peer: &Peer) {
    peer.send(Command::StartPool(Box::new(StartPool { pool: 1, id: vec![9; 16].into(), ..StartPool::default() })));
    peer.send(Command::StartJob(StartJob { pool: 1, job: 5, number: 50, ..StartJob::default() }));
}

/// Assigns items to a job, one item per chunk. A chunk's number is 1000 times the job's, plus the item's.
fn assign(peer: &Peer, job: u64, items: std::ops::Range<u64>) {
    let segment = |_| Segment { ends: vec![0; 4].into(), ..Segment::default() };
    let chunk = |item| Chunk { chunk: 1000 * job + item, job, first: item, attempt: 1, segments: 1 };
    peer.send(Command::Assign(Assign {
        chunks: items.clone().map(chunk).collect(),
        segments: items.map(segment).collect(),
    }));
}

async fn result(peer: &mut Peer) -> (u64, u64) {
    loop {
        if let Event::RunDone(done) = peer.event().await.expect("the connection is closed") {
            return (done.chunk, done.first);
        }
    }
}

/// Waits for an event that matches.
async fn until(peer: &mut Peer, is_it: impl Fn(&Event) -> bool) {
    while !is_it(&peer.event().await.expect("the connection is closed")) {}
}

#[tokio::test(start_paused = true)]
async fn retries_with_growing_delays() {
    let mut daemon = Daemon::start(7);
    let mut expected = 50;
    for _ in 0..12 {
        let began = Instant::now();
        drop(daemon.attempt().await);
        let waited = began.elapsed().as_millis();
        assert!(expected == 50 || waited >= expected / 4 && waited <= expected / 2 + 1, "{waited} of {expected} ms");
        expected = (expected * 2).min(4000);
    }
    // The agent does not wait forever for a coordinator that does not answer.
    let began = Instant::now();
    daemon.attempt().await.ignore().await;
    assert!(began.elapsed() < Duration::from_secs(13));
    let (mut peer, _) = daemon.attempt().await.accept().await;
    sleep(Duration::from_secs(10)).await;
    let began = Instant::now();
    peer.cut();
    daemon.attempt().await.resume(&mut peer).await;
    assert!(began.elapsed() <= Duration::from_millis(51), "a session that lasted resets the backoff");
}

#[tokio::test(start_paused = true)]
async fn orphaned_workers_are_killed_in_time() {
    for knows in [false, true] {
        let mut daemon = Daemon::start(7);
        let (mut peer, _) = daemon.attempt().await.accept().await;
        start_pool(&peer);
        assign(&peer, 5, 0..100_000);
        result(&mut peer).await;
        peer.cut();
        let lost = Instant::now();
        let mut session_lost = false;
        while lost.elapsed() < ORPHAN_TIMEOUT - Duration::from_secs(5) {
            let attempt = daemon.attempt().await;
            // A coordinator that does not know the session changes nothing until it sends a welcome.
            if knows && !session_lost {
                attempt.refuse_resume().await;
                session_lost = true;
            }
        }
        assert!(!matches!(daemon.actions().last(), Some(Action::Killed(_))));
        while !matches!(daemon.actions().last(), Some(Action::Killed(_))) {
            drop(daemon.attempt().await);
        }
        let Some(&Action::Killed(at)) = daemon.actions().last() else { return };
        assert_eq!((at - lost).as_secs(), ORPHAN_TIMEOUT.as_secs());
        let (_, hello) = daemon.attempt().await.accept().await;
        assert_eq!(hello.held, []);
    }
}

#[tokio::test(start_paused = true)]
async fn workers_survive_if_a_connection_is_made_in_time() {
    let mut daemon = Daemon::start(7);
    let (mut peer, _) = daemon.attempt().await.accept().await;
    start_pool(&peer);
    assign(&peer, 5, 0..10);
    result(&mut peer).await;
    for _ in 0..3 {
        peer.cut();
        let lost = Instant::now();
        let mut attempt = daemon.attempt().await;
        while lost.elapsed() < ORPHAN_TIMEOUT / 2 {
            drop(attempt);
            attempt = daemon.attempt().await;
        }
        attempt.resume(&mut peer).await;
    }
    for item in 1..10 {
        assert_eq!(result(&mut peer).await, (5000 + item, item));
    }
    assert!(!daemon.actions().iter().any(|action| matches!(action, Action::Killed(_))));
}

#[tokio::test(start_paused = true)]
async fn every_coordinator_gets_the_credit() {
    let mut daemon = Daemon::start(7);
    let (mut peer, _) = daemon.attempt().await.accept().await;
    start_pool(&peer);
    until(&mut peer, |event| matches!(event, Event::Credit(_))).await;
    peer.cut();
    daemon.attempt().await.refuse_resume().await;
    let (mut peer, _) = daemon.attempt().await.accept().await;
    until(&mut peer, |event| *event == Event::Credit(Credit { chunks: 10, bytes: 0 })).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_messages_arrive() {
    for session_lost in [false, true] {
        let mut daemon = Daemon::start(7);
        let (mut peer, _) = daemon.attempt().await.accept().await;
        start_pool(&peer);
        assign(&peer, 5, 0..3);
        until(&mut peer, |event| matches!(event, Event::Credit(_))).await;
        daemon.signals.send(143).await.expect("the daemon's signal stream ended");
        until(&mut peer, |event| matches!(event, Event::Returned(_))).await;
        peer.cut();
        sleep(2 * ITEM).await;
        if session_lost {
            daemon.attempt().await.refuse_resume().await;
            let (mut other, hello) = daemon.attempt().await.accept().await;
            other.send(adopt(&hello.held[0], 1, 2, |item| Some(7000 + item)));
            assert_eq!(result(&mut other).await, (7000, 0));
            while other.event().await.is_some() {}
        } else {
            daemon.attempt().await.resume(&mut peer).await;
            assert_eq!(result(&mut peer).await, (5000, 0));
            while peer.event().await.is_some() {}
        }
        let left = timeout(Duration::from_secs(6), daemon.end)
            .await
            .expect("the daemon did not exit")
            .expect("the daemon panicked");
        assert_eq!(left, End::Left);
    }
}

/// When a whole cluster stops, the coordinator stops at the same time.
#[tokio::test(start_paused = true)]
async fn an_idle_agent_leaves_without_a_connection() {
    for cut_first in [false, true] {
        let mut daemon = Daemon::start(7);
        let (mut peer, _) = daemon.attempt().await.accept().await;
        if cut_first {
            peer.cut();
        }
        daemon.signals.send(143).await.expect("the daemon's signal stream ended");
        if !cut_first {
            while peer.event().await.is_some() {}
            peer.cut();
        }
        let began = Instant::now();
        assert_eq!(daemon.end.await.expect("the daemon panicked"), End::Left);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn leaving_has_a_time_limit() {
    // The coordinator does not end its side.
    let mut daemon = Daemon::start(7);
    let (_peer, _) = daemon.attempt().await.accept().await;
    daemon.signals.send(143).await.expect("the daemon's signal stream ended");
    let began = Instant::now();
    assert_eq!(daemon.end.await.expect("the daemon panicked"), End::Left);
    assert_eq!(began.elapsed().as_secs(), 5);
    // There is a second signal.
    let mut daemon = Daemon::start(7);
    let (mut peer, _) = daemon.attempt().await.accept().await;
    start_pool(&peer);
    assign(&peer, 5, 0..3);
    until(&mut peer, |event| matches!(event, Event::Credit(_))).await;
    for code in [143, 130] {
        daemon.signals.send(code).await.expect("the daemon's signal stream ended");
    }
    assert_eq!(daemon.end.await.expect("the daemon panicked"), End::Killed(130));
}

/// Adopts the chunks of a pool to which `name` gives a name.
fn adopt(held: &HeldPool, pool: u64, job: u64, name: impl Fn(u64) -> Option<u64>) -> Command {
    let chunk = |chunk: &farpool_proto::v1::HeldChunk| {
        name(chunk.first).map(|name| AdoptedChunk { held: chunk.chunk, chunk: name, attempt: 1 })
    };
    Command::AdoptPool(Box::new(AdoptPool {
        held: held.pool,
        pool,
        processes: held.processes,
        weight: 1,
        jobs: held.chunks.first().map(|chunk| AdoptedJob { number: chunk.job, job }).into_iter().collect(),
        chunks: held.chunks.iter().filter_map(chunk).collect(),
    }))
}

/// Connections are cut and coordinators replaced at random: the outcome of every item arrives, once in each session, and
/// no item runs twice.
async fn check_all_outcomes_arrive(seed: u64, troubles: Vec<(u8, u16)>) -> Vec<(u64, u64)> {
    const ITEMS: u64 = 60;
    let mut daemon = Daemon::start(seed);
    let (mut peer, _) = daemon.attempt().await.accept().await;
    start_pool(&peer);
    assign(&peer, 5, 0..ITEMS);
    let (mut outcomes, mut transcript, mut reports, mut session) = (BTreeMap::new(), Vec::new(), 0, 0_u64);
    let mut troubles = troubles.into_iter();
    while (outcomes.len() as u64) < ITEMS {
        let (kind, after) = troubles.next().unwrap_or((3, 1000));
        let calm = Instant::now() + Duration::from_millis(u64::from(after));
        while let Ok(event) = tokio::time::timeout_at(calm, peer.event()).await {
            if let Event::RunDone(done) = event.expect("the connection is not cut") {
                reports += 1;
                assert_ne!(outcomes.insert(done.first, session), Some(session), "{} is reported twice", done.first);
                transcript.push((session, done.first));
            }
        }
        match kind % 4 {
            0 => {
                peer.cut();
                daemon.attempt().await.resume(&mut peer).await;
            }
            1 => {
                peer.cut();
                daemon.attempt().await.refuse_resume().await;
                if after % 2 == 0 {
                    drop(daemon.attempt().await);
                }
                let (other, hello) = daemon.attempt().await.accept().await;
                (peer, reports, session) = (other, 0, session + 1);
                let (job, wanted) = (100 + session, |item: u64| (item < ITEMS).then_some(1000 * session + item));
                peer.send(adopt(&hello.held[0], session + 1, job, wanted));
                // Unsettled outcomes are resent, so none is missing.
            }
            2 => peer.send(Command::Settled(Settled { pool: session + 1, report: reports })),
            _ => {}
        }
    }
    let mut ran: Vec<u64> = daemon
        .actions()
        .iter()
        .filter_map(|action| if let Action::Ran(item) = action { Some(*item) } else { None })
        .collect();
    ran.sort_unstable();
    assert!(ran.iter().copied().eq(0..ITEMS), "{ran:?}");
    transcript
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(doses::cases(100)))]
    #[test]
    // Without a delay, no item would have begun that could be held.
    fn all_outcomes_arrive(seed: u64, troubles in prop::collection::vec((any::<u8>(), 1..200_u16), 0..12)) {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let run = || {
            let case = check_all_outcomes_arrive(seed, troubles.clone());
            let case = async { timeout(Duration::from_secs(3600), case).await };
            runtime().expect("cannot create a runtime").block_on(case).expect("the case did not exit")
        };
        // The seed alone determines what happens.
        prop_assert_eq!(run(), run());
    }
}
