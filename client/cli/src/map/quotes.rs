//! Shell quoting: tracks which quotes are open in a command, and quotes items so that the shell takes every byte
//! literally.

use super::placeholder::Placeholder;

/// The quotes around a placeholder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quoting {
    Nothing,
    Single,
    Double,
}

/// Appends the item as one word, or as part of the surrounding word.
pub(super) fn insert(item: &[u8], quoting: Quoting, command: &mut Vec<u8>) {
    // Plain characters stay unquoted, so that $(({} + 1)) is arithmetic.
    if !item.is_empty() && item.iter().all(is_plain) {
        return command.extend_from_slice(item);
    }
    // Open quotes are closed around the item: only single quotes take everything literally.
    let reopen: &[u8] = match quoting {
        Quoting::Nothing => b"",
        Quoting::Single => b"'",
        Quoting::Double => b"\"",
    };
    command.extend_from_slice(reopen);
    quote(item, command);
    command.extend_from_slice(reopen);
}

/// Appends a word of a command so that the shell takes it literally; placeholders in it stay placeholders.
pub(super) fn insert_template(word: &[u8], numbered: bool, command: &mut Vec<u8>) {
    let is_first = command.is_empty();
    let mut rest = word;
    while let Some((byte, behind)) = rest.split_first() {
        if let Some((_, length)) = Placeholder::at(rest, numbered) {
            rest = &rest[length..];
        } else if is_plain(byte) || *byte == b'=' && !is_first {
            rest = behind;
        } else {
            break;
        }
    }
    if rest.is_empty() && !word.is_empty() {
        return command.extend_from_slice(word);
    }
    quote(word, command);
}

fn quote(word: &[u8], command: &mut Vec<u8>) {
    command.push(b'\'');
    for &byte in word {
        match byte {
            b'\'' => command.extend_from_slice(br"'\''"),
            byte => command.push(byte),
        }
    }
    command.push(b'\'');
}

fn is_plain(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-./:@%+,".contains(byte)
}

/// Scans a command byte by byte.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// Open quotes and brackets, the innermost last.
    open: Vec<Open>,
    /// The previous byte, and whether it was a backslash that escapes the next one.
    before: u8,
    escaped: bool,
    comment: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Single,
    Double,
    /// `(`, with or without a `$` before it: inside, quoting starts again.
    Parenthesis,
    Backtick,
}

impl Scanner {
    pub(super) fn quoting(&self) -> Quoting {
        match self.open.last() {
            Some(Open::Single) => Quoting::Single,
            Some(Open::Double) => Quoting::Double,
            Some(Open::Parenthesis | Open::Backtick) | None => Quoting::Nothing,
        }
    }

    /// Returns whether the next byte is escaped by a backslash.
    pub(super) fn is_escaped(&self) -> bool {
        self.escaped
    }

    /// Returns the quote that is never closed, if any.
    pub(super) fn open_quote(&self) -> Option<char> {
        self.open.iter().find_map(|open| match open {
            Open::Single => Some('\''),
            Open::Double => Some('"'),
            Open::Backtick => Some('`'),
            Open::Parenthesis => None,
        })
    }

    /// Skips a placeholder.
    pub(super) fn skip(&mut self, placeholder: &[u8]) {
        self.before = placeholder.last().copied().unwrap_or(self.before);
    }

    pub(super) fn step(&mut self, byte: u8) {
        let before = std::mem::replace(&mut self.before, byte);
        if std::mem::take(&mut self.escaped) {
            return;
        }
        if self.comment {
            self.comment = byte != b'\n';
            return;
        }
        let innermost = self.open.last().copied();
        match (innermost, byte) {
            (Some(Open::Single), b'\'') | (Some(Open::Double), b'"') | (Some(Open::Parenthesis), b')') => {
                self.open.pop();
            }
            (Some(Open::Single), _) => {}
            (_, b'\\') => self.escaped = true,
            (_, b'`') => match self.open.iter().rposition(|open| *open == Open::Backtick) {
                Some(at) => self.open.truncate(at),
                None => self.open.push(Open::Backtick),
            },
            (Some(Open::Double), b'(') if before == b'$' => self.open.push(Open::Parenthesis),
            (Some(Open::Double), _) => {}
            (_, b'\'') => self.open.push(Open::Single),
            (_, b'"') => self.open.push(Open::Double),
            (_, b'(') => self.open.push(Open::Parenthesis),
            (_, b'#') => self.comment = matches!(before, 0 | b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' | b'('),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the quotes around the `@` of a command.
    fn quoting(command: &str) -> Quoting {
        let mut scanner = Scanner::default();
        command.bytes().take_while(|byte| *byte != b'@').for_each(|byte| scanner.step(byte));
        scanner.quoting()
    }

    #[test]
    fn the_innermost_quotes_count() {
        for (command, expected) in [
            ("echo @", Quoting::Nothing),
            ("echo '@", Quoting::Single),
            ("echo \"@", Quoting::Double),
            ("echo 'a' @", Quoting::Nothing),
            ("echo \"it's @", Quoting::Double),
            ("echo '\"@", Quoting::Single),
            (r"echo \'@", Quoting::Nothing),
            (r"echo '\'@", Quoting::Nothing),
            (r#"echo "\"@"#, Quoting::Double),
            ("echo \"$(cat @", Quoting::Nothing),
            ("echo \"$(cat \"@", Quoting::Double),
            ("echo \"$(cat '@", Quoting::Single),
            ("echo \"$(cat) @", Quoting::Double),
            ("echo \"`cat @", Quoting::Nothing),
            ("echo \"`cat` @", Quoting::Double),
            ("(cd '/'; echo @", Quoting::Nothing),
            ("echo x # don't\necho @", Quoting::Nothing),
            ("echo x#'@", Quoting::Single),
        ] {
            assert_eq!(quoting(command), expected, "{command}");
        }
    }
}
