use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use farpool_coordinator::Principal;
use farpool_net::{Frames, outgoing};
use farpool_proto::v1::{Assign, EndJob, Settled, StartJob};
use futures_core::Stream;
use tokio::sync::mpsc;

use super::super::super::meter::Meters;
use super::*;

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// An agent's connection, which records whether it was woken.
struct FakeConnection {
    frames: Frames<AgentCommand>,
    woken: Arc<Woken>,
}

impl FakeConnection {
    /// Returns the number of messages in the next frame; 0 if there is none yet. The waker is then registered.
    fn next(&mut self) -> usize {
        let waker = Waker::from(Arc::clone(&self.woken));
        match Pin::new(&mut self.frames).poll_next(&mut Context::from_waker(&waker)) {
            Poll::Ready(frame) => frame.map_or(0, |frame| frame.messages.len()),
            Poll::Pending => 0,
        }
    }

    fn is_woken(&self) -> bool {
        self.woken.0.swap(false, Ordering::SeqCst)
    }
}

/// With this much memory, 1 MiB may be unread, or 4 MiB for a moment.
const MEMORY: u64 = 64 << 20;

fn agent() -> (Agent, FakeConnection) {
    let (outgoing, frames) = outgoing(0, Arc::default());
    let passed = Meters::new(1 << 20, Duration::from_secs(5)).meter().passed(None);
    let session = Session::new(outgoing, mpsc::channel(1).0, (Principal::local(), None), &[1; 16], &passed);
    let mut connection = FakeConnection { frames, woken: Arc::default() };
    assert_eq!(connection.next(), 0);
    (Agent::new(session, "node1".to_owned(), 0, 0), connection)
}

fn send(agent: &mut Agent, bodies: impl IntoIterator<Item = agent_command::Body>, now: u64) {
    agent.fresh.extend(bodies.into_iter().map(|body| AgentCommand { body: Some(body) }));
    assert!(agent.send_gathered(now, MEMORY));
}

fn end_job(kill: bool) -> agent_command::Body {
    agent_command::Body::EndJob(EndJob { job: 1, kill })
}

fn settled() -> agent_command::Body {
    agent_command::Body::Settled(Settled { pool: 1, report: 1 })
}

#[test]
fn messages_that_let_it_forget_wait_for_an_urgent_one() {
    let (mut agent, mut connection) = agent();
    send(&mut agent, [end_job(false), settled()], 10);
    send(&mut agent, [settled()], 20);
    assert!(!connection.is_woken());
    assert_eq!(agent.flush_at, Some(10 + DELAY_NS));
    send(&mut agent, [agent_command::Body::Assign(Assign::default())], 30);
    assert!(connection.is_woken());
    assert_eq!((connection.next(), agent.flush_at), (4, None));
}

#[test]
fn delayed_messages_are_flushed() {
    let (mut agent, mut connection) = agent();
    send(&mut agent, [settled()], 10);
    assert_eq!((connection.next(), connection.next()), (1, 0));
    send(&mut agent, [settled()], 20);
    assert!(!connection.is_woken());
    agent.flush();
    assert!(connection.is_woken());
    assert_eq!((connection.next(), agent.flush_at), (1, None));
}

#[test]
fn kills_and_large_reports_are_sent_at_once() {
    let (mut agent, mut connection) = agent();
    send(&mut agent, [end_job(true)], 10);
    assert!(connection.is_woken());
    connection.next();
    connection.next();
    agent.reported = MAX_KEPT + 1;
    send(&mut agent, [settled()], 20);
    assert!(connection.is_woken());
    assert_eq!(agent.reported, 0);
}

#[test]
fn an_agent_that_reads_nothing_is_lost_sooner_if_more_waits() {
    let large = |bytes: usize| StartJob { function: vec![7; bytes].into(), ..StartJob::default() };
    let reads = |bytes: usize, times: &[u64]| -> Vec<bool> {
        let (mut agent, _connection) = agent();
        agent.fresh.push(AgentCommand { body: Some(agent_command::Body::StartJob(large(bytes))) });
        times.iter().map(|&now| agent.send_gathered(now, MEMORY)).collect()
    };
    let times = [1, READS_SOON_NS, READS_SOON_NS + 2, READS_WITHIN_NS, READS_WITHIN_NS + 2];
    assert_eq!(reads(1000 << 10, &times), [true; 5]);
    assert_eq!(reads(3 << 20, &times), [true, true, true, true, false]);
    assert_eq!(reads(5 << 20, &times), [true, true, false, false, false]);
    // With more memory, more may wait.
    let (mut agent, _connection) = agent();
    agent.fresh.push(AgentCommand { body: Some(agent_command::Body::StartJob(large(5 << 20))) });
    assert!([1, READS_WITHIN_NS + 2].map(|now| agent.send_gathered(now, 64 * MEMORY)) == [true, true]);
}
