//! Coordinators that are killed at any moment, and truncated journals.

use std::process::Command;

use farpool_proto::v1::DetachedState;
use nix::sys::signal::Signal;
use tonic::Status;

use super::*;
use crate::agent::{self, Agent, hello};
use crate::process::{Running, command};

impl Scratch {
    fn process(&self) -> Command {
        let mut command = command();
        command.arg("--journal").arg(self.path());
        command.args(["--heartbeat-timeout", "500ms"]);
        command
    }
}

async fn killed(mut process: Running) {
    process.signal(Signal::SIGKILL);
    process.ends();
}

/// Sends items that are not durable, and the program if it is requested, until the job is complete or the connection breaks. `before`:
/// how many were durable. Returns how many are durable, and whether the job is complete.
async fn continue_detaching(channel: &Channel, before: u64, items: u64, stop_at: u64) -> Result<(u64, bool), Status> {
    let mut client = detaching(channel.clone(), detach("one", 1).reopened_after(before)).await;
    let mut sent = None;
    loop {
        match client.try_next().await? {
            Some(Event::Durable(durable)) => {
                if sent.is_none() && !durable.complete {
                    sent = Some(durable.items);
                    send(&client, durable.items, items.min(stop_at.max(durable.items)));
                    if stop_at >= items {
                        client.end_items(1);
                    }
                }
                if durable.complete || durable.items >= stop_at.min(items) && stop_at < items {
                    return Ok((durable.items, durable.complete));
                }
            }
            Some(Event::ProgramWanted(_)) => {
                let (program, digest) = program(PROGRAM);
                let mut clients = farpool_proto::v1::clients_client::ClientsClient::new(channel.clone());
                clients.put_program(tokio_stream::iter(pieces(&program, &digest))).await?;
            }
            Some(Event::Welcome(_) | Event::Window(_)) => {}
            other => panic!("unexpected event: {other:?}"),
        }
    }
}

/// An agent that runs this many items, or a few more, and then does nothing.
async fn run_some(mut agent: Agent, items: usize) {
    let mut ran = 0;
    while let Ok(Some(commands)) = agent.next().await {
        for command in commands {
            let count = match &command {
                agent::Command::Assign(assign) => assign.segments.iter().map(|segment| segment.ends.len() / 4).sum(),
                _ => 0,
            };
            if count == 0 || ran < items {
                agent.execute(command);
            }
            ran += count;
        }
    }
}

#[tokio::test]
async fn durable_items_and_outcomes_survive_a_kill() {
    const ITEMS: u64 = 3000;
    let scratch = Scratch::new();
    // While it is received.
    let mut durable = 0;
    for stop_at in [1, 700, 1900] {
        let mut process = Running::start(&mut scratch.process());
        let (now, complete) = continue_detaching(&process.connect().await, durable, ITEMS, stop_at)
            .await
            .expect("the process has exited");
        assert!(now >= durable && !complete, "{now} are durable, and {durable} were");
        durable = now;
        killed(process).await;
    }
    let mut process = Running::start(&mut scratch.process());
    let complete =
        continue_detaching(&process.connect().await, durable, ITEMS, ITEMS).await.expect("the process has exited");
    assert_eq!(complete, (ITEMS, true));
    killed(process).await;
    // While it runs: an outcome that was read once never changes.
    let mut before = Outcomes::new();
    for round in 0..4 {
        let mut process = Running::start(&mut scratch.process());
        let channel = process.connect().await;
        let mut agent = Agent::joined_over(channel.clone(), hello(1, 2)).await;
        // Results show which run they are from.
        agent.times = 1 + round;
        let agent = tokio::spawn(run_some(agent, 400));
        let mut attached = attach(channel.clone(), "one", 0, true).await;
        assert!(matches!(attached.next().await, Event::DetachedJob(_)));
        let mut seen = Outcomes::new();
        while seen.len() < before.len() + 200 {
            match attached.next().await {
                Event::ItemsDone(done) => {
                    seen.extend((done.first..).zip(cut(&done.data, 0, &done.ends).into_iter().map(Ok)));
                }
                other => panic!("unexpected event: {other:?}"),
            }
        }
        assert_eq!(seen[..before.len()], before[..], "in round {round}");
        before = seen;
        killed(process).await;
        agent.abort();
    }
    let mut process = Running::start(&mut scratch.process());
    let channel = process.connect().await;
    let agent = tokio::spawn(Agent::joined_over(channel.clone(), hello(1, 2)).await.work());
    let (_, outcomes, end) = outcomes(channel, "one", 0, true).await;
    assert_eq!((outcomes.len() as u64, end), (ITEMS, End::Ended));
    assert_eq!(outcomes[..before.len()], before[..]);
    for (at, (index, outcome)) in outcomes.iter().enumerate() {
        assert_eq!(*index, at as u64);
        let times = outcome.as_ref().map(|result| result.len() / 8).expect("an item failed");
        assert_eq!(*outcome, Ok(item(*index).repeat(times)));
    }
    killed(process).await;
    agent.abort();
    // When it has ended, it needs no agent.
    let mut process = Running::start(&mut scratch.process());
    let (job, again, end) = super::outcomes(process.connect().await, "one", 0, true).await;
    assert_eq!((job.state(), end), (DetachedState::Finished, End::Ended));
    assert_eq!(again, outcomes);
    killed(process).await;
}

