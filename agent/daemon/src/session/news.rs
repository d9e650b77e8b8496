//! Waiting for whatever comes next.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::Session;
use super::link::Heard;
use super::parts::{Connect, Workers};

/// All that has come. Everybody is listened to in every round, so that nobody who has much to say keeps the others from
/// being heard.
pub(super) struct News {
    pub(super) link: Option<Heard>,
    pub(super) ready: Result<(), String>,
    /// What a process exits with that is asked once more.
    pub(super) asked: Option<u8>,
}

impl<C: Connect, W: Workers> Session<C, W> {
    /// Waits until there is something to do, which there is if it is `busy`.
    pub(super) async fn news(&mut self, asked: &mut mpsc::Receiver<u8>, busy: bool) -> News {
        let due = self.due();
        let mut news = News { link: None, ready: Ok(()), asked: None };
        let mut any = false;
        {
            let mut link = pin!(self.link.next());
            let mut ready = pin!(self.workers.ready());
            let mut asked = pin!(asked.recv());
            let mut drained =
                pin!(async { if self.full { self.drained.notified().await } else { std::future::pending().await } });
            let mut slept =
                pin!(async { if let Some(due) = due { sleep_until(due).await } else { std::future::pending().await } });
            poll_fn(|context| {
                if let Poll::Ready(Some(code)) = asked.as_mut().poll(context) {
                    (news.asked, any) = (Some(code), true);
                }
                if let Poll::Ready(heard) = link.as_mut().poll(context) {
                    (news.link, any) = (Some(heard), true);
                }
                if let Poll::Ready(ready) = ready.as_mut().poll(context) {
                    (news.ready, any) = (ready, true);
                }
                any |= drained.as_mut().poll(context).is_ready() | slept.as_mut().poll(context).is_ready();
                if any || busy { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        if !any {
            // Others on this thread have their turn.
            yield_now().await;
        }
        news
    }

    /// When there is something to do that nobody will tell.
    fn due(&self) -> Option<Instant> {
        [self.link.due(), self.orphaned_at, self.leaving.until()].into_iter().flatten().min()
    }
}
