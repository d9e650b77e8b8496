//! Connects the agent's epoll with tokio's.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use farpool_link::clock;
use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use farpool_agent::timer::Timer;
use farpool_agent::{Agent, Armed};

/// The timer's data in epoll events; no pool uses it.
const TIMER: u64 = u64::MAX;

/// Wakes this thread when the agent has work.
#[derive(Debug)]
pub(super) struct Reactor {
    epoll: AsyncFd<Nested>,
    timer: Timer,
}

#[derive(Debug)]
struct Nested(Arc<Epoll>);

impl AsRawFd for Nested {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

impl Reactor {
    pub(super) fn new(agent: &Agent) -> io::Result<Reactor> {
        let epoll = Arc::clone(agent.epoll());
        let timer = Timer::new(&epoll, TIMER)?;
        // SAFETY: the epoll is owned, never closed before it is dropped, and always has the same descriptor.
        let epoll = unsafe { AsyncFd::register_with_interest(Nested(epoll), Interest::READABLE) }?;
        Ok(Reactor { epoll, timer })
    }

    /// Waits until a descriptor of the agent is ready or its deadline has passed. Cancel-safe.
    pub(super) async fn ready(&self) {
        // An error would mean that the runtime is shutting down.
        if let Ok(mut ready) = self.epoll.readable().await {
            ready.retain_ready();
        }
    }

    /// Passes ready events to the agent.
    pub(super) fn dispatch(&mut self, agent: &mut Agent) {
        let now = clock::now();
        let mut events = [EpollEvent::empty(); 32];
        // Tokio reports this epoll again only after a wait has found it empty, usually the second one. The bound keeps
        // a descriptor that stays ready from delaying the rest.
        for _ in 0..2 {
            let ready = self.epoll.try_io(Interest::READABLE, |nested| {
                match nested.0.wait(&mut events, EpollTimeout::ZERO)? {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    count => Ok(count),
                }
            });
            for event in &events[..ready.unwrap_or(0)] {
                match event.data() {
                    TIMER => self.timer.clear_expired(),
                    data => agent.ready(data, now),
                }
            }
        }
    }

    /// Prepares for [`Reactor::ready`]. Returns whether the agent has work already.
    pub(super) fn arm(&mut self, agent: &mut Agent) -> bool {
        match agent.arm() {
            Armed::Busy => return true,
            Armed::Until(None) => {}
            // It could only fail for a time in the far future.
            Armed::Until(Some(time)) => drop(self.timer.expire_by(time.max(clock::now()))),
        }
        false
    }
}
