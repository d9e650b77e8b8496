//! Other people's text on a terminal.

pub(crate) use farpool_proto::text::printable;

/// On one line, and cut off where it gets too long.
pub(crate) fn shortened(text: &[u8]) -> String {
    const MOST: usize = 200;
    let text = printable(text);
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
