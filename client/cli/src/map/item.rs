//! What one command is run for: a value, several of them, or a block of the input.

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// An item, as it travels from the input to the records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Item {
    /// As messages and records name it: its values with spaces between them, or the block's number.
    pub(super) name: Vec<u8>,
    /// Where its values end in the name; empty: the name is the only value.
    ends: Vec<usize>,
    /// It is longer than any command line.
    pub(super) cut: bool,
    pub(super) block: Option<Block>,
}

/// A value of an item: a line of the input, or an argument.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) bytes: Vec<u8>,
    /// It was longer than any command line.
    pub(super) cut: bool,
}

/// A part of the input that a command reads from its stdin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// `None`: it is not needed any more, and takes up no memory.
    pub(super) content: Option<Content>,
    /// What tells it from other blocks, if there are records.
    pub(super) digest: Option<[u8; 32]>,
}

/// What a command reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content(pub(super) Vec<u8>);

/// The longest argument that Linux passes to a program (MAX_ARG_STRLEN): no longer value can be in a command.
pub(super) const LONGEST: usize = 128 << 10;
/// More than all arguments of a program may take up together, whatever its limits are.
const LONGEST_TOGETHER: usize = 8 << 20;

impl Item {
    /// Takes values one after another; what is beyond any command line is not kept.
    pub(super) fn of(values: impl IntoIterator<Item = Value>) -> Item {
        let mut item = Item::default();
        for value in values {
            item.cut |= value.cut;
            if item.name.len() + value.bytes.len() > LONGEST_TOGETHER {
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

    /// A block of the input; blocks are counted from 1.
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

    /// Where values end, if there are several.
    pub(super) fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// Bytes that it takes up.
    pub(super) fn bytes(&self) -> usize {
        let content = self.block.as_ref().and_then(|block| block.content.as_ref());
        self.name.len() + content.map_or(0, |content| content.0.len())
    }

    /// Takes out what its command reads.
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
        let cut = bytes.len() > LONGEST;
        bytes.truncate(LONGEST);
        Value { bytes, cut }
    }
}

// By themselves bytes would travel one by one.
impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(Bytes)
    }
}

struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = Content;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Content, E> {
        self.visit_byte_buf(bytes.to_vec())
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Content, E> {
        Ok(Content(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
        }
        Ok(Content(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Item {
        Item::of(values.iter().map(|value| Value::from(value.as_bytes().to_vec())))
    }

    #[test]
    fn values_come_back_as_they_were() {
        for values in [&["a"][..], &["a b", "c"], &["a", "b c"], &["", ""], &["", "x", ""]] {
            let item = of(values);
            assert_eq!(item.values(), values.iter().map(|value| value.as_bytes()).collect::<Vec<_>>());
            assert_eq!(item.name, values.join(" ").as_bytes());
        }
        assert_ne!(of(&["a b", "c"]), of(&["a", "b c"]));
    }

    #[test]
    fn what_no_command_line_can_hold_is_not_kept() {
        let value = Value::from(vec![b'x'; LONGEST]);
        let item = Item::of(std::iter::repeat_n(value, 100));
        assert!(item.cut && item.bytes() <= LONGEST_TOGETHER);
        assert!(Item::from(Value::from(vec![b'x'; LONGEST + 1])).cut);
    }
}
