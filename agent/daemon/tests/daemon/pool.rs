//! The commands about pools that tests send, and the events that they wait for.

use std::path::Path;

use farpool_programs::{Digest, digest_of};
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{Assign, Chunk, FailureKind, Program, Segment, StartJob, StartPool, Variable, WorkerSettings};
use farpool_testkit::coordinator::agents::Session;

/// Returns the executable of these tests.
pub(crate) fn own_program() -> Vec<u8> {
    std::fs::read("/proc/self/exe").expect("cannot read this program")
}

pub(crate) fn digest(program: &[u8]) -> Digest {
    let path = std::env::temp_dir().join(format!("farpool-digest-{}-{:p}", std::process::id(), program));
    std::fs::write(&path, program).expect("cannot write the file");
    let digest = std::fs::File::open(&path).and_then(|file| digest_of(&file)).expect("cannot read the program");
    std::fs::remove_file(path).expect("cannot remove the program's file");
    digest
}

/// A pool of one worker that runs `program`, which notes its starts in `notes`, and whose workers behave like this.
pub(crate) fn start(pool: u64, program: &[u8], notes: &Path, behaviour: &str) -> StartPool {
    let notes = notes.to_str().expect("the text is not UTF-8");
    let program = Program {
        digest: digest(program).to_bytes(),
        size: program.len() as u64,
        arguments: ["a program", notes, behaviour].map(|text| text.as_bytes().to_vec().into()).to_vec(),
        environment: vec![Variable { name: "CHOSEN".into(), value: "by the client".into() }],
        directory: "/nowhere/at/all".into(),
    };
    let settings = WorkerSettings { payload_limit: 1 << 20, ..WorkerSettings::default() };
    let id = vec![9; 16].into();
    StartPool { pool, processes: 1, settings: Some(settings), program: program.packed(), id, ..StartPool::default() }
}

/// Changes a pool's program.
pub(crate) fn change(start: &mut StartPool, change: impl FnOnce(&mut Program)) {
    let mut program =
        Program::unpacked(&start.program).expect("cannot unpack the program").expect("the pool has no program");
    change(&mut program);
    start.program = program.packed();
}

pub(crate) fn start_job(pool: u64, job: u64) -> Command {
    let function = vec![1].into();
    Command::StartJob(StartJob { pool, job, function, whole_chunks: true, number: job, ..StartJob::default() })
}

/// Chunks of one item each, from this number on, of different sizes.
pub(crate) fn assign(job: u64, chunks: std::ops::Range<u64>) -> Command {
    let mut assign = Assign::default();
    for chunk in chunks {
        let bytes = vec![7; 1 + chunk as usize % 100];
        let end = u32::try_from(bytes.len()).expect("too many bytes").to_le_bytes();
        assign.segments.push(Segment { data: bytes.into(), start: 0, ends: end.to_vec().into() });
        assign.chunks.push(Chunk { chunk, job, first: chunk, attempt: 1, segments: 1 });
    }
    Command::Assign(assign)
}

/// The events that tests wait for in a session.
pub(crate) trait WaitForEvents {
    /// Waits for a pool to have started.
    async fn started(&mut self, pool: u64);

    /// Waits for the results of this many items.
    async fn results(&mut self, items: usize);

    /// Waits for a pool to be refused, and checks why.
    async fn refused(&mut self, pool: u64, kind: FailureKind, words: &[&str]);

    /// Waits for a health report. Returns why nothing can run there; empty: healthy.
    async fn unhealthy(&mut self) -> String;

    /// Waits for a pool to have stopped.
    async fn stopped(&mut self, pool: u64);
}

impl WaitForEvents for Session {
    async fn started(&mut self, pool: u64) {
        self.find(|event| match event {
            Event::PoolStarted(started) => (started.pool == pool).then_some(()),
            Event::PoolFault(fault) => panic!("unexpected fault: {fault:?}"),
            _ => None,
        })
        .await;
    }

    async fn results(&mut self, items: usize) {
        let mut results = 0;
        while results < items {
            let run = self.find(|event| match event {
                Event::RunDone(done) => Some(done.ends.len() / 4),
                Event::ItemFault(fault) => panic!("unexpected fault: {fault:?}"),
                Event::PoolFault(fault) => panic!("unexpected fault: {fault:?}"),
                _ => None,
            });
            results += run.await;
        }
    }

    async fn refused(&mut self, pool: u64, kind: FailureKind, words: &[&str]) {
        let failure = self.find(|event| match event {
            Event::PoolFault(fault) if fault.pool == pool => fault.failure.clone(),
            _ => None,
        });
        let failure = failure.await;
        assert_eq!((failure.kind(), &*failure.host), (kind, "here"), "{failure:?}");
        words.iter().for_each(|words| assert!(failure.message.contains(words), "{words:?}: {failure:?}"));
        self.stopped(pool).await;
    }

    async fn unhealthy(&mut self) -> String {
        self.find(|event| match event {
            Event::HealthReport(unhealthy) => Some(unhealthy.reason.clone()),
            _ => None,
        })
        .await
    }

    async fn stopped(&mut self, pool: u64) {
        self.find(|event| matches!(event, Event::PoolStopped(stopped) if stopped.pool == pool).then_some(())).await;
    }
}
