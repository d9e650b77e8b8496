//! Text for people: foreign text that is safe to print, and amounts.

pub(crate) use farpool_proto::text::printable;

/// Returns the text on one line, cut off if it is too long.
pub(crate) fn shortened(text: &[u8]) -> String {
    const MOST: usize = 200;
    let text = printable(text);
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Formats a count: `1 item`, `2 items`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Formats a size for columns: `512 B`, `1.5 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Formats a size for sentences: `1 byte`, `1.5 MiB`.
pub(crate) fn bytes_in_words(count: u64) -> String {
    if count < 1024 { counted(count, "byte") } else { bytes(count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_readable() {
        assert_eq!([0, 1023, 1024, 5 << 30, 1 << 62].map(bytes), ["0 B", "1023 B", "1.0 KiB", "5.0 GiB", "4096.0 PiB"]);
        assert_eq!([0, 1, 1 << 20].map(bytes_in_words), ["0 bytes", "1 byte", "1.0 MiB"]);
        assert_eq!([0, 1, 2].map(|count| counted(count, "item")), ["0 items", "1 item", "2 items"]);
    }
}
