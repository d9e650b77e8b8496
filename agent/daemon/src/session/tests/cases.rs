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
use super::coordinator::{Call, Peer, Wire};
use super::workers::{Deed, Deeds, ITEM, Played};

const ORPHAN_TIMEOUT: Duration = Duration::from_secs(60);

/// A session that runs, and what it is heard and told through.
struct Daemon {
    calls: mpsc::UnboundedReceiver<Call>,
    ask: mpsc::Sender<u8>,
    deeds: Deeds,
    end: JoinHandle<End>,
}

impl Daemon {
    fn start(seed: u64) -> Daemon {
        let (wire, calls) = mpsc::unbounded_channel();
        let (ask, mut asked) = mpsc::channel(2);
        let deeds = Deeds::default();
        let workers = Played::new(deeds.clone());
        let settings = SessionSettings {
            hello: AgentHello { secret: vec![1; 32].into(), host: "here".into(), slots: 1, ..AgentHello::default() },
            leave_timeout: Duration::from_secs(5),
            orphan_timeout: ORPHAN_TIMEOUT,
            seed,
            coordinator: "there".into(),
            log: Log::silent(),
        };
        let end = tokio::spawn(async move { Session::new(Wire(wire), workers, settings).serve(&mut asked).await });
        Daemon { calls, ask, deeds, end }
    }

    async fn call(&mut self) -> Call {
        let call = timeout(Duration::from_secs(1000), self.calls.recv());
        call.await.expect("it tries again for ever").expect("it is there")
    }

    fn deeds(&self) -> Vec<Deed> {
        self.deeds.0.lock().expect("nobody panics").clone()
    }
}

/// Has pool 1 started, with job 5.
fn start_pool(peer: &Peer) {
    peer.send(Command::StartPool(Box::new(StartPool { pool: 1, id: vec![9; 16].into(), ..StartPool::default() })));
    peer.send(Command::StartJob(StartJob { pool: 1, job: 5, number: 50, ..StartJob::default() }));
}

/// Assigns items to a job, each as a chunk of its own that is called as the item is, and this more.
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
        if let Event::RunDone(done) = peer.event().await.expect("the connection is there") {
            return (done.chunk, done.first);
        }
    }
}

/// Waits, in a session, until the agent has said all this.
async fn until(peer: &mut Peer, is_it: impl Fn(&Event) -> bool) {
    while !is_it(&peer.event().await.expect("the connection is there")) {}
}

#[tokio::test(start_paused = true)]
async fn tries_again_later_and_later() {
    let mut daemon = Daemon::start(7);
    let mut expected = 50;
    for _ in 0..12 {
        let began = Instant::now();
        drop(daemon.call().await);
        let waited = began.elapsed().as_millis();
        assert!(expected == 50 || waited >= expected / 4 && waited <= expected / 2 + 1, "{waited} of {expected} ms");
        expected = (expected * 2).min(4000);
    }
    // A coordinator that does not answer is not waited for for ever.
    let began = Instant::now();
    daemon.call().await.ignore().await;
    assert!(began.elapsed() < Duration::from_secs(13));
    let (mut peer, _) = daemon.call().await.accept().await;
    sleep(Duration::from_secs(10)).await;
    let began = Instant::now();
    peer.cut();
    daemon.call().await.resume(&mut peer).await;
    assert!(began.elapsed() <= Duration::from_millis(51), "a session that lasted begins anew with its waits");
}

