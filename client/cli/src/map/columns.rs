//! `--colsep`: splits an item into columns.

/// The separator between columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Columns {
    /// Any number of spaces and tabs; those at the ends do not count.
    Blanks,
    /// This string, each time.
    At(Vec<u8>),
}

impl Columns {
    /// Parses the option. One space means any number of blanks; `\t` and `\\` are a tab and a backslash; all else is
    /// literal.
    pub(super) fn parse(text: &[u8]) -> Result<Columns, String> {
        if text == b" " {
            return Ok(Columns::Blanks);
        }
        let mut separator = Vec::new();
        let mut rest = text.iter();
        while let Some(&byte) = rest.next() {
            match (byte, byte == b'\\') {
                (_, true) => match rest.next() {
                    Some(b't') => separator.push(b'\t'),
                    Some(b'\\') => separator.push(b'\\'),
                    _ => {
                        return Err(format!(
                            "--colsep '{}': it is a plain string, not a pattern; only \\t and \\\\ are special in it",
                            String::from_utf8_lossy(text)
                        ));
                    }
                },
                (byte, false) => separator.push(byte),
            }
        }
        if separator.is_empty() {
            return Err("--colsep is empty: give the string between columns, as in --colsep ,".to_owned());
        }
        Ok(Columns::At(separator))
    }

    /// Splits an item into one or more columns.
    pub(super) fn cut<'i>(&self, item: &'i [u8]) -> Vec<&'i [u8]> {
        match self {
            Columns::Blanks => {
                let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
                let columns: Vec<&[u8]> = item.split(blank).filter(|column| !column.is_empty()).collect();
                if columns.is_empty() { vec![b""] } else { columns }
            }
            Columns::At(separator) => {
                let mut columns = Vec::new();
                let (mut start, mut at) = (0, 0);
                while at + separator.len() <= item.len() {
                    if item[at..].starts_with(separator) {
                        columns.push(&item[start..at]);
                        at += separator.len();
                        start = at;
                    } else {
                        at += 1;
                    }
                }
                columns.push(&item[start..]);
                columns
            }
        }
    }

    /// Returns a key that identifies the separator.
    pub(super) fn key(&self) -> &[u8] {
        match self {
            Columns::Blanks => b" ",
            Columns::At(separator) => separator,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(separator: &str, item: &str, columns: &[&str]) {
        let cut = Columns::parse(separator.as_bytes()).unwrap();
        let found: Vec<String> =
            cut.cut(item.as_bytes()).iter().map(|column| String::from_utf8_lossy(column).into_owned()).collect();
        assert_eq!(found, columns, "{separator:?}: {item:?}");
    }

    #[test]
    fn a_string_splits_each_time_and_a_space_at_any_blanks() {
        check(",", "a,b,,c,", &["a", "b", "", "c", ""]);
        check(",", "", &[""]);
        check("\\t", "a b\tc", &["a b", "c"]);
        check("\\\\", "a\\b", &["a", "b"]);
        check("::", "a:::b", &["a", ":b"]);
        check(" ", "  a \t b  ", &["a", "b"]);
        check(" ", "  ", &[""]);
        check("|", "a|b", &["a", "b"]);
    }

    #[test]
    fn patterns_are_rejected() {
        assert!(Columns::parse(b"\\s+").unwrap_err().contains("not a pattern"));
        assert!(Columns::parse(b"\\").is_err() && Columns::parse(b"").is_err());
    }
}
