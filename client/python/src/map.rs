//! The blocking calls: the caller's thread feeds, and decodes while it would otherwise wait.

use std::collections::VecDeque;

use bytes::Bytes;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{EndItems, Items};
use farpool_session::{Call, ItemLimit};
use pyo3::prelude::*;

use crate::codec::Encoder;
use crate::collector::{Collector, ended_early};
use crate::errors;
use crate::feeder::{Faults, Feeder};
use crate::waiting::wait_for_news;

/// Runs every item and returns the results in order. An exception of this thread cancels the job.
pub(crate) fn run_all(py: Python<'_>, mut call: Call, mut feeder: Feeder) -> PyResult<Vec<Py<PyAny>>> {
    let faults = Faults::default();
    let mut collector = Collector::default();
    let mut deliveries = VecDeque::new();
    loop {
        if !feeder.exhausted() && call.inbox.has_room(feeder.room(0)) {
            feeder.feed(py, u64::MAX, &call.inbox, &faults, &mut call.messages)?;
            flush(py, &mut call)?;
            py.check_signals()?;
        } else if !call.inbox.has_arrivals() {
            wait_for_news(py, &call.session, &call.inbox)?;
        }
        if !call.inbox.has_arrivals() {
            continue;
        }
        let ended = call.inbox.take(&mut deliveries);
        for delivery in deliveries.drain(..) {
            collector.accept(py, &delivery, &call.inbox, &faults)?;
        }
        if feeder.exhausted() && collector.outcomes() == feeder.pulled() {
            call.settle();
            return collector.finish(py, &call.inbox, &faults);
        }
        if ended {
            return Err(ended_early(py, &call.inbox));
        }
    }
}

/// Sends a call's messages. Detached, because another thread may hold the session.
pub(crate) fn flush(py: Python<'_>, call: &mut Call) -> PyResult<()> {
    py.detach(|| call.flush()).map_err(|error| errors::to_python(py, &error))
}

/// Runs one item and returns its result.
pub(crate) fn run_one(
    py: Python<'_>,
    mut call: Call,
    mut encoder: Encoder,
    value: &Bound<'_, PyAny>,
    limit: ItemLimit,
) -> PyResult<Py<PyAny>> {
    let mut data = Vec::new();
    encoder.encode(value, &mut data)?;
    limit.check(data.len()).map_err(|error| errors::to_python(py, &call.inbox.add_context(error)))?;
    // A pool's limit is at most 2 GiB.
    let end = data.len() as u32;
    let job = call.inbox.job();
    let ends = Bytes::copy_from_slice(&end.to_le_bytes());
    call.messages.push(Body::Items(Items { job, first: 0, data: data.into(), ends }));
    call.messages.push(Body::EndItems(EndItems { job }));
    call.inbox.set_pulled(1);
    flush(py, &mut call)?;
    let (faults, mut collector, mut deliveries) = (Faults::default(), Collector::default(), VecDeque::new());
    loop {
        let ended = call.inbox.take(&mut deliveries);
        for delivery in deliveries.drain(..) {
            collector.accept(py, &delivery, &call.inbox, &faults)?;
        }
        if collector.outcomes() > 0 {
            call.settle();
            return collector.finish(py, &call.inbox, &faults)?.pop().ok_or_else(|| ended_early(py, &call.inbox));
        }
        if ended {
            return Err(ended_early(py, &call.inbox));
        }
        wait_for_news(py, &call.session, &call.inbox)?;
    }
}
