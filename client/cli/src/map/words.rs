//! The words after the options: the command, and the sources of items after `:::` and similar marks.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::items::{List, ListValues};

/// The command and the sources.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) command: Vec<Vec<u8>>,
    /// `None`: there is no `:::`. An empty list after `:::` means no items.
    pub(super) lists: Option<Vec<List>>,
}

#[derive(Clone, Copy)]
struct Mark {
    linked: bool,
    files: bool,
}

/// Splits the words into the command and the sources.
///
/// # Errors
/// If the sources are invalid.
pub(super) fn split(words: impl IntoIterator<Item = Vec<u8>>) -> Result<Words, String> {
    let mut words = words.into_iter().peekable();
    let mut command = Vec::new();
    while let Some(word) = words.next_if(|word| mark(word).is_none()) {
        command.push(word);
    }
    let mut lists: Option<Vec<List>> = None;
    while let Some((word, mark)) = words.next().and_then(|word| mark(&word).map(|mark| (word, mark))) {
        let mark_name = String::from_utf8_lossy(&word).into_owned();
        let mut values = Vec::new();
        while let Some(value) = words.next_if(|word| self::mark(word).is_none()) {
            values.push(value);
        }
        let lists = lists.get_or_insert_default();
        if mark.linked && lists.is_empty() {
            return Err(format!("{mark_name} links items with those of a source before it, but there is none"));
        }
        if !mark.files {
            lists.push(List { values: ListValues::Given(values), linked: mark.linked });
            continue;
        }
        if values.is_empty() {
            return Err(format!("{mark_name} names no file to read items from"));
        }
        // Each file is a source of its own.
        let file = |path: Vec<u8>| ListValues::File(PathBuf::from(OsStr::from_bytes(&path)));
        lists.extend(values.into_iter().map(|path| List { values: file(path), linked: mark.linked }));
    }
    let is_stdin = |list: &&List| list.values == ListValues::File(PathBuf::from("-"));
    if lists.iter().flatten().filter(is_stdin).count() > 1 {
        return Err("stdin (-) can be a source of items only once".to_owned());
    }
    Ok(Words { command, lists })
}

fn mark(word: &[u8]) -> Option<Mark> {
    match word {
        b":::" => Some(Mark { linked: false, files: false }),
        b":::+" => Some(Mark { linked: true, files: false }),
        b"::::" => Some(Mark { linked: false, files: true }),
        b"::::+" => Some(Mark { linked: true, files: true }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(line: &str) -> Result<Words, String> {
        split(line.split_ascii_whitespace().map(|word| word.as_bytes().to_vec()))
    }

    fn given(values: &str, linked: bool) -> List {
        List {
            values: ListValues::Given(values.split_terminator(' ').map(|value| value.as_bytes().to_vec()).collect()),
            linked,
        }
    }

    fn file(path: &str, linked: bool) -> List {
        List { values: ListValues::File(path.into()), linked }
    }

    #[track_caller]
    fn check(line: &str, command: &str, lists: Option<Vec<List>>) {
        let List { values: ListValues::Given(command), .. } = given(command, false) else { unreachable!() };
        assert_eq!(sorted(line), Ok(Words { command, lists }), "{line}");
    }

    #[test]
    fn the_command_is_before_the_sources() {
        check("gzip -9", "gzip -9", None);
        check("gzip -9 ::: a b", "gzip -9", Some(vec![given("a b", false)]));
        check("x ::: a ::: b :::+ c d", "x", Some(vec![given("a", false), given("b", false), given("c d", true)]));
        check("x :::: f g ::::+ -", "x", Some(vec![file("f", false), file("g", false), file("-", true)]));
        check("x ::: -a --b :::::", "x", Some(vec![given("-a --b :::::", false)]));
        check("x :::", "x", Some(vec![given("", false)]));
        check("::: a", "", Some(vec![given("a", false)]));
        check("", "", None);
    }

    #[test]
    fn invalid_sources_are_rejected() {
        for (line, part) in [("x :::+ a", "there is none"), ("x ::::", "no file"), ("x :::: - -", "only once")] {
            assert!(sorted(line).unwrap_err().contains(part), "{line}");
        }
    }
}
