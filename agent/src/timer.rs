//! The one timer of whoever drives an agent, which epoll reports like everything else.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// A timer that rings once each time that it is set.
#[derive(Debug)]
pub struct Timer {
    fd: TimerFd,
    /// When it rings, in CLOCK_MONOTONIC nanoseconds.
    at: Option<u64>,
}

impl Timer {
    /// A timer that `epoll` reports as `data`.
    pub fn new(epoll: &Epoll, data: u64) -> nix::Result<Timer> {
        let fd = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        epoll.add(fd.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, data))?;
        Ok(Timer { fd, at: None })
    }

    /// Has it ring at `time` at the latest. It may ring earlier, for a time that was set before.
    pub fn ring_by(&mut self, time: u64) -> nix::Result<()> {
        if self.at.is_some_and(|at| at <= time) {
            return Ok(());
        }
        // A time of zero would switch it off.
        let time = time.max(1);
        let seconds = i64::try_from(time / 1_000_000_000).map_err(|_| Errno::EOVERFLOW)?;
        let nanoseconds = i64::try_from(time % 1_000_000_000).map_err(|_| Errno::EOVERFLOW)?;
        self.fd.set(Expiration::OneShot(TimeSpec::new(seconds, nanoseconds)), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
        self.at = Some(time);
        Ok(())
    }

    /// It has rung.
    pub fn rung(&mut self) {
        self.at = None;
        // Reading takes the event back; EAGAIN: somebody else has read it.
        let _ = nix::unistd::read(self.fd.as_fd(), &mut [0; 8]);
    }
}
