//! The item of a command: a value, several values, or a block of the input.

use serde::{Deserialize, Serialize};

/// An item on its way from the input to the records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Item {
    /// Its name in messages and records: its values joined by spaces, or the block's number.
    pub(super) name: Vec<u8>,
    /// The ends of its values within the name; empty: the name is the only value.
    ends: Vec<usize>,
    /// Whether it was truncated: it is longer than any command line.
    pub(super) cut: bool,
    pub(super) block: Option<Block>,
}

/// A value of an item: a line of the input, or an argument.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) bytes: Vec<u8>,
    /// Whether it was truncated: it is longer than any command line.
    pub(super) cut: bool,
}

/// A part of the input that a command reads from its stdin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// `None`: no longer needed and freed.
    pub(super) content: Option<Content>,
    /// Its digest, if there are records.
    pub(super) digest: Option<[u8; 32]>,
}

/// The content that a command reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content(#[serde(with = "serde_bytes")] pub(super) Vec<u8>);

/// The longest argument that Linux passes to a program (MAX_ARG_STRLEN). No longer value can be in a command.
pub(super) const MAX_VALUE_BYTES: usize = 128 << 10;
/// More than all arguments of a program may take together, whatever its limits are.
const MAX_ITEM_BYTES: usize = 8 << 20;

impl Item {
    /// Builds an item of several values. Bytes beyond any command line are not kept.
    pub(super) fn of(values: impl IntoIterator<Item = Value>) -> Item {
        let mut item = Item::default();
        for value in values {
            item.cut |= value.cut;
            if item.name.len() + value.bytes.len() > MAX_ITEM_BYTES {
                item.cut = true;
                continue;
            }
            if !item.ends.is_empty() {
                item.name.push(b' ');
            }
            item.name.extend_from_slice(&value.bytes);
            item.ends.push(item.name.len());
        }
        if item.ends.len() == 1 {
            item.ends.clear();
        }
        item
    }

    /// Creates the item of a block of the input; blocks are numbered from 1.
    pub(super) fn of_block(number: u64, content: Vec<u8>, digest: Option<[u8; 32]>) -> Item {
        let block = Block { content: Some(Content(content)), digest };
        Item { name: number.to_string().into_bytes(), block: Some(block), ..Item::default() }
    }

    pub(super) fn values(&self) -> Vec<&[u8]> {
        if self.ends.is_empty() {
            return vec![&self.name];
        }
        let starts = std::iter::once(0).chain(self.ends.iter().map(|end| end + 1));
        starts.zip(&self.ends).map(|(start, &end)| &self.name[start..end]).collect()
    }

    /// Returns the ends of the values, if there are several.
    pub(super) fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// Returns its size in memory.
    pub(super) fn bytes(&self) -> usize {
        let content = self.block.as_ref().and_then(|block| block.content.as_ref());
        self.name.len() + content.map_or(0, |content| content.0.len())
    }

    /// Takes the content that its command reads.
    pub(super) fn take_content(&mut self) -> Option<Content> {
        self.block.as_mut()?.content.take()
    }
}

impl From<Value> for Item {
    fn from(value: Value) -> Item {
        Item { name: value.bytes, cut: value.cut, ..Item::default() }
    }
}

impl From<Vec<u8>> for Value {
    fn from(mut bytes: Vec<u8>) -> Value {
        let cut = bytes.len() > MAX_VALUE_BYTES;
        bytes.truncate(MAX_VALUE_BYTES);
        Value { bytes, cut }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Item {
        Item::of(values.iter().map(|value| Value::from(value.as_bytes().to_vec())))
    }

    #[test]
    fn values_are_unchanged() {
        for values in [&["a"][..], &["a b", "c"], &["a", "b c"], &["", ""], &["", "x", ""]] {
            let item = of(values);
            assert_eq!(item.values(), values.iter().map(|value| value.as_bytes()).collect::<Vec<_>>());
            assert_eq!(item.name, values.join(" ").as_bytes());
        }
        assert_ne!(of(&["a b", "c"]), of(&["a", "b c"]));
    }

    #[test]
    fn bytes_beyond_any_command_line_are_not_kept() {
        let value = Value::from(vec![b'x'; MAX_VALUE_BYTES]);
        let item = Item::of(std::iter::repeat_n(value, 100));
        assert!(item.cut && item.bytes() <= MAX_ITEM_BYTES);
        assert!(Item::from(Value::from(vec![b'x'; MAX_VALUE_BYTES + 1])).cut);
    }
}
