//! What an item waits for, if a test wants to know that it runs.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;

use nix::sys::stat::Mode;

pub(crate) struct Pipe {
    path: PathBuf,
}

impl Pipe {
    pub(crate) fn new(path: PathBuf) -> Pipe {
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a pipe can be made");
        Pipe { path }
    }

    /// Of workers whose items wait for this.
    pub(crate) fn behaviour(&self) -> String {
        format!("until-written:{}", self.path.display())
    }

    /// Waits until an item runs. It ends once what this returns is dropped.
    pub(crate) async fn reader(&self) -> File {
        let path = self.path.clone();
        // Opening waits for somebody who reads.
        let opened = tokio::task::spawn_blocking(move || OpenOptions::new().write(true).open(path));
        opened.await.expect("it does not panic").expect("the pipe is there")
    }
}
