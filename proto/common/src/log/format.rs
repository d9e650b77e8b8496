//! Formats lines. Whatever an event contains, it stays one line, and nothing in it acts on a terminal.

use std::fmt::{self, Write};
use std::str::FromStr;

use farpool_proto::text::{Printable, is_plain, json};

use super::line::{Line, Value};
use crate::time::Utc;

/// The most bytes of an event's message and values together. With its keys, a line is shorter than what a ready pipe
/// takes without blocking (PIPE_BUF).
const BYTES: usize = 2000;
/// Marks text that was cut off.
const CUT: &str = "...";

/// The format of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `2026-11-30T12:00:00.123Z INFO agent joined host=node1 slots=4`. A value with a space or a quotation mark is in
    /// quotation marks.
    #[default]
    Text,
    /// One object per line, with `time`, `level`, `event` (the message) and the fields.
    Json,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("a log's format is text or json"),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl Format {
    /// Returns the line, without its end.
    pub(super) fn write(self, time: Option<Utc>, line: &Line) -> String {
        match self {
            Self::Text => text(time, line),
            Self::Json => object(time, line),
        }
    }
}

fn text(time: Option<Utc>, line: &Line) -> String {
    let mut room = BYTES;
    let mut written = time.map_or_else(String::new, |time| format!("{time} "));
    let message = cut(&line.message, &mut room, |c| Printable(c).to_string());
    let _ = write!(written, "{} {message}", line.level);
    for (key, value) in &line.fields {
        let value = match value {
            Value::Text(text) if is_word(text) => cut(text, &mut room, str::to_owned),
            Value::Text(text) => format!("\"{}\"", cut(text, &mut room, |c| Printable(&escaped(c)).to_string())),
            Value::Bare(value) => value.clone(),
        };
        let _ = write!(written, " {key}={value}");
    }
    written
}

fn object(time: Option<Utc>, line: &Line) -> String {
    let mut room = BYTES;
    let mut string = |text: &str| format!("\"{}\"", cut(text, &mut room, |c| json(&escaped(c).replace('\n', "\\n"))));
    let time = time.map_or_else(String::new, |time| format!("\"time\":\"{time}\","));
    let mut written = format!("{{{time}\"level\":\"{}\",\"event\":{}", line.level, string(&line.message));
    for (key, value) in &line.fields {
        let value = match value {
            Value::Text(text) => string(text),
            Value::Bare(value) => value.clone(),
        };
        let _ = write!(written, ",\"{key}\":{value}");
    }
    written + "}"
}

/// Whether a value needs no quotation marks.
fn is_word(text: &str) -> bool {
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\\' | '=');
    !text.is_empty() && !text.contains(ends) && is_plain(text)
}

/// Returns a character as it is written between quotation marks.
fn escaped(c: &str) -> String {
    if matches!(c, "\"" | "\\") { format!("\\{c}") } else { c.to_owned() }
}

/// Returns as much of a text as there is room for, each character formatted by `show`.
fn cut(text: &str, room: &mut usize, show: impl Fn(&str) -> String) -> String {
    let mut shown = String::new();
    let mut bytes = [0; 4];
    for c in text.chars() {
        let next = show(c.encode_utf8(&mut bytes));
        if next.len() > *room {
            *room = 0;
            return shown + CUT;
        }
        *room -= next.len();
        shown += &next;
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing::Level;

    use super::*;

    fn line(message: &str, fields: &[(&'static str, &str)]) -> Line {
        let fields = fields.iter().map(|&(key, value)| (key, Value::Text(value.to_owned())));
        Line { level: Level::WARN, message: message.to_owned(), fields: fields.collect() }
    }

    fn time() -> Option<Utc> {
        Some(Utc::since_1970(Duration::from_millis(1_796_040_000_123)))
    }

    #[test]
    fn events_are_easy_to_read_and_parse() {
        let joined = Line::new(Level::INFO, "agent joined".to_owned())
            .with("host", Value::Text("node1".to_owned()))
            .with("address", Value::Text("127.0.0.1:5000".to_owned()))
            .with("slots", Value::Bare("4".to_owned()));
        assert_eq!(
            Format::Text.write(time(), &joined),
            "2026-11-30T12:00:00.123Z INFO agent joined host=node1 address=127.0.0.1:5000 slots=4"
        );
        assert_eq!(
            Format::Json.write(time(), &joined),
            "{\"time\":\"2026-11-30T12:00:00.123Z\",\"level\":\"INFO\",\"event\":\"agent joined\",\"host\":\"node1\",\
             \"address\":\"127.0.0.1:5000\",\"slots\":4}"
        );
    }

    #[test]
    fn values_are_distinguishable() {
        let check = |value: &str, text: &str, json: &str| {
            let line = line("x", &[("key", value)]);
            assert_eq!(Format::Text.write(None, &line), format!("WARN x key={text}"));
            assert_eq!(
                Format::Json.write(None, &line),
                format!("{{\"level\":\"WARN\",\"event\":\"x\",\"key\":{json}}}")
            );
        };
        check("größer", "größer", "\"größer\"");
        check("", "\"\"", "\"\"");
        check("two words", "\"two words\"", "\"two words\"");
        check("a=b", "\"a=b\"", "\"a=b\"");
        check("say \"hi\"", "\"say \\\"hi\\\"\"", "\"say \\\"hi\\\"\"");
        check("c:\\n", "\"c:\\\\n\"", "\"c:\\\\n\"");
        check("a\nb\tc", "\"a\\nb\\tc\"", "\"a\\nb\\u0009c\"");
        check("\x1b]52;c;aGk=\x07", "\"\\u{1b}]52;c;aGk=\\u{7}\"", "\"\\u001b]52;c;aGk=\\u0007\"");
        check("\u{9b}31m", "\"\\u{9b}31m\"", "\"\\u009b31m\"");
        check("\u{202e}\u{e0041}", "\"\\u{202e}\\u{e0041}\"", "\"\\u202e\\udb40\\udc41\"");
    }

    #[test]
    fn no_value_forges_a_line_or_a_field() {
        let hostile = "x\" slots=99\n2026-11-30T12:00:00.123Z INFO forged\r\x1b[2J\u{2066}\u{2028}";
        let line = line(hostile, &[("host", hostile), ("reason", hostile)]);
        for format in [Format::Text, Format::Json] {
            let written = format.write(time(), &line);
            assert!(is_plain(&written), "{written:?}");
        }
        let text = Format::Text.write(None, &line);
        assert_eq!(text.matches(" host=\"x\\\" slots=99\\n2026").count(), 1, "{text}");
    }

    #[test]
    fn long_values_are_cut_off() {
        for long in ["x".repeat(9000), "\u{e0041}".repeat(9000), "\"".repeat(9000), "\u{1f600} ".repeat(9000)] {
            let line = line(&long, &[("host", &long), ("reason", &long)]);
            for format in [Format::Text, Format::Json] {
                let written = format.write(time(), &line);
                assert!(written.len() < BYTES + 200, "{}", written.len());
                assert!(written.contains(CUT));
                assert_eq!(format == Format::Json, written.ends_with("\"}"));
            }
        }
    }

    #[test]
    fn formats_are_known_by_name() {
        for format in [Format::Text, Format::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert_eq!("xml".parse::<Format>(), Err("a log's format is text or json"));
    }
}
