use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Error, Serialize, Serializer};

use super::super::item::LONGEST;
use super::super::keep::Keeping;
use super::super::plan::Plan;
use super::super::queue::Queue;
use super::super::task::Work;
use super::Errand;

/// The items of a map as errands. All of them are there in the end, or the job is not: so one stands for what went wrong.
pub(super) struct Input<'a> {
    plan: &'a Plan,
    queue: Arc<Queue>,
    next: u64,
    /// Why there is no whole input.
    trouble: Rc<RefCell<Option<String>>>,
}

/// An errand; none if the input is not whole, which cannot be sent.
#[derive(Debug)]
pub(super) struct Entry(pub(super) Option<Errand>);

impl<'a> Input<'a> {
    pub(super) fn new(plan: &'a Plan, queue: Arc<Queue>, trouble: Rc<RefCell<Option<String>>>) -> Self {
        Self { plan, queue, next: 0, trouble }
    }

    fn fail(&self, trouble: String) -> Option<Entry> {
        *self.trouble.borrow_mut() = Some(trouble);
        Some(Entry(None))
    }
}

impl Iterator for Input<'_> {
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
            return self.fail(format!("item {} is longer than the {LONGEST} bytes that Linux allows", index + 1));
        }
        let (command, input) = (self.plan.command(&item, index), item.take_content());
        let Plan { timeout, grace, .. } = *self.plan;
        let work = Work { index, command, input, timeout, grace, keeping: Keeping::InMemory };
        Some(Entry(Some(Errand { item: item.name, work })))
    }
}

impl Drop for Input<'_> {
    fn drop(&mut self) {
        self.queue.abandon();
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(errand) => errand.serialize(serializer),
            None => Err(S::Error::custom("the input is incomplete")),
        }
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Errand::deserialize(deserializer).map(|errand| Self(Some(errand)))
    }
}