#[tokio::test(start_paused = true)]
async fn those_that_nobody_asks_for_are_ended_in_time() {
    for knows in [false, true] {
        let mut daemon = Daemon::start(7);
        let (mut peer, _) = daemon.call().await.accept().await;
        start_pool(&peer);
        assign(&peer, 5, 0..100_000);
        result(&mut peer).await;
        peer.cut();
        let lost = Instant::now();
        let mut session_lost = false;
        while lost.elapsed() < ORPHAN_TIMEOUT - Duration::from_secs(5) {
            let call = daemon.call().await;
            // Somebody who listens and knows nothing is of no help before it is welcomed.
            if knows && !session_lost {
                call.refuse_to_resume().await;
                session_lost = true;
            }
        }
        assert!(!matches!(daemon.deeds().last(), Some(Deed::Killed(_))));
        while !matches!(daemon.deeds().last(), Some(Deed::Killed(_))) {
            drop(daemon.call().await);
        }
        let Some(&Deed::Killed(at)) = daemon.deeds().last() else { return };
        assert_eq!((at - lost).as_secs(), ORPHAN_TIMEOUT.as_secs());
        let (_, hello) = daemon.call().await.accept().await;
        assert_eq!(hello.held, []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_in_time_keeps_them() {
    let mut daemon = Daemon::start(7);
    let (mut peer, _) = daemon.call().await.accept().await;
    start_pool(&peer);
    assign(&peer, 5, 0..10);
    result(&mut peer).await;
    for _ in 0..3 {
        peer.cut();
        let lost = Instant::now();
        let mut call = daemon.call().await;
        while lost.elapsed() < ORPHAN_TIMEOUT / 2 {
            drop(call);
            call = daemon.call().await;
        }
        call.resume(&mut peer).await;
    }
    for item in 1..10 {
        assert_eq!(result(&mut peer).await, (5000 + item, item));
    }
    assert!(!daemon.deeds().iter().any(|deed| matches!(deed, Deed::Killed(_))));
}

#[tokio::test(start_paused = true)]
async fn credit_is_told_to_every_coordinator() {
    let mut daemon = Daemon::start(7);
    let (mut peer, _) = daemon.call().await.accept().await;
    start_pool(&peer);
    until(&mut peer, |event| matches!(event, Event::Credit(_))).await;
    peer.cut();
    daemon.call().await.refuse_to_resume().await;
    let (mut peer, _) = daemon.call().await.accept().await;
    until(&mut peer, |event| *event == Event::Credit(Credit { chunks: 10, bytes: 0 })).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_words_are_heard() {
    for session_lost in [false, true] {
        let mut daemon = Daemon::start(7);
        let (mut peer, _) = daemon.call().await.accept().await;
        start_pool(&peer);
        assign(&peer, 5, 0..3);
        until(&mut peer, |event| matches!(event, Event::Credit(_))).await;
        daemon.ask.send(143).await.expect("it listens");
        until(&mut peer, |event| matches!(event, Event::Returned(_))).await;
        peer.cut();
        sleep(2 * ITEM).await;
        if session_lost {
            daemon.call().await.refuse_to_resume().await;
            let (mut other, hello) = daemon.call().await.accept().await;
            other.send(adopt(&hello.held[0], 1, 2, |item| Some(7000 + item)));
            assert_eq!(result(&mut other).await, (7000, 0));
            while other.event().await.is_some() {}
        } else {
            daemon.call().await.resume(&mut peer).await;
            assert_eq!(result(&mut peer).await, (5000, 0));
            while peer.event().await.is_some() {}
        }
        let left = timeout(Duration::from_secs(6), daemon.end).await.expect("it leaves").expect("it does not panic");
        assert_eq!(left, End::Left);
    }
}

/// Where the whole cluster is stopped, the coordinator goes at the same time.
#[tokio::test(start_paused = true)]
async fn whoever_has_nothing_leaves_without_a_connection() {
    for cut_first in [false, true] {
        let mut daemon = Daemon::start(7);
        let (mut peer, _) = daemon.call().await.accept().await;
        if cut_first {
            peer.cut();
        }
        daemon.ask.send(143).await.expect("it listens");
        if !cut_first {
            while peer.event().await.is_some() {}
            peer.cut();
        }
        let began = Instant::now();
        assert_eq!(daemon.end.await.expect("it does not panic"), End::Left);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn leaving_has_an_end() {
    // Nobody ends the other side.
    let mut daemon = Daemon::start(7);
    let (_peer, _) = daemon.call().await.accept().await;
    daemon.ask.send(143).await.expect("it listens");
    let began = Instant::now();
    assert_eq!(daemon.end.await.expect("it does not panic"), End::Left);
    assert_eq!(began.elapsed().as_secs(), 5);
    // It is asked twice.
    let mut daemon = Daemon::start(7);
    let (mut peer, _) = daemon.call().await.accept().await;
    start_pool(&peer);
    assign(&peer, 5, 0..3);
    until(&mut peer, |event| matches!(event, Event::Credit(_))).await;
    for code in [143, 130] {
        daemon.ask.send(code).await.expect("it listens");
    }
    assert_eq!(daemon.end.await.expect("it does not panic"), End::Killed(130));
}

/// Adopts what `name` gives a name of a pool.
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

/// Connections are cut and coordinators replaced at random: of every item the outcome is heard, each in its session once,
/// and none is run twice.
async fn check_everything_is_heard(seed: u64, troubles: Vec<(u8, u16)>) -> Vec<(u64, u64)> {
    const ITEMS: u64 = 60;
    let mut daemon = Daemon::start(seed);
    let (mut peer, _) = daemon.call().await.accept().await;
    start_pool(&peer);
    assign(&peer, 5, 0..ITEMS);
    let (mut heard, mut transcript, mut reports, mut session) = (BTreeMap::new(), Vec::new(), 0, 0_u64);
    let mut troubles = troubles.into_iter();
    while (heard.len() as u64) < ITEMS {
        let (kind, after) = troubles.next().unwrap_or((3, 1000));
        let calm = Instant::now() + Duration::from_millis(u64::from(after));
        while let Ok(event) = tokio::time::timeout_at(calm, peer.event()).await {
            if let Event::RunDone(done) = event.expect("it is not cut") {
                reports += 1;
                assert_ne!(heard.insert(done.first, session), Some(session), "{} is told twice", done.first);
                transcript.push((session, done.first));
            }
        }
        match kind % 4 {
            0 => {
                peer.cut();
                daemon.call().await.resume(&mut peer).await;
            }
            1 => {
                peer.cut();
                daemon.call().await.refuse_to_resume().await;
                if after % 2 == 0 {
                    drop(daemon.call().await);
                }
                let (other, hello) = daemon.call().await.accept().await;
                (peer, reports, session) = (other, 0, session + 1);
                let (job, wanted) = (100 + session, |item: u64| (item < ITEMS).then_some(1000 * session + item));
                peer.send(adopt(&hello.held[0], session + 1, job, wanted));
                // What is told again is not to be missed: whatever is not settled comes once more.
            }
            2 => peer.send(Command::Settled(Settled { pool: session + 1, report: reports })),
            _ => {}
        }
    }
    let mut ran: Vec<u64> =
        daemon.deeds().iter().filter_map(|deed| if let Deed::Ran(item) = deed { Some(*item) } else { None }).collect();
    ran.sort_unstable();
    assert!(ran.iter().copied().eq(0..ITEMS), "{ran:?}");
    transcript
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(doses::cases(100)))]
    #[test]
    // At once nothing would have begun yet that could be held.
    fn everything_is_heard(seed: u64, troubles in prop::collection::vec((any::<u8>(), 1..200_u16), 0..12)) {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let run = || {
            let case = check_everything_is_heard(seed, troubles.clone());
            let case = async { timeout(Duration::from_secs(3600), case).await };
            runtime().expect("a runtime").block_on(case).expect("it comes to its end")
        };
        // What happens follows from the seed, and from nothing else.
        prop_assert_eq!(run(), run());
    }
}
