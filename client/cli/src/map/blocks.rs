//! `--pipe`: splits the input into blocks of whole lines.

use std::io::{self, Read};

use super::item::Item;

/// An iterator over the blocks of the input.
pub(super) struct Blocks {
    reader: Box<dyn Read + Send>,
    /// The largest size of a block, unless a single line is longer.
    bytes: usize,
    separator: u8,
    digests: bool,
    /// Bytes that were read beyond the last block.
    rest: Vec<u8>,
    number: u64,
    done: bool,
}

/// The largest block; no line may be longer.
pub(super) const MAX_BLOCK_BYTES: usize = 256 << 20;

impl Blocks {
    pub(super) fn new(reader: Box<dyn Read + Send>, bytes: usize, separator: u8, digests: bool) -> Blocks {
        Blocks { reader, bytes, separator, digests, rest: Vec::new(), number: 0, done: false }
    }

    fn next_block(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut block = std::mem::take(&mut self.rest);
        let mut wanted = self.bytes;
        // No line ends within the first `searched` bytes.
        let mut searched = 0;
        loop {
            if block.len() < wanted && !self.done {
                let missing = wanted - block.len();
                block.reserve(missing);
                self.done = (&mut self.reader).take(missing as u64).read_to_end(&mut block)? < missing;
            }
            let is_last = self.done && block.len() <= wanted;
            if is_last && searched == 0 {
                return Ok(Some(block).filter(|block| !block.is_empty()));
            }
            let part = &block[searched..wanted.min(block.len())];
            let is_end = |&byte: &u8| byte == self.separator;
            let end = if searched == 0 { part.iter().rposition(is_end) } else { part.iter().position(is_end) };
            if let Some(end) = end {
                self.rest = block.split_off(searched + end + 1);
                return Ok(Some(block));
            }
            if is_last {
                return Ok(Some(block));
            }
            if wanted >= MAX_BLOCK_BYTES {
                let why = format!(
                    "a line of block {} is longer than {} MiB, the largest block of --pipe",
                    self.number + 1,
                    MAX_BLOCK_BYTES >> 20
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            // A line longer than a block is a block of its own.
            searched = wanted;
            wanted = wanted.saturating_mul(2).min(MAX_BLOCK_BYTES);
        }
    }
}

impl Iterator for Blocks {
    type Item = io::Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        let block = self.next_block().transpose()?;
        self.number += 1;
        let digest = |block: &[u8]| *blake3::hash(block).as_bytes();
        Some(block.map(|block| {
            let digest = self.digests.then(|| digest(&block));
            Item::of_block(self.number, block, digest)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(text: &[u8], bytes: usize) -> Vec<String> {
        let reader = Box::new(io::Cursor::new(text.to_vec()));
        let content = |item: io::Result<Item>| item.unwrap().take_content().unwrap().0;
        Blocks::new(reader, bytes, b'\n', false).map(|item| String::from_utf8(content(item)).unwrap()).collect()
    }

    #[test]
    fn blocks_are_cut_at_the_ends_of_lines() {
        assert_eq!(blocks(b"ab\ncd\nef\n", 6), ["ab\ncd\n", "ef\n"]);
        assert_eq!(blocks(b"ab\ncd\nef", 7), ["ab\ncd\n", "ef"]);
        assert_eq!(blocks(b"ab\ncd\nef", 100), ["ab\ncd\nef"]);
        assert_eq!(blocks(b"ab\n", 3), ["ab\n"]);
        assert_eq!(blocks(b"\n\n\n", 1), ["\n", "\n", "\n"]);
        assert_eq!(blocks(b"", 6), [""; 0]);
    }

    #[test]
    fn a_long_line_is_a_block_of_its_own() {
        assert_eq!(blocks(b"a\nbcdefghijk\nl\nm\nn\n", 3), ["a\n", "bcdefghijk\n", "l\n", "m\n", "n\n"]);
        assert_eq!(blocks(b"abcdefgh", 3), ["abcdefgh"]);
        assert_eq!(blocks(b"abcdefgh\nx", 1), ["abcdefgh\n", "x"]);
    }

    #[test]
    fn no_bytes_are_lost_with_any_sizes() {
        let text: Vec<u8> =
            (0..2000_u32).map(|at| if at * at % 7 == 1 { b'\n' } else { b'a' + (at % 26) as u8 }).collect();
        for bytes in 1..50 {
            let found = blocks(&text, bytes);
            assert_eq!(found.concat().as_bytes(), text, "{bytes}");
            assert!(found[..found.len() - 1].iter().all(|block| block.ends_with('\n')), "{bytes}");
            let fits = |block: &String| block.len() <= bytes || block.matches('\n').count() <= 1;
            assert!(found.iter().all(fits), "{bytes}: {found:?}");
        }
    }

    #[test]
    fn a_line_longer_than_the_largest_block_is_an_error() {
        let reader = Box::new(io::repeat(b'x'));
        let error = Blocks::new(reader, 1 << 20, b'\n', false).next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "a line of block 1 is longer than 256 MiB, the largest block of --pipe");
    }
}
