use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Error, Serialize, Serializer};

use super::super::item::MAX_VALUE_BYTES;
use super::super::keep::OutputMode;
use super::super::plan::Plan;
use super::super::queue::Queue;
use super::super::task::Work;
use super::DetachedItem;

/// The items of a detached map. The job needs all of them, so an error becomes an entry that cannot be sent.
pub(super) struct DetachedInput<'a> {
    plan: &'a Plan,
    queue: Arc<Queue>,
    next: u64,
    /// Why the input is incomplete.
    failure: Rc<RefCell<Option<String>>>,
}

/// An item; `None` if the input is incomplete, which cannot be sent.
#[derive(Debug)]
pub(super) struct Entry(pub(super) Option<DetachedItem>);

impl<'a> DetachedInput<'a> {
    pub(super) fn new(plan: &'a Plan, queue: Arc<Queue>, failure: Rc<RefCell<Option<String>>>) -> Self {
        Self { plan, queue, next: 0, failure }
    }

    fn fail(&self, failure: String) -> Option<Entry> {
        *self.failure.borrow_mut() = Some(failure);
        Some(Entry(None))
    }
}

impl Iterator for DetachedInput<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let Some(mut item) = self.queue.pop(Duration::MAX) else {
            return match self.queue.poll(&Context::from_waker(Waker::noop())) {
                Poll::Ready(Err(error)) => self.fail(format!("cannot read the items: {error}")),
                _ => None,
            };
        };
        let index = self.next;
        self.next += 1;
        if item.cut {
            return self
                .fail(format!("item {} is longer than the {MAX_VALUE_BYTES} bytes that Linux allows", index + 1));
        }
        let (command, input) = (self.plan.command(&item, index), item.take_content());
        let Plan { timeout, grace, .. } = *self.plan;
        let work = Work { index, command, input, timeout, grace, output_mode: OutputMode::InMemory };
        Some(Entry(Some(DetachedItem { item: item.name, work })))
    }
}

impl Drop for DetachedInput<'_> {
    fn drop(&mut self) {
        self.queue.abandon();
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(item) => item.serialize(serializer),
            None => Err(S::Error::custom("the input is incomplete")),
        }
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DetachedItem::deserialize(deserializer).map(|item| Self(Some(item)))
    }
}
