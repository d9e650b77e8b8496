//! A named pipe for which an item waits, so that a test knows that it runs.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;

use nix::sys::stat::Mode;

pub(crate) struct Pipe {
    path: PathBuf,
}

impl Pipe {
    pub(crate) fn new(path: PathBuf) -> Pipe {
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("cannot create a pipe");
        Pipe { path }
    }

    /// Returns the behaviour of workers whose items wait for this pipe.
    pub(crate) fn behaviour(&self) -> String {
        format!("until-written:{}", self.path.display())
    }

    /// Waits until an item runs. The item ends when the returned file is dropped.
    pub(crate) async fn reader(&self) -> File {
        let path = self.path.clone();
        // Opening waits for a reader.
        let opened = tokio::task::spawn_blocking(move || OpenOptions::new().write(true).open(path));
        opened.await.expect("opening panicked").expect("cannot open the pipe")
    }
}
