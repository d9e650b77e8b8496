//! `--tag`: prefixes each line of output with its item.

use std::io::{self, Write};

use crate::text::printable;

pub(super) struct Tag {
    label: Vec<u8>,
    /// Whether the last line is unfinished.
    within_line: bool,
}

impl Tag {
    pub(super) fn new(item: &[u8]) -> Tag {
        let mut label = printable(item).into_bytes();
        label.push(b'\t');
        Tag { label, within_line: false }
    }

    /// Writes the next bytes.
    pub(super) fn write(&mut self, bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            if !self.within_line {
                out.write_all(&self.label)?;
            }
            out.write_all(line)?;
            self.within_line = !line.ends_with(b"\n");
        }
        Ok(())
    }

    /// Ends the last line, so that the next tag begins a new one.
    pub(super) fn end(&mut self, out: &mut impl Write) -> io::Result<()> {
        if std::mem::take(&mut self.within_line) { out.write_all(b"\n") } else { Ok(()) }
    }
}
