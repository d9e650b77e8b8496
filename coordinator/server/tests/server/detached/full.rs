//! Disks and journals that are full.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use farpool_proto::v1::StatusReply;
use tonic::Code;

use super::*;
use crate::agent::{self, Agent, hello};
use crate::process::Running;
use crate::programs::put_over;

#[tokio::test]
async fn a_job_without_room_is_refused_and_leaves_nothing() {
    let scratch = Scratch::new();
    let server = scratch
        .server_with(|settings| settings.journal.as_mut().expect("the journal is not configured").size = 1 << 20)
        .await;
    let large = vec![7; 10_000];
    let fill = async |name: &str, id: u8| {
        let mut client = detaching(server.connect().await, detach(name, id)).await;
        assert_eq!(durable(&server, &mut client).await.0, 0);
        for at in 0..200 {
            client.send(Request::Items(batch(1, at, &[&large])));
        }
        client.end_items(1);
        client
    };
    fill("too large", 1).await.must_be_refused(Code::ResourceExhausted, "the journal of detached jobs is full").await;
    assert_eq!(list(&server).await, []);
    detached(&server, detach("small", 2), 1000).await;
    // Repeatedly: refused jobs take no room.
    for round in 0..5 {
        let mut client = fill("too large", 3 + round).await;
        client.must_be_refused(Code::ResourceExhausted, "full").await;
    }
    let _agent = Agent::echo(&server, 1, 2).await;
    assert_eq!(all(&server, "small").await, (echoes(0..1000), End::Ended));
}

/// A file system of a few KiB; `None`: this user may not mount one.
struct SmallDisk(Scratch);

impl SmallDisk {
    fn new(kib: u32) -> Option<Self> {
        let scratch = Scratch::new();
        std::fs::create_dir_all(scratch.path()).expect("cannot create a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"]).arg(scratch.path());
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self(scratch))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

impl SmallDisk {
    /// Fills the disk with a file, and returns its path.
    fn fill(&self) -> PathBuf {
        let ballast = self.0.path().join("ballast");
        let mut file = File::create(&ballast).expect("cannot create the file");
        while file.write(&[7; 4096]).is_ok() {}
        ballast
    }
}

#[tokio::test]
async fn a_job_that_does_not_fit_on_the_disk_is_refused_at_once_and_never_runs() {
    let Some(disk) = SmallDisk::new(4096) else {
        eprintln!("skipped: only root can mount a file system");
        return;
    };
    let scratch = &disk.0;
    let server = scratch.server().await;
    detached(&server, detach("kept", 1), 100).await;
    let ballast = disk.fill();
    let fill = async |id: u8| {
        let start = Instant::now();
        let client = detaching(server.connect().await, detach("large", id)).await;
        for at in 0..20 {
            client.send(Request::Items(batch(1, at, &[&[7; 1000]])));
        }
        client.end_items(1);
        (client, start)
    };
    for id in 2..5 {
        let (mut client, start) = fill(id).await;
        client
            .must_be_refused(Code::FailedPrecondition, &format!("{} cannot be written", scratch.path().display()))
            .await;
        assert!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
        assert_eq!(states(&server).await, [("kept".to_owned(), DetachedState::Running)]);
    }
    // A client that arrives while it is full is served when there is room.
    std::fs::remove_file(ballast).expect("cannot remove the ballast");
    server.until("a journal that works", |status| status.journal.as_ref().is_some_and(|j| j.failing.is_empty())).await;
    let _agent = Agent::echo(&server, 1, 2).await;
    assert_eq!(all(&server, "kept").await, (echoes(0..100), End::Ended));
    assert_eq!(states(&server).await, [("kept".to_owned(), DetachedState::Finished)]);
    let (mut client, _) = fill(5).await;
    until_complete(&server, &mut client, 20).await;
}

