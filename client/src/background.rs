//! Feeds a job whose call has already returned.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use farpool_session::{Call, End, Inbox};

use crate::args::Args;
use crate::error::{Error, ErrorKind};
use crate::feeder::Feeder;
use crate::panics;

/// How long a call that returns at once may feed before it leaves the rest to a thread.
const INLINE: Duration = Duration::from_millis(20);

/// Feeds the job on a separate thread; an error becomes the job's outcome. Only an input that never blocks, such as a `Vec` of
/// numbers, is also pulled here, for a short time.
pub(crate) fn feed<A: Args>(mut call: Call, mut feeder: Feeder<impl Iterator<Item = A> + Send + 'static>) {
    if feeder.never_blocks() {
        if !feed_until(&mut call, &mut feeder, Some(Instant::now() + INLINE)) {
            return;
        }
    } else if let Err(error) = call.flush() {
        return fail_job(&call.inbox, error);
    }
    // From here on the session knows the job, so a cancellation cannot come too early.
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
        fail_job(&inbox, Error::new(ErrorKind::Unavailable, message));
    }
}

/// Feeds until the window is full or the deadline has passed. Returns whether there is more to feed.
fn feed_until<A: Args>(
    call: &mut Call,
    feeder: &mut Feeder<impl Iterator<Item = A>>,
    deadline: Option<Instant>,
) -> bool {
    // After a panic the input is never called again: an inconsistent state is never seen.
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
        // The input has forked this process, and this is the child: the job belongs to the parent.
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
        Ok(Err(error)) => fail_job(&call.inbox, error),
        Err(panic) => {
            let message =
                format!("the input iterator panicked after {} items: {}", feeder.pulled(), panics::message(&*panic));
            // Before the cancellation: after it, the job's end may arrive at any moment.
            call.inbox.break_with(Error::new(ErrorKind::Panicked, message));
            call.cancel();
            call.inbox.end(End::Cancelled).wake();
        }
    }
    false
}

/// Ends the job with this error, whether or not the session knows the job.
fn fail_job(inbox: &Inbox, error: impl Into<farpool_session::Error>) {
    inbox.break_with(error);
    inbox.end(End::Cancelled).wake();
}
