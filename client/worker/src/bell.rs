//! Lets the threads of a worker sleep until the agent has written something, and wakes the agent.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use farpool_link::Memory;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

use crate::leave;

/// The bell of a worker. If several threads wait, one sleeps on the socket and wakes the others.
#[derive(Debug)]
pub(crate) struct Bell {
    memory: Arc<Memory>,
    socket: OwnedFd,
    waiting: Mutex<Waiting>,
    rung: Condvar,
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
        Bell { memory, socket, waiting: Mutex::default(), rung: Condvar::new() }
    }

    /// Sleeps until `ready` returns true. Exits the process if the agent has closed the connection.
    pub(crate) fn wait(&self, mut ready: impl FnMut() -> bool) {
        while !ready() {
            let mut waiting = self.lock();
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
            let mut waiting = self.lock();
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
        match recv(self.socket.as_raw_fd(), &mut [0; 64], MsgFlags::empty()) {
            Ok(0) => leave::agent_gone(),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => leave::lost_connection(error),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
