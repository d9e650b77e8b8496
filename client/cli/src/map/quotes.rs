//! The shell's quotes: which of them are open at some place of a command, and how an item is put there so that the shell
//! takes every byte of it as it is.

use super::placeholder::Placeholder;

/// The quotes around a placeholder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Around {
    Nothing,
    Single,
    Double,
}

/// Appends the item as one word, or as part of the word that it stands in.
pub(super) fn insert(item: &[u8], around: Around, command: &mut Vec<u8>) {
    // What means nothing to the shell stays bare, so that $(({} + 1)) is arithmetic.
    if !item.is_empty() && item.iter().all(means_itself) {
        return command.extend_from_slice(item);
    }
    // Quotes that are open are closed for the item: only single quotes take everything as it is.
    let reopen: &[u8] = match around {
        Around::Nothing => b"",
        Around::Single => b"'",
        Around::Double => b"\"",
    };
    command.extend_from_slice(reopen);
    quote(item, command);
    command.extend_from_slice(reopen);
}

/// Appends a word of a command so that the shell takes it as it is; placeholders in it stay placeholders.
pub(super) fn insert_template(word: &[u8], numbered: bool, command: &mut Vec<u8>) {
    let is_first = command.is_empty();
    let mut rest = word;
    while let Some((byte, behind)) = rest.split_first() {
        if let Some((_, length)) = Placeholder::at(rest, numbered) {
            rest = &rest[length..];
        } else if means_itself(byte) || *byte == b'=' && !is_first {
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

fn means_itself(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-./:@%+,".contains(byte)
}

/// Follows a command byte by byte.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// What is open, the innermost last.
    open: Vec<Open>,
    /// The byte before, and whether it was a backslash that takes the next byte's meaning.
    before: u8,
    escaped: bool,
    comment: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Single,
    Double,
    /// `(`, with or without a `$` before it: quotes start afresh in it.
    Parenthesis,
    Backtick,
}

impl Scanner {
    pub(super) fn around(&self) -> Around {
        match self.open.last() {
            Some(Open::Single) => Around::Single,
            Some(Open::Double) => Around::Double,
            Some(Open::Parenthesis | Open::Backtick) | None => Around::Nothing,
        }
    }

    /// Whether the next byte stands behind a backslash.
    pub(super) fn is_escaped(&self) -> bool {
        self.escaped
    }

    /// The quote that nothing closes.
    pub(super) fn open_quote(&self) -> Option<char> {
        self.open.iter().find_map(|open| match open {
            Open::Single => Some('\''),
            Open::Double => Some('"'),
            Open::Backtick => Some('`'),
            Open::Parenthesis => None,
        })
    }

    /// Goes past a placeholder.
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

    /// The quotes around the `@` of a command.
    fn around(command: &str) -> Around {
        let mut scanner = Scanner::default();
        command.bytes().take_while(|byte| *byte != b'@').for_each(|byte| scanner.step(byte));
        scanner.around()
    }

    #[test]
    fn the_innermost_quotes_count() {
        for (command, expected) in [
            ("echo @", Around::Nothing),
            ("echo '@", Around::Single),
            ("echo \"@", Around::Double),
            ("echo 'a' @", Around::Nothing),
            ("echo \"it's @", Around::Double),
            ("echo '\"@", Around::Single),
            (r"echo \'@", Around::Nothing),
            (r"echo '\'@", Around::Nothing),
            (r#"echo "\"@"#, Around::Double),
            ("echo \"$(cat @", Around::Nothing),
            ("echo \"$(cat \"@", Around::Double),
            ("echo \"$(cat '@", Around::Single),
            ("echo \"$(cat) @", Around::Double),
            ("echo \"`cat @", Around::Nothing),
            ("echo \"`cat` @", Around::Double),
            ("(cd '/'; echo @", Around::Nothing),
            ("echo x # don't\necho @", Around::Nothing),
            ("echo x#'@", Around::Single),
        ] {
            assert_eq!(around(command), expected, "{command}");
        }
    }
}
