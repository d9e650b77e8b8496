//! The command template: parses placeholders and fills in items.

use std::fmt;

use super::command::CommandLine;
use super::placeholder::{Placeholder, ValuePart};
use super::quotes::{self, Quoting, Scanner};

/// A command with placeholders for the item.
#[derive(Clone, Debug)]
pub(super) struct Template {
    form: Form,
    /// The command as a line for the shell.
    text: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Form {
    /// For `sh -c`.
    Line(Vec<Part>),
    /// A program and its arguments.
    Words(Vec<Vec<Part>>),
}

#[derive(Clone, Debug)]
enum Part {
    Text(Vec<u8>),
    Placeholder(Placeholder, Quoting),
}

/// The rules for placeholders.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Whether positions such as {2} are placeholders.
    pub(super) numbered: bool,
    /// The highest position; `None`: items may have any number of values.
    pub(super) positions: Option<usize>,
    /// Whether the item is appended if there is no placeholder.
    pub(super) append: bool,
}

/// Why a command is invalid.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TemplateError {
    Empty,
    OpenQuote(char),
    /// A position, and the number of positions.
    NoSuchPosition(usize, usize),
}

impl Template {
    /// Parses a line for the shell.
    pub(super) fn line(text: &[u8], rules: Rules) -> Result<Template, TemplateError> {
        if text.trim_ascii().is_empty() {
            return Err(TemplateError::Empty);
        }
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        let mut scanner = Scanner::default();
        let mut rest = text;
        while let Some(&byte) = rest.first() {
            let place = Placeholder::at(rest, rules.numbered).filter(|_| !scanner.is_escaped());
            if let Some((placeholder, length)) = place {
                rules.check(placeholder)?;
                parts.push(Part::Text(std::mem::take(&mut plain)));
                parts.push(Part::Placeholder(placeholder, scanner.quoting()));
                scanner.skip(&rest[..length]);
                rest = &rest[length..];
            } else {
                plain.push(byte);
                scanner.step(byte);
                rest = &rest[1..];
            }
        }
        if let Some(quote) = scanner.open_quote() {
            return Err(TemplateError::OpenQuote(quote));
        }
        if parts.is_empty() && rules.append {
            plain.push(b' ');
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(Part::Placeholder(Placeholder::ALL, Quoting::Nothing));
        }
        parts.push(Part::Text(plain));
        Ok(Template { form: Form::Line(parts), text: text.to_vec() })
    }

    /// Parses a program and its arguments, which run without a shell.
    pub(super) fn words(words: &[Vec<u8>], rules: Rules) -> Result<Template, TemplateError> {
        if words.first().is_none_or(|program| program.trim_ascii().is_empty()) {
            return Err(TemplateError::Empty);
        }
        let mut parsed = words.iter().map(|word| parse_word(word, rules)).collect::<Result<Vec<_>, _>>()?;
        let has_placeholders = parsed.iter().flatten().any(|part| matches!(part, Part::Placeholder(..)));
        if !has_placeholders && rules.append {
            parsed.push(vec![Part::Placeholder(Placeholder::ALL, Quoting::Nothing)]);
        }
        let mut text = Vec::new();
        for (at, word) in words.iter().enumerate() {
            if at > 0 {
                text.push(b' ');
            }
            quotes::insert_template(word, rules.numbered, &mut text);
        }
        Ok(Template { form: Form::Words(parsed), text })
    }

    /// Returns the command as it was given; words as one would type them.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Returns the command for an item with these values. Numbers start at 1.
    pub(super) fn render(&self, values: &[&[u8]], number: u64) -> CommandLine {
        match &self.form {
            Form::Line(parts) => CommandLine::Shell(render_line(parts, values, number)),
            Form::Words(words) => {
                let mut rendered = Vec::with_capacity(words.len() + values.len());
                for word in words {
                    match &word[..] {
                        // A placeholder that is a whole word becomes one word per value.
                        [Part::Placeholder(Placeholder::Value(None, take), _)] => {
                            rendered.extend(values.iter().map(|value| take.of(value).to_vec()));
                        }
                        parts => rendered.push(render_word(parts, values, number)),
                    }
                }
                CommandLine::Words(rendered)
            }
        }
    }
}

impl Rules {
    fn check(self, placeholder: Placeholder) -> Result<(), TemplateError> {
        match (placeholder, self.positions) {
            (Placeholder::Value(Some(position), _), Some(most)) if position > most => {
                Err(TemplateError::NoSuchPosition(position, most))
            }
            _ => Ok(()),
        }
    }
}

/// Parses a word. Only a backslash before a placeholder is special: it makes the placeholder literal.
fn parse_word(word: &[u8], rules: Rules) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    let mut plain = Vec::new();
    let mut rest = word;
    while let Some((&byte, behind)) = rest.split_first() {
        if let Some((placeholder, length)) = Placeholder::at(rest, rules.numbered) {
            rules.check(placeholder)?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Placeholder(placeholder, Quoting::Nothing));
            rest = &rest[length..];
        } else if byte == b'\\'
            && let Some((_, length)) = Placeholder::at(behind, rules.numbered)
        {
            plain.extend_from_slice(&behind[..length]);
            rest = &behind[length..];
        } else {
            plain.push(byte);
            rest = behind;
        }
    }
    if !plain.is_empty() || parts.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(parts)
}

