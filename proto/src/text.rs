//! Makes foreign text safe to print. Text from peers reaches a terminal or a log only through this module.
//!
//! Text can control a terminal: escape sequences move the cursor, retitle the window or fill the clipboard, a carriage
//! return overwrites what was shown before, and Unicode's bidirectional controls change the order in which a line is
//! shown. This module escapes such characters, as in `\u{1b}`.

use std::fmt::{self, Write};

/// The reset at the end of a line that was coloured.
const RESET: &[u8] = b"\x1b[0m";
/// The longest colour sequence that is kept, in bytes between `ESC [` and `m`.
const COLOUR_BYTES: usize = 32;

/// Returns whether a character controls the terminal instead of being shown.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Returns whether a text contains only characters that are shown.
pub fn is_plain(text: &str) -> bool {
    !text.chars().any(is_control)
}

/// Fewest digits of an id that are shown.
pub const MIN_ID_DIGITS: usize = 8;

/// Returns how many digits of these ids have to be shown to tell them apart, at least [`MIN_ID_DIGITS`].
pub fn digits_that_differ<'a>(ids: impl Iterator<Item = &'a str>) -> usize {
    let mut ids: Vec<&str> = ids.collect();
    ids.sort_unstable();
    let in_common =
        |pair: &[&str]| pair[0].chars().zip(pair[1].chars()).take_while(|(one, other)| one == other).count();
    ids.windows(2).map(|pair| in_common(pair) + 1).max().unwrap_or(0).max(MIN_ID_DIGITS)
}

/// A text on one line.
#[derive(Clone, Copy, Debug)]
pub struct Printable<'t>(pub &'t str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .try_for_each(|c| if is_control(c) { write!(f, "{}", c.escape_default()) } else { f.write_char(c) })
    }
}

/// A text on one line; invalid UTF-8 becomes `\u{fffd}`.
pub fn printable(text: &[u8]) -> String {
    Printable(&String::from_utf8_lossy(text)).to_string()
}

/// A text that may have several lines, and tabs. Colours are left out.
#[derive(Clone, Copy, Debug)]
pub struct Lines<'t>(pub &'t str);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(c) = rest.chars().next() {
            let mut length = c.len_utf8();
            match c {
                '\n' | '\t' => f.write_char(c)?,
                '\r' if rest.starts_with("\r\n") => {}
                '\x1b' if colour(rest).is_some() => length = colour(rest).unwrap_or(length),
                c if is_control(c) => write!(f, "{}", c.escape_default())?,
                c => f.write_char(c)?,
            }
            rest = &rest[length..];
        }
        Ok(())
    }
}

