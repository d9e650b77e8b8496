//! Labels by the numbers that the core knows.

use std::collections::HashMap;

use farpool_core::Labels;
use farpool_proto::v1::Label;

/// The numbers of the labels that are in use.
#[derive(Default)]
pub(crate) struct LabelBook {
    entries: HashMap<(String, String), NumberedLabel>,
    free: Vec<u32>,
}

struct NumberedLabel {
    number: u32,
    users: usize,
}

impl LabelBook {
    /// Returns the numbers of these labels. They stay assigned until they are [given back](Self::give_back).
    pub(crate) fn take(&mut self, labels: &[Label]) -> Labels {
        let numbers = labels.iter().map(|label| {
            let next = self.entries.len() as u32;
            let entry = self.entries.entry((label.key.clone(), label.value.clone())).or_insert_with(|| {
                // There are as many numbers as entries, so the next is free if none was given back.
                NumberedLabel { number: self.free.pop().unwrap_or(next), users: 0 }
            });
            entry.users += 1;
            entry.number
        });
        Labels::new(numbers)
    }

    pub(crate) fn give_back(&mut self, labels: &[Label]) {
        for label in labels {
            let name = (label.key.clone(), label.value.clone());
            let entry = self.entries.get_mut(&name).expect("labels that are given back were taken");
            entry.users -= 1;
            if entry.users == 0 {
                self.free.push(entry.number);
                self.entries.remove(&name);
            }
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Formats labels for a message: `gpu=a100 and zone=b`.
pub(crate) fn in_words(labels: &[Label]) -> String {
    let all: Vec<_> = labels.iter().map(|label| format!("{}={}", label.key, label.value)).collect();
    all.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shared_while_in_use_and_then_reused() {
        let label = |key: &str| Label { key: key.to_owned(), value: "x".to_owned() };
        let [a, b, c] = ["a", "b", "c"].map(label);
        let mut book = LabelBook::default();
        let first = book.take(&[a.clone(), b.clone()]);
        assert_eq!(book.take(&[b.clone(), b.clone(), a.clone()]), first);
        let third = book.take(std::slice::from_ref(&c));
        assert!(!first.include(&third));
        book.give_back(&[a.clone(), b.clone()]);
        assert_eq!(book.take(&[a.clone(), b.clone()]), first);
        book.give_back(&[a.clone(), a.clone()]);
        // The number of `a` is free, and a new label may get it, but no other number.
        let fourth = book.take(&[label("d"), label("e")]);
        assert!(!fourth.include(&third) && fourth.iter().count() == 2);
        assert!(!fourth.include(&book.take(std::slice::from_ref(&b))));
        book.give_back(&[b.clone(), b.clone(), b.clone(), b.clone(), c, label("d"), label("e")]);
        assert!(book.is_empty());
    }
}
