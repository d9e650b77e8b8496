//! `--tag`: which item a line of output is of.

use std::io::{self, Write};

use crate::text::printable;

pub(super) struct Tag(Vec<u8>);

impl Tag {
    pub(super) fn new(item: &[u8]) -> Tag {
        let mut tag = printable(item).into_bytes();
        tag.push(b'\t');
        Tag(tag)
    }

    /// Writes the lines, the last one whole.
    pub(super) fn write(&self, bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            out.write_all(&self.0)?;
            out.write_all(line)?;
        }
        // The next tag begins a line of its own.
        if bytes.last().is_some_and(|&byte| byte != b'\n') { out.write_all(b"\n") } else { Ok(()) }
    }
}
