//! The numbers of workers, by which tasks choose devices, ports and folders.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The numbers that this agent's workers have. They are as small as possible.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlotNumbers(Arc<Mutex<BTreeSet<u32>>>);

/// The number of a worker. No other worker of the agent gets it while this exists.
#[derive(Debug)]
pub(crate) struct SlotNumber {
    number: u32,
    taken: SlotNumbers,
}

impl SlotNumbers {
    /// Takes the smallest free number.
    pub(crate) fn take(&self) -> SlotNumber {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = (0..).find(|number| !taken.contains(number)).expect("there are fewer workers than numbers");
        taken.insert(number);
        drop(taken);
        SlotNumber { number, taken: self.clone() }
    }
}

impl SlotNumber {
    pub(crate) fn get(&self) -> u32 {
        self.number
    }
}

impl Drop for SlotNumber {
    fn drop(&mut self) {
        self.taken.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_small() {
        let numbers = SlotNumbers::default();
        let [first, second, third] = [numbers.take(), numbers.take(), numbers.take()];
        assert_eq!([first.get(), second.get(), third.get()], [0, 1, 2]);
        drop(second);
        assert_eq!(numbers.take().get(), 1);
    }
}
