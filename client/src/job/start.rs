use bytes::Bytes;
use farpool_session::{Call, Interest};

use super::Job;
use crate::args::{Args, Data};
use crate::async_result::{AsyncResult, Decode, decode_all};
use crate::background;
use crate::error::Error;
use crate::feeder::Feeder;
use crate::function::{self, Function};
use crate::imap::{Fed, Imap, Order, Run};
use crate::map;
use crate::progress::Progress;
use crate::singles::Singles;

impl<F> Job<'_, F> {
    pub(crate) fn describe<A: Args, R: Data>(&self) -> Bytes
    where
        F: Function<A, Output = R>,
    {
        function::describe::<F, A, R>()
    }

    /// The same, for results that are kept.
    pub(crate) fn describe_detached<A: Args, R: Data>(&self) -> Bytes
    where
        F: Function<A, Output = R>,
    {
        function::describe_detached::<F, A, R>()
    }

    pub(super) fn call(&self, verb: &'static str, function: Bytes, interest: Interest) -> Result<Call, Error> {
        self.pool.call(verb, &self.options, function, interest)
    }

    fn feeder<I>(&self, call: &Call, input: I) -> Feeder<I> {
        Feeder::new(input, call.inbox.job(), self.options.chunksize(), self.pool.payload_limit())
    }

    pub(super) fn show_progress(&self, call: &Call, total: Option<u64>) -> Option<Progress> {
        if !self.options.progress {
            return None;
        }
        Progress::show(&call.inbox, self.options.label(), total)
    }

    pub(super) fn run_all<A: Args, R: Data>(
        &self,
        verb: &'static str,
        function: Bytes,
        input: impl Iterator<Item = A>,
    ) -> Result<Vec<R>, Error> {
        let call = self.call(verb, function, Interest::Outcomes)?;
        let feeder = self.feeder(&call, input);
        let _progress = self.show_progress(&call, feeder.size().1);
        map::run_all(call, feeder)
    }

    pub(super) fn start_all<A: Args, R: Data>(
        &self,
        verb: &'static str,
        function: Bytes,
        input: impl Iterator<Item = A> + Send + 'static,
    ) -> AsyncResult<Vec<R>> {
        let call = match self.call(verb, function, Interest::End) {
            Ok(call) => call,
            Err(error) => return AsyncResult::failed(verb, self.options.label(), error),
        };
        let feeder = self.feeder(&call, input);
        let decode: Decode<Vec<R>> = decode_all;
        let result = AsyncResult::new(&call, decode, self.show_progress(&call, feeder.size().1));
        background::feed(call, feeder);
        result
    }

    pub(super) fn run_lazily<T: Data, R: Data, I: Iterator<Item = T>>(
        &self,
        verb: &'static str,
        function: Bytes,
        input: I,
        order: Order,
    ) -> Imap<I, R> {
        Imap::new(self.call(verb, function, Interest::Outcomes).map(|call| {
            let feeder = self.feeder(&call, Singles(input));
            let progress = self.show_progress(&call, feeder.size().1);
            Run::new(call, feeder, order, self.options.buffersize, self.options.chunksize(), progress)
        }))
    }

    pub(super) fn run_fed<T: Data, R: Data, I: Iterator<Item = T> + Send + 'static>(
        &self,
        verb: &'static str,
        function: Bytes,
        input: I,
        order: Order,
    ) -> Imap<I, R> {
        Imap::fed(self.call(verb, function, Interest::Outcomes).map(|call| {
            let feeder = self.feeder(&call, Singles(input));
            let progress = self.show_progress(&call, feeder.size().1);
            Fed::new(call, feeder, order, self.options.buffersize, self.options.chunksize(), progress)
        }))
    }
}
