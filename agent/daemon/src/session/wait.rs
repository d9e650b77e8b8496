//! Waits for the next events.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::Session;
use super::link::LinkEvent;
use super::parts::{Connect, Workers};

/// The events of one round. All sources are polled in every round, so that none can starve the others.
pub(super) struct Wakeup {
    pub(super) link: Option<LinkEvent>,
    pub(super) ready: Result<(), String>,
    /// The exit code of a signal to leave.
    pub(super) exit_code: Option<u8>,
}

impl<C: Connect, W: Workers> Session<C, W> {
    /// Waits until there is something to do; not at all if `busy`.
    pub(super) async fn wait(&mut self, signals: &mut mpsc::Receiver<u8>, busy: bool) -> Wakeup {
        let due = self.due();
        let mut wakeup = Wakeup { link: None, ready: Ok(()), exit_code: None };
        let mut any = false;
        {
            let mut link = pin!(self.link.next());
            let mut ready = pin!(self.workers.ready());
            let mut signals = pin!(signals.recv());
            let mut drained =
                pin!(async { if self.full { self.drained.notified().await } else { std::future::pending().await } });
            let mut slept =
                pin!(async { if let Some(due) = due { sleep_until(due).await } else { std::future::pending().await } });
            poll_fn(|context| {
                if let Poll::Ready(Some(code)) = signals.as_mut().poll(context) {
                    (wakeup.exit_code, any) = (Some(code), true);
                }
                if let Poll::Ready(event) = link.as_mut().poll(context) {
                    (wakeup.link, any) = (Some(event), true);
                }
                if let Poll::Ready(ready) = ready.as_mut().poll(context) {
                    (wakeup.ready, any) = (ready, true);
                }
                any |= drained.as_mut().poll(context).is_ready() | slept.as_mut().poll(context).is_ready();
                if any || busy { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        if !any {
            // Other tasks on this thread get their turn.
            yield_now().await;
        }
        wakeup
    }

    /// Returns when something is due that no event reports.
    fn due(&self) -> Option<Instant> {
        [self.link.due(), self.orphaned_at, self.leaving.deadline()].into_iter().flatten().min()
    }
}
