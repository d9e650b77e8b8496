//! Where the agent's epoll, which is driven from outside, meets tokio's.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use farpool_link::clock;
use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use farpool_agent::timer::Timer;
use farpool_agent::{Agent, Armed};

/// The timer's data in epoll events; no pool of the agent's has it.
const TIMER: u64 = u64::MAX;

/// What wakes this thread when an agent has something to do.
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

    /// Waits until a descriptor of the agent's is ready, or a time has come that it asked for. May be dropped.
    pub(super) async fn ready(&self) {
        // An error would mean that the runtime is going down.
        if let Ok(mut ready) = self.epoll.readable().await {
            ready.retain_ready();
        }
    }

    /// Tells the agent what is ready.
    pub(super) fn hear(&mut self, agent: &mut Agent) {
        let mut events = [EpollEvent::empty(); 32];
        // Tokio hears of this epoll again only after it was seen to be empty: mostly the second look finds that. A
        // descriptor that stays ready does not keep the rest waiting.
        for _ in 0..2 {
            let heard = self.epoll.try_io(Interest::READABLE, |nested| {
                match nested.0.wait(&mut events, EpollTimeout::ZERO)? {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    count => Ok(count),
                }
            });
            for event in &events[..heard.unwrap_or(0)] {
                match event.data() {
                    TIMER => self.timer.rung(),
                    data => agent.ready(data),
                }
            }
        }
    }

    /// To be called before [`Reactor::ready`]: whether the agent has something to do already.
    pub(super) fn arm(&mut self, agent: &mut Agent) -> bool {
        match agent.arm() {
            Armed::Busy => return true,
            Armed::Until(None) => {}
            // It could only fail for a time in the far future.
            Armed::Until(Some(time)) => drop(self.timer.ring_by(time.max(clock::now()))),
        }
        false
    }
}