#[tokio::test]
async fn a_journal_truncated_anywhere_continues_with_what_it_has() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    detached(&server, detach("one", 1), 300).await;
    let agent = Agent::echo(&server, 1, 1).await;
    assert_eq!(all(&server, "one").await, (echoes(0..300), End::Ended));
    agent.abort();
    server.until("the end of the agent", |status| status.agents.is_empty()).await;
    detached(&server, detach("two", 2), 100).await;
    server.kill_and_wait().await;
    let segment = scratch.path().join("0000000001.farpool-journal");
    let whole = std::fs::read(&segment).expect("cannot read the segment");
    let mut seen = [0; 4];
    for part in 0..24 {
        std::fs::write(&segment, &whole[..whole.len() * part / 24]).expect("cannot write the segment");
        // Nothing shows that it was longer: its end counts as not durable.
        std::fs::remove_file(scratch.path().join("synced")).expect("cannot remove the file");
        let server = scratch.server_with(|settings| settings.limits.detach = Duration::from_millis(100)).await;
        let _agent = Agent::echo(&server, 1, 2).await;
        let jobs = states(&server).await;
        for (name, state) in jobs {
            seen[state as usize - 1] += 1;
            let items = if name == "one" { 300 } else { 100 };
            if state == DetachedState::Receiving {
                continue;
            }
            // However much of it had run.
            assert_eq!(all(&server, &name).await, (echoes(0..items), End::Ended), "{name} with part {part}");
        }
        let complete = |status: &farpool_proto::v1::StatusReply| status.jobs.is_empty();
        server.until("the end of all jobs", complete).await;
        server.kill_and_wait().await;
        // This round has added bytes, which the next one must not find.
        for entry in std::fs::read_dir(scratch.path()).expect("cannot read the directory") {
            let path = entry.expect("cannot read the directory").path();
            if path.extension().is_some_and(|extension| extension == "farpool-journal") {
                std::fs::remove_file(path).expect("cannot remove the segment");
            }
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0 && seen[2] > 0, "{seen:?} were receiving, running, finished");
}

#[tokio::test]
async fn lost_items_fail_and_the_others_run() {
    let scratch = Scratch::new();
    let small = |settings: &mut farpool_coordinator_server::Settings| {
        settings.journal.as_mut().expect("the journal is not configured").size = 4 << 20;
    };
    let server = scratch.server_with(small).await;
    // It fills more than two segments.
    detached(&server, detach("one", 1), 6000).await;
    server.kill_and_wait().await;
    let segments = || {
        let entries = std::fs::read_dir(scratch.path()).expect("cannot read the directory");
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("cannot read the directory").path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "farpool-journal"));
        paths.sort();
        paths
    };
    let all_segments = segments();
    assert!(all_segments.len() >= 3, "{all_segments:?}");
    std::fs::remove_file(&all_segments[1]).expect("cannot remove the segment");
    let server = scratch.server_with(small).await;
    let _agent = Agent::echo(&server, 1, 2).await;
    let (outcomes, end) = all(&server, "one").await;
    assert_eq!((outcomes.len(), end), (6000, End::Ended));
    let lost: Vec<_> = outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().err()).collect();
    assert!(lost.len() > 100 && lost.len() < 5000, "{} are lost", lost.len());
    assert!(lost.iter().all(|why| why.contains("the journal lost the item")), "{:?}", lost[0]);
    let ran = outcomes.iter().filter_map(|(index, outcome)| Some((index, outcome.as_ref().ok()?)));
    assert!(ran.into_iter().all(|(index, result)| *result == item(*index)));
}
