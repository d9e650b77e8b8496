//! Lets the threads of a worker sleep until the agent has written something, and wakes the agent.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use farpool_link::Memory;
use farpool_link::sealed::{self, Received};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};

use crate::leave;

/// The bell of a worker. If several threads wait, one sleeps on the socket and wakes the others.
#[derive(Debug)]
pub(crate) struct Bell {
    memory: Arc<Memory>,
    socket: OwnedFd,
    waiting: Mutex<Waiting>,
    rung: Condvar,
    /// Files that have arrived and nobody has taken.
    files: Mutex<VecDeque<nix::Result<OwnedFd>>>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// A thread sleeps on the socket.
    on_socket: bool,
    /// How often that thread has woken.
    times: u64,
    /// Threads that wait for that thread to wake.
    followers: usize,
}

impl Bell {
    pub(crate) fn new(memory: Arc<Memory>, socket: OwnedFd) -> Bell {
        Bell { memory, socket, waiting: Mutex::default(), rung: Condvar::new(), files: Mutex::default() }
    }

    /// Sleeps until `ready` returns true. Exits the process if the agent has closed the connection.
    pub(crate) fn wait(&self, mut ready: impl FnMut() -> bool) {
        while !ready() {
            let mut waiting = lock(&self.waiting);
            if waiting.on_socket {
                let times = waiting.times;
                waiting.followers += 1;
                while waiting.times == times {
                    waiting = self.rung.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                }
                waiting.followers -= 1;
                continue;
            }
            waiting.on_socket = true;
            drop(waiting);
            self.memory.status().worker_sleeps();
            if !ready() {
                self.listen();
            }
            self.memory.status().worker_awake();
            let mut waiting = lock(&self.waiting);
            waiting.on_socket = false;
            waiting.times += 1;
            let followers = waiting.followers;
            drop(waiting);
            // Notifying is a system call even without listeners, the usual case: most workers have one thread.
            if followers > 0 {
                self.rung.notify_all();
            }
        }
    }

    /// Waits for the next file from the agent.
    ///
    /// # Errors
    /// EMFILE if it could not be opened here.
    pub(crate) fn next_file(&self) -> nix::Result<OwnedFd> {
        let mut file = None;
        self.wait(|| {
            file = file.take().or_else(|| lock(&self.files).pop_front());
            file.is_some()
        });
        file.unwrap_or(Err(Errno::EMFILE))
    }

    /// Wakes the agent.
    pub(crate) fn ring(&self) {
        match send(self.socket.as_raw_fd(), &[0], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            // A full socket wakes the agent, too.
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => leave::lost_connection(error),
        }
    }

    /// Reports that one more thread waits for items that run elsewhere.
    pub(crate) fn begin_waiting(&self) {
        self.memory.status().begin_waiting();
        self.ring();
    }

    /// Reports that one thread less waits.
    pub(crate) fn end_waiting(&self) {
        self.memory.status().end_waiting();
        self.ring();
    }

    fn listen(&self) {
        match sealed::receive(self.socket.as_fd()) {
            Ok(Received::End) => leave::agent_gone(),
            Ok(Received::File(file)) => lock(&self.files).push_back(file),
            Ok(Received::Wake) | Err(Errno::EINTR) => {}
            Err(error) => leave::lost_connection(error),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
