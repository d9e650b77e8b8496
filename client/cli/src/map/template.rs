//! The command with its placeholders, and how items get into it.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::quotes::{self, Around, Scanner};

/// A command for `sh -c` with places for the item.
#[derive(Clone, Debug)]
pub(super) struct Template {
    parts: Vec<Part>,
    text: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(Vec<u8>),
    Place(Placeholder, Around),
}

/// What of the item is put in; the names are GNU parallel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placeholder {
    Item,
    WithoutExtension,
    FileName,
    Folder,
    FileNameWithoutExtension,
    Number,
}

const PLACEHOLDERS: [(&[u8], Placeholder); 6] = [
    (b"{}", Placeholder::Item),
    (b"{.}", Placeholder::WithoutExtension),
    (b"{/}", Placeholder::FileName),
    (b"{//}", Placeholder::Folder),
    (b"{/.}", Placeholder::FileNameWithoutExtension),
    (b"{#}", Placeholder::Number),
];

/// Why a command cannot be one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TemplateError {
    Empty,
    OpenQuote(char),
}

impl Template {
    pub(super) fn parse(text: &[u8]) -> Result<Template, TemplateError> {
        if text.trim_ascii().is_empty() {
            return Err(TemplateError::Empty);
        }
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        let mut scanner = Scanner::default();
        let mut rest = text;
        while let Some(&byte) = rest.first() {
            let place = PLACEHOLDERS.iter().find(|(name, _)| rest.starts_with(name) && !scanner.is_escaped());
            if let Some((name, placeholder)) = place {
                parts.push(Part::Text(std::mem::take(&mut plain)));
                parts.push(Part::Place(*placeholder, scanner.around()));
                scanner.skip(name);
                rest = &rest[name.len()..];
            } else {
                plain.push(byte);
                scanner.step(byte);
                rest = &rest[1..];
            }
        }
        if let Some(quote) = scanner.open_quote() {
            return Err(TemplateError::OpenQuote(quote));
        }
        if parts.is_empty() {
            plain.push(b' ');
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(Part::Place(Placeholder::Item, Around::Nothing));
        }
        parts.push(Part::Text(plain));
        Ok(Template { parts, text: text.to_vec() })
    }

    /// The command as it was given.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The command for one item. Numbers start at 1.
    pub(super) fn render(&self, item: &[u8], number: u64) -> Vec<u8> {
        let mut command = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => command.extend_from_slice(text),
                Part::Place(Placeholder::Number, _) => command.extend_from_slice(number.to_string().as_bytes()),
                Part::Place(placeholder, around) => quotes::insert(&placeholder.of(item), *around, &mut command),
            }
        }
        command
    }
}

impl Placeholder {
    fn of(self, item: &[u8]) -> Vec<u8> {
        let path = Path::new(OsStr::from_bytes(item));
        let taken = match self {
            Self::Item | Self::Number => None,
            Self::WithoutExtension => path.extension().map(|extension| &item[..item.len() - extension.len() - 1]),
            Self::FileName => path.file_name().map(OsStr::as_bytes),
            Self::FileNameWithoutExtension => path.file_stem().map(OsStr::as_bytes),
            Self::Folder => Some(match path.parent().map(|folder| folder.as_os_str().as_bytes()) {
                Some(b"") => b".",
                Some(folder) => folder,
                // The root, or nothing at all.
                None if item.is_empty() => b".",
                None => item,
            }),
        };
        taken.unwrap_or(item).to_vec()
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("--program is empty: give a command, as in --program 'gzip {}'"),
            Self::OpenQuote(quote) => write!(f, "--program has a {quote} that is never closed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(program: &str, item: &str, command: &str) {
        let template = Template::parse(program.as_bytes()).unwrap();
        assert_eq!(String::from_utf8_lossy(&template.render(item.as_bytes(), 7)), command);
    }

    #[test]
    fn every_placeholder_takes_its_part() {
        check("do {} {.} {/} {//} {/.} {#}", "a/b.tar.gz", "do a/b.tar.gz a/b.tar b.tar.gz a b.tar 7");
        check("do {.} {/} {//} {/.}", "plain", "do plain plain . plain");
        check("do {.} {/} {//} {/.}", "/top.c", "do /top top.c / top");
        check("do {.} {/} {//} {/.}", "v1.2/README", "do v1.2/README README v1.2 README");
        check("do {.} {/.}", ".bashrc", "do .bashrc .bashrc");
        check("do {} {.} {/} {//} {/.}", "", "do '' '' '' . ''");
        check("do {/} {//}", "/", "do / /");
        check("do {/} {//}", "..", "do .. .");
        check("do $(({} + 1))", "41", "do $((41 + 1))");
    }

    #[test]
    fn without_a_placeholder_the_item_is_appended() {
        check("gzip -9", "a b", "gzip -9 'a b'");
        check("echo {", "x", "echo { x");
        // A number is a placeholder too.
        check("echo {#}", "x", "echo 7");
        check("{}", "ls -l", "'ls -l'");
    }

    #[test]
    fn a_backslash_keeps_braces_as_they_are() {
        check(r"echo \{} {}", "x", r"echo \{} x");
        check(r"echo \\{}", "x", r"echo \\x");
    }

    #[test]
    fn no_item_gets_out_of_its_quotes() {
        check(
            "echo {}",
            "it's; rm -rf $(x) `y` \"z\"\n-n",
            r#"echo 'it'\''s; rm -rf $(x) `y` "z"
-n'"#,
        );
        check("echo '<{}>'", "it's", r"echo '<''it'\''s''>'");
        check("echo \"<{}>\"", "$HOME", "echo \"<\"'$HOME'\">\"");
        check("echo \"$(cat {})\"", "a b", "echo \"$(cat 'a b')\"");
    }

    #[test]
    fn what_cannot_be_a_command_is_refused() {
        assert_eq!(Template::parse(b" ").unwrap_err(), TemplateError::Empty);
        assert_eq!(Template::parse(b"echo 'x").unwrap_err(), TemplateError::OpenQuote('\''));
        assert_eq!(Template::parse(b"echo \"x'").unwrap_err(), TemplateError::OpenQuote('"'));
    }
}