/// Escapes characters that control the terminal in a JSON text, without changing its meaning. JSON itself escapes only
/// ASCII control characters.
pub fn json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_control(c) && c != '\n' {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Formats a worker's output for a terminal: each line follows the label, and no output can move, change or forge a
/// label. Colours stay, up to the end of their line. After a carriage return the line starts again with its label, so
/// progress bars look right.
pub fn labelled(label: &str, output: &[u8]) -> Vec<u8> {
    let label = Printable(label).to_string();
    let mut shown = Vec::with_capacity(output.len() + 4 * label.len());
    for line in output.split_inclusive(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        for (at, part) in line.split(|&byte| byte == b'\r').enumerate() {
            if at > 0 {
                shown.extend_from_slice(b"\r\x1b[K");
            }
            shown.extend_from_slice(label.as_bytes());
            show_part(part, &mut shown);
        }
        shown.push(b'\n');
    }
    shown
}

fn show_part(part: &[u8], shown: &mut Vec<u8>) {
    let mut coloured = false;
    for chunk in part.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(c) = rest.chars().next() {
            let mut length = c.len_utf8();
            match colour(rest).filter(|_| c == '\x1b') {
                Some(sequence) => {
                    (length, coloured) = (sequence, true);
                    shown.extend_from_slice(&rest.as_bytes()[..sequence]);
                }
                None if is_control(c) && c != '\t' => {
                    shown.extend_from_slice(c.escape_default().to_string().as_bytes());
                }
                None => shown.extend_from_slice(&rest.as_bytes()[..length]),
            }
            rest = &rest[length..];
        }
        if !chunk.invalid().is_empty() {
            shown.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    if coloured {
        shown.extend_from_slice(RESET);
    }
}

/// Returns the length of the sequence at the start of the text, if it only sets colours and other styles: `ESC [ ...
/// m`.
fn colour(text: &str) -> Option<usize> {
    let rest = text.strip_prefix("\x1b[")?;
    let parameters = rest.bytes().take_while(|byte| matches!(byte, b'0'..=b'9' | b';' | b':')).count();
    let ends = rest.as_bytes().get(parameters) == Some(&b'm');
    (ends && parameters <= COLOUR_BYTES).then_some(text.len() - rest.len() + parameters + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sequences that set the clipboard, move the cursor, reverse a line, or hide text.
    const CONTROLS: [&str; 12] = [
        "\x1b]52;c;aGk=\x07",
        "\x1b[2J",
        "\x1b[1A",
        "\r",
        "\u{8}",
        "\u{9b}31m",
        "\u{202e}",
        "\u{2066}",
        "\u{200b}",
        "\u{feff}",
        "\u{2028}",
        "\u{e0041}",
    ];

    #[test]
    fn terminal_controls_are_escaped() {
        for control in CONTROLS {
            let text = format!("before{control}after");
            assert!(!is_plain(&text), "{text:?}");
            assert!(is_plain(&printable(text.as_bytes())), "{text:?}");
            let lines = Lines(&text).to_string();
            assert!(is_plain(&lines) && lines.starts_with("before") && lines.ends_with("after"), "{lines:?}");
            let escaped = json(&text);
            assert!(is_plain(&escaped) && escaped.starts_with("before\\u"), "{escaped:?}");
        }
        for plain in ["größer 大 👩‍👩‍👧 नमस्ते العربية", ""] {
            assert!(is_plain(plain));
            assert_eq!((printable(plain.as_bytes()), json(plain)), (plain.to_owned(), plain.to_owned()));
        }
        assert_eq!(printable(b"a\nb\tc\xff\x9b"), "a\\nb\\tc\u{fffd}\u{fffd}");
    }

    #[test]
    fn lines_stay_lines_without_colours() {
        let check = |text: &str, expected: &str| assert_eq!(Lines(text).to_string(), expected);
        check("one\r\ntwo\n\tthree", "one\ntwo\n\tthree");
        check("\x1b[1;31mred\x1b[0m", "red");
        check("\x1b[31", "\\u{1b}[31");
        check("a\rb", "a\\rb");
    }

    #[test]
    fn json_stays_the_same_json() {
        assert_eq!(
            json("{\n  \"a\": \"\u{202e}\u{e0041}\u{85}\"\n}"),
            "{\n  \"a\": \"\\u202e\\udb40\\udc41\\u0085\"\n}"
        );
    }

    #[test]
    fn each_line_of_output_follows_its_label() {
        let check = |output: &[u8], expected: &str| {
            assert_eq!(String::from_utf8(labelled("[n 1] ", output)).expect("the text is valid UTF-8"), expected);
        };
        check(b"one\ntwo\r\n", "[n 1] one\n[n 1] two\n");
        check(b"\n\nhalf", "[n 1] \n[n 1] \n[n 1] half\n");
        check(b"", "");
        check(b"a\tb \xff\xfe", "[n 1] a\tb \u{fffd}\u{fffd}\n");
        check(b"\x1b[31mred\nplain", "[n 1] \x1b[31mred\x1b[0m\n[n 1] plain\n");
        // A forged line starts with the label of the worker that forged it.
        check(b"10%\r[node1 1] ok", "[n 1] 10%\r\x1b[K[n 1] [node1 1] ok\n");
        check(b"\x1b]52;c;aGk=\x07", "[n 1] \\u{1b}]52;c;aGk=\\u{7}\n");
        check("\u{202e}abc\u{9b}2J\u{8}".as_bytes(), "[n 1] \\u{202e}abc\\u{9b}2J\\u{8}\n");
        let long = format!("\x1b[{}m", "1;".repeat(100));
        check(long.as_bytes(), &format!("[n 1] \\u{{1b}}[{}m\n", "1;".repeat(100)));
        assert_eq!(labelled("\x1b[2J", b"x"), b"\\u{1b}[2Jx\n");
    }

    #[test]
    fn ids_are_shortened_to_unique_digits() {
        let shown = |ids: &[&str]| digits_that_differ(ids.iter().copied());
        assert_eq!(shown(&["0193f2a4-aaaa", "0193f2a5-bbbb"]), 8);
        assert_eq!(shown(&["0193f2a4-aaaa", "0293f2a5-bbbb", "0193f2a4-aabb"]), 12);
        assert_eq!(shown(&["0193f2a4-aaaa"]), 8);
        assert_eq!(shown(&["a1b2"]), 8);
        assert_eq!(shown(&[]), 8);
    }
}