/// A coordinator with a file size limit: writing more is an error, but does not kill it.
#[tokio::test]
async fn a_job_that_makes_a_file_too_large_is_refused_and_the_others_continue() {
    let scratch = Scratch::new();
    let mut command = Command::new("sh");
    // 256 KiB, in blocks of 512 bytes.
    command.args(["-c", "ulimit -f 512; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_farpool-coordinator")]);
    command.args(["--listen", "127.0.0.1:0", "--journal"]).arg(scratch.path());
    command.arg("--programs").arg(scratch.path().join("programs"));
    let mut server = Running::start(&mut command);
    let mut client = detaching(server.connect().await, detach("large", 1)).await;
    for at in 0..100 {
        client.send(Request::Items(batch(1, at, &[&[7; 10_000]])));
    }
    client.end_items(1);
    let refused = loop {
        match client.try_next().await {
            Ok(Some(Event::ProgramWanted(_))) => {
                let (program, digest) = program(PROGRAM);
                put_over(server.connect().await, pieces(&program, &digest)).await.expect("the program was refused");
            }
            Ok(Some(Event::Durable(durable))) => assert!(!durable.complete, "there is no room for it"),
            Ok(Some(Event::Welcome(_) | Event::Window(_))) => {}
            Ok(other) => panic!("unexpected event: {other:?}"),
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("File too large"), "{refused}");
    let _agent = tokio::spawn(Agent::joined_over(server.connect().await, hello(1, 2)).await.work());
    Client::opened_over(server.connect().await, open_pool()).await.check_works(1).await;
}

#[tokio::test]
async fn a_job_whose_program_does_not_fit_on_the_disk_is_refused_at_once() {
    let Some(disk) = SmallDisk::new(4096) else {
        eprintln!("skipped: only root can mount a file system");
        return;
    };
    let server = disk.0.server().await;
    // There is a segment with room for some records, but no program.
    let client = detaching(server.connect().await, detach("one", 1)).await;
    server.until("a job", |status| status.journal.as_ref().is_some_and(|journal| journal.jobs == 1)).await;
    drop(client);
    discard(&server, "one").await.expect("no such job");
    disk.fill();
    let start = Instant::now();
    let mut client = detaching(server.connect().await, detach("two", 2)).await;
    client.end_items(1);
    let refused = loop {
        match client.try_next().await {
            Ok(Some(Event::ProgramWanted(_))) => {
                let (program, digest) = program(PROGRAM);
                put(&server, pieces(&program, &digest)).await.expect_err("the program was accepted");
            }
            Ok(Some(Event::Durable(durable))) => assert!(!durable.complete, "the job's program is not here"),
            Ok(Some(Event::Welcome(_) | Event::Window(_))) => {}
            Ok(other) => panic!("unexpected event: {other:?}"),
            Err(status) => break status,
        }
    };
    assert!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("No space left"), "{refused}");
    assert_eq!(list(&server).await, []);
}

#[tokio::test]
async fn jobs_wait_while_the_disk_is_full_and_nothing_is_lost() {
    let Some(disk) = SmallDisk::new(4096) else {
        eprintln!("skipped: only root can mount a file system");
        return;
    };
    let scratch = &disk.0;
    let server = scratch.server().await;
    let mut job = detach("one", 1);
    job.job.chunksize = 1;
    detached(&server, job, 200).await;
    // From now on there is room for a few results.
    let ballast = scratch.path().join("ballast");
    std::fs::write(&ballast, vec![7; 3 << 20]).expect("the journal has no room");
    let mut agent = Agent::joined(&server, 1, 1).await;
    agent.times = 1000;
    let (settled, mut last) = tokio::sync::watch::channel(0);
    let agent = tokio::spawn(async move {
        while let Ok(Some(commands)) = agent.next().await {
            for command in commands {
                if let agent::Command::Settled(command) = &command {
                    settled.send_replace(command.report);
                }
                agent.execute(command);
            }
        }
    });
    let failing = server
        .until("a full disk", |status| status.journal.as_ref().is_some_and(|journal| !journal.failing.is_empty()))
        .await;
    assert!(failing.journal.expect("the journal is not configured").failing.contains("No space left"));
    // New jobs are refused with the reason, and existing outcomes can be read.
    let mut refused = detaching(server.connect().await, detach("two", 2)).await;
    refused.must_be_refused(Code::FailedPrecondition, "No space left").await;
    let (_, there, end) = outcomes(server.connect().await, "one", 0, false).await;
    assert!(there.len() < 200 && end == End::Open, "{} exist", there.len());
    // Agents keep outcomes that are not durable.
    assert_eq!(*last.borrow_and_update() as usize, there.len());
    std::fs::remove_file(ballast).expect("cannot remove the ballast");
    let (outcomes, end) = all(&server, "one").await;
    assert_eq!((outcomes.len(), end), (200, End::Ended));
    assert!(
        outcomes.iter().all(|(index, result)| result.as_ref().is_ok_and(|result| *result == item(*index).repeat(1000)))
    );
    let settled = last.wait_for(|report| *report == 200);
    soon("the last report is settled", settled).await.expect("the agent got no message");
    server
        .until("a journal that works", |status| {
            status.journal.as_ref().is_some_and(|journal| journal.failing.is_empty())
        })
        .await;
    agent.abort();
}

