//! An agent with running items.

use std::path::PathBuf;

use farpool_proto::v1::agent_command::Body as Command;
use farpool_testkit::coordinator::agents::Session;
use farpool_testkit::folder::Folder;
use farpool_testkit::port::Port;

use crate::coordinator::Coordinator;
use crate::daemon::Daemon;
use crate::pipe::Pipe;
use crate::pool::{WaitForEvents, assign, own_program, start, start_job};
use crate::program::{Start, starts};

/// An agent on which the first chunk's item runs, and others wait.
pub(crate) struct Running {
    pub(crate) daemon: Daemon,
    pub(crate) coordinator: Coordinator,
    pub(crate) session: Session,
    /// The pipe that the item waits for.
    pub(crate) pipe: Pipe,
    pub(crate) port: Port,
    scratch: Folder,
}

/// Chunks of pool 1 and job 5, of one item each. Items have the numbers of their chunks.
pub(crate) const CHUNKS: u64 = 4;

impl Running {
    pub(crate) async fn new(arguments: &[&str]) -> Running {
        let scratch = Folder::for_everybody("daemon");
        let notes = scratch.path().join("notes");
        std::fs::create_dir(&notes).expect("cannot create a directory");
        let pipe = Pipe::new(scratch.path().join("pipe"));
        let port = Port::reserve();
        let mut coordinator = Coordinator::start_at(&port);
        let arguments = [&["--slots", "1"], arguments].concat();
        let mut daemon = Daemon::start(&coordinator.url(), &scratch.path().join("programs"), &arguments);
        let (mut session, _) = coordinator.session().await;
        let program = own_program();
        session.send(Command::StartPool(Box::new(start(1, &program, &notes, &pipe.behaviour()))));
        coordinator.fetch().await.send(&program);
        session.started(1).await;
        session.send(start_job(1, 5));
        session.send(assign(5, 0..CHUNKS));
        daemon.wait_for_line("connected").await;
        Running { daemon, coordinator, session, pipe, port, scratch }
    }

    /// Returns the starts of programs.
    pub(crate) fn programs(&self) -> Vec<Start> {
        starts(&self.notes())
    }

    /// Returns the only start.
    pub(crate) fn program(&self) -> Start {
        let mut programs = self.programs();
        assert_eq!(programs.len(), 1);
        programs.remove(0)
    }

    pub(crate) fn notes(&self) -> PathBuf {
        self.scratch.path().join("notes")
    }
}