fn render_line(parts: &[Part], values: &[&[u8]], number: u64) -> Vec<u8> {
    let mut command = Vec::new();
    for part in parts {
        match part {
            Part::Text(text) => command.extend_from_slice(text),
            Part::Placeholder(Placeholder::Number, _) => command.extend_from_slice(number.to_string().as_bytes()),
            Part::Placeholder(Placeholder::Value(None, take), Quoting::Nothing) => {
                for (at, value) in values.iter().enumerate() {
                    if at > 0 {
                        command.push(b' ');
                    }
                    quotes::insert(take.of(value), Quoting::Nothing, &mut command);
                }
            }
            Part::Placeholder(Placeholder::Value(position, take), quoting) => {
                quotes::insert(&taken(*position, *take, values), *quoting, &mut command);
            }
        }
    }
    command
}

fn render_word(parts: &[Part], values: &[&[u8]], number: u64) -> Vec<u8> {
    let mut word = Vec::new();
    for part in parts {
        match part {
            Part::Text(text) => word.extend_from_slice(text),
            Part::Placeholder(Placeholder::Number, _) => word.extend_from_slice(number.to_string().as_bytes()),
            Part::Placeholder(Placeholder::Value(position, take), _) => word.extend(taken(*position, *take, values)),
        }
    }
    word
}

/// Returns the value at a position, empty if there is none; or all values, joined by spaces.
fn taken(position: Option<usize>, take: ValuePart, values: &[&[u8]]) -> Vec<u8> {
    match position {
        Some(position) => values.get(position - 1).map_or(&[][..], |value| take.of(value)).to_vec(),
        None => values.iter().map(|value| take.of(value)).collect::<Vec<_>>().join(&b' '),
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the command is empty: give one, as in `farpool map gzip -9 ::: *.log`"),
            Self::OpenQuote(quote) => write!(f, "the command has a {quote} that is never closed"),
            Self::NoSuchPosition(position, 1) => write!(
                f,
                "the command has {{{position}}}, but items have one value: further ones come from more sources (:::), \
                 --colsep or -n; for the text itself, write \\{{{position}}}"
            ),
            Self::NoSuchPosition(position, most) => {
                write!(
                    f,
                    "the command has {{{position}}}, but items have {most} values; for the text itself, write \\{{{position}}}"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(program: &str, item: &str, command: &str) {
        check_values(program, &[item], command);
    }

    const RULES: Rules = Rules { numbered: true, positions: Some(3), append: true };

    #[track_caller]
    fn check_values(program: &str, values: &[&str], command: &str) {
        let template = Template::line(program.as_bytes(), RULES).unwrap();
        let values: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
        assert_eq!(String::from_utf8_lossy(&template.render(&values, 7).shown()), command);
    }

    #[track_caller]
    fn check_words(words: &[&str], values: &[&str], text: &str, expected: &[&str]) {
        let bytes: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let template = Template::words(&bytes, RULES).unwrap();
        assert_eq!(String::from_utf8_lossy(template.text()), text);
        let values: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
        let expected = expected.iter().map(|word| word.as_bytes().to_vec()).collect();
        assert_eq!(template.render(&values, 7), CommandLine::Words(expected));
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
    fn a_backslash_makes_braces_literal() {
        check(r"echo \{} {}", "x", r"echo \{} x");
        check(r"echo \\{}", "x", r"echo \\x");
    }

    #[test]
    fn no_item_escapes_its_quotes() {
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
    fn invalid_commands_are_rejected() {
        let error = |text: &[u8]| Template::line(text, RULES).unwrap_err();
        assert_eq!(error(b" "), TemplateError::Empty);
        assert_eq!(error(b"echo 'x"), TemplateError::OpenQuote('\''));
        assert_eq!(error(b"echo \"x'"), TemplateError::OpenQuote('"'));
        assert_eq!(error(b"echo {4/}"), TemplateError::NoSuchPosition(4, 3));
        for words in [&[][..], &[Vec::new()], &[b" ".to_vec(), b"x".to_vec()]] {
            assert_eq!(Template::words(words, RULES).unwrap_err(), TemplateError::Empty);
        }
    }

    #[test]
    fn values_have_positions() {
        check_values("join {2/} {1.} {3}", &["a.x", "b/c"], "join c a ''");
        check_values("join {} '{}' {/}", &["a", "b c/d"], "join a 'b c/d' '''a b c/d''' a d");
        check_values("join", &["a", "b c"], "join a 'b c'");
        let rules = Rules { numbered: false, ..RULES };
        let template = Template::line(b"awk '{1}'", rules).unwrap();
        assert_eq!(template.render(&[b"x"], 7), CommandLine::Shell(b"awk '{1}' x".to_vec()));
    }

    #[test]
    fn words_stay_words() {
        check_words(&["gzip", "-9"], &["a b"], "gzip -9", &["gzip", "-9", "a b"]);
        check_words(&["mv", "{}", "old/{/}"], &["x/$(y) z"], "mv {} old/{/}", &["mv", "x/$(y) z", "old/$(y) z"]);
        check_words(
            &["echo", "it's {} | wc", "*"],
            &["x"],
            "echo 'it'\\''s {} | wc' '*'",
            &["echo", "it's x | wc", "*"],
        );
        check_words(
            &["echo", "{}", "<{}>", ""],
            &["a", "b c"],
            "echo {} '<{}>' ''",
            &["echo", "a", "b c", "<a b c>", ""],
        );
        check_words(&["a=b", "--c=d"], &["x"], "'a=b' --c=d", &["a=b", "--c=d", "x"]);
        check_words(
            &["find", "\\{}", "\\\\{}", "\\n{#}"],
            &["x"],
            "find '\\{}' '\\\\{}' '\\n{#}'",
            &["find", "{}", "\\{}", "\\n7"],
        );
        check_words(&["{}"], &["ls -l"], "{}", &["ls -l"]);
    }
}
