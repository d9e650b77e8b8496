//! Feeding a job whose verb has returned already.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use farpool_session::{Call, End, Inbox};

use crate::args::Args;
use crate::error::{Error, ErrorKind};
use crate::feeder::Feeder;
use crate::panics;

/// How long a verb that is to return at once may feed before it leaves the rest to a thread.
const INLINE: Duration = Duration::from_millis(20);

/// Feeds the job on a thread of its own; what goes wrong becomes the job's outcome. Only an input that waits for nothing, such as a
/// `Vec` of numbers, is pulled here too, as far as that is quickly done.
pub(crate) fn feed<A: Args>(mut call: Call, mut feeder: Feeder<impl Iterator<Item = A> + Send + 'static>) {
    if feeder.never_blocks() {
        if !feed_until(&mut call, &mut feeder, Some(Instant::now() + INLINE)) {
            return;
        }
    } else if let Err(error) = call.flush() {
        return give_up(&call.inbox, error);
    }
    // The session knows the job by now, so that a cancellation cannot come too early for it.
    let inbox = Arc::clone(&*call.inbox);
    let rest = move || {
        while feed_until(&mut call, &mut feeder, None) {
            feeder.wait_for_room(&call.inbox);
        }
    };
    if let Err(error) =
        thread::Builder::new().name("farpool-feeder".to_owned()).stack_size(crate::codec::STACK).spawn(rest)
    {
        let message = format!("cannot start the thread that feeds the job: {error}");
        give_up(&inbox, Error::new(ErrorKind::Unavailable, message));
    }
}

/// Feeds until the window is full or the deadline has passed. Returns whether there is more to feed.
fn feed_until<A: Args>(
    call: &mut Call,
    feeder: &mut Feeder<impl Iterator<Item = A>>,
    deadline: Option<Instant>,
) -> bool {
    // The input is never asked again after a panic: nobody sees it half-changed.
    let fed = panic::catch_unwind(AssertUnwindSafe(|| {
        while !call.inbox.ended()
            && feeder.may_feed(&call.inbox, 0)
            && deadline.is_none_or(|deadline| Instant::now() < deadline)
        {
            feeder.feed(u64::MAX, &call.inbox, &mut call.messages);
            call.flush()?;
        }
        Ok::<(), farpool_session::Error>(())
    }));
    if !call.session.owner().is_here() {
        // The input has forked this process, and this is the child: the job is the parent's.
        return false;
    }
    match fed {
        Ok(Ok(())) => {
            let more = !feeder.exhausted() && !call.inbox.ended();
            if !more {
                call.settle();
            }
            return more;
        }
        Ok(Err(error)) => give_up(&call.inbox, error),
        Err(panic) => {
            let message =
                format!("the input iterator panicked after {} items: {}", feeder.pulled(), panics::message(&*panic));
            // First: once the job is cancelled, its end may come at any moment.
            call.inbox.break_with(Error::new(ErrorKind::Panicked, message));
            call.cancel();
            call.inbox.end(End::Cancelled).wake();
        }
    }
    false
}

/// The job ends with this error, whether or not the session has heard of it.
fn give_up(inbox: &Inbox, error: impl Into<farpool_session::Error>) {
    inbox.break_with(error);
    inbox.end(End::Cancelled).wake();
}
