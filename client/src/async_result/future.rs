use std::pin::Pin;
use std::task::{Context, Poll};

use super::AsyncResult;
use crate::error::Error;

/// Resolves to the outcome once it has arrived and its callbacks have run. Dropping it leaves the job running.
///
/// ```
/// # use std::pin::pin;
/// # use std::task::{Context, Poll, Waker};
/// fn square(n: u64) -> u64 {
///     n * n
/// }
///
/// async fn squares(pool: &farpool::Pool) -> Result<u64, farpool::Error> {
///     let three = pool.apply_async(square, (3,));
///     let four = pool.apply_async(square, (4,));
///     Ok(three.await? + four.await?)
/// }
///
/// fn main() -> Result<(), farpool::Error> {
///     farpool::init();
///     let pool = farpool::Pool::new(2)?;
///     # let mut future = pin!(squares(&pool));
///     # loop {
///     #     if let Poll::Ready(sum) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
///     #         assert_eq!(sum?, 25);
///     #         break;
///     #     }
///     #     std::thread::yield_now();
///     # }
///     Ok(())
/// }
/// ```
impl<T: Send + 'static> Future for AsyncResult<T> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Err(error) = self.check() {
            return Poll::Ready(Err(error));
        }
        let inbox = self.outcome.inbox();
        if !inbox.ended() {
            inbox.set_waker(context.waker());
            // The job may have ended before the waker was registered.
            if !inbox.ended() {
                return Poll::Pending;
            }
        }
        if self.outcome.wake_after_callbacks(context.waker()) {
            Poll::Ready(self.outcome.take())
        } else {
            Poll::Pending
        }
    }
}