/// The job itself has filled the disk, so only its refusal makes room. A refused job must not block others.
#[tokio::test]
async fn a_job_that_fills_the_disk_is_refused_and_leaves_room_for_the_others() {
    let Some(disk) = SmallDisk::new(2048) else {
        eprintln!("skipped: only root can mount a file system");
        return;
    };
    let scratch = &disk.0;
    let mut server = scratch.server().await;
    detached(&server, detach("first", 1), 2).await;
    let works = |status: &StatusReply| status.journal.as_ref().is_some_and(|journal| journal.failing.is_empty());
    for id in 2..5 {
        let client = detaching(server.connect().await, detach("big", id)).await;
        for at in 0..40 {
            let items = vec![vec![7; 1000]; 250];
            client.send(Request::Items(batch(1, 250 * at, &items.iter().map(Vec::as_slice).collect::<Vec<_>>())));
        }
        client.end_items(1);
        let mut client = client;
        client.must_be_refused(Code::FailedPrecondition, "No space left").await;
        server.until("a journal that works", works).await;
        assert_eq!(states(&server).await, [("first".to_owned(), DetachedState::Running)]);
    }
    detached(&server, detach("small", 9), 2).await;
    // Whether or not it ran before the restart.
    let agent = Agent::echo(&server, 1, 2).await;
    assert_eq!(all(&server, "small").await, (echoes(0..2), End::Ended));
    agent.abort();
    server.stop();
    server.ended().await;
    let server = scratch.server().await;
    let _agent = Agent::echo(&server, 2, 2).await;
    for name in ["first", "small"] {
        assert_eq!(all(&server, name).await, (echoes(0..2), End::Ended));
    }
    let finished = |name: &str| (name.to_owned(), DetachedState::Finished);
    assert_eq!(states(&server).await, [finished("first"), finished("small")]);
}

/// Its client leaves before it is answered: the job is dropped once no client can be expected to continue it.
#[tokio::test]
async fn a_job_that_fills_the_disk_is_dropped_if_its_client_leaves() {
    let Some(disk) = SmallDisk::new(2048) else {
        eprintln!("skipped: only root can mount a file system");
        return;
    };
    let server = disk.0.server_with(|settings| settings.limits.detach = Duration::from_secs(1)).await;
    detached(&server, detach("first", 1), 2).await;
    let client = detaching(server.connect().await, detach("big", 2)).await;
    for at in 0..40 {
        client.send(Request::Items(batch(1, at, &[&vec![7; 250_000]])));
    }
    let fails = |status: &StatusReply| status.journal.as_ref().is_some_and(|journal| !journal.failing.is_empty());
    server.until("a full disk", fails).await;
    drop(client);
    server.until("a journal that works", |status| !fails(status)).await;
    let _agent = Agent::echo(&server, 1, 2).await;
    assert_eq!(all(&server, "first").await, (echoes(0..2), End::Ended));
    assert_eq!(states(&server).await, [("first".to_owned(), DetachedState::Finished)]);
}
