//! Other people's text on a terminal.

/// On one line, and without what terminals would take for orders.
pub(crate) fn printable(text: &[u8]) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    String::from_utf8_lossy(text).chars().map(escape).collect()
}

/// The same, cut off where it gets too long.
pub(crate) fn shortened(text: &[u8]) -> String {
    const MOST: usize = 200;
    let text = printable(text);
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
