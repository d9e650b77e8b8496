//! The timer of an agent's driver, reported by epoll.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// A one-shot timer that can be set again.
#[derive(Debug)]
pub struct Timer {
    fd: TimerFd,
    /// When it expires, in CLOCK_MONOTONIC nanoseconds.
    at: Option<u64>,
}

impl Timer {
    /// Creates a timer that `epoll` reports as `data`.
    pub fn new(epoll: &Epoll, data: u64) -> nix::Result<Timer> {
        let fd = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        epoll.add(fd.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, data))?;
        Ok(Timer { fd, at: None })
    }

    /// Makes the timer expire no later than `time`. It may expire earlier, for a time that was set before.
    pub fn expire_by(&mut self, time: u64) -> nix::Result<()> {
        if self.at.is_some_and(|at| at <= time) {
            return Ok(());
        }
        // A time of zero would disarm it.
        let time = time.max(1);
        let seconds = i64::try_from(time / 1_000_000_000).map_err(|_| Errno::EOVERFLOW)?;
        let nanoseconds = i64::try_from(time % 1_000_000_000).map_err(|_| Errno::EOVERFLOW)?;
        self.fd.set(Expiration::OneShot(TimeSpec::new(seconds, nanoseconds)), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
        self.at = Some(time);
        Ok(())
    }

    /// Handles the expired timer.
    pub fn clear_expired(&mut self) {
        self.at = None;
        // Reading clears the event. EAGAIN means that it was read already.
        let _ = nix::unistd::read(self.fd.as_fd(), &mut [0; 8]);
    }
}
