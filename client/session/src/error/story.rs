use std::fmt::{self, Debug, Display, Formatter};

use farpool_proto::text::{Lines, Printable};

use super::{Context, Error, Remedy};

impl Error {
    /// Returns the whole message: what happened, then what to do next, which is the front's advice or else the remedy's own.
    pub fn story<'e>(&'e self, advice: Option<&'e str>) -> impl Display + use<'e> {
        Story { error: self, advice, names_call: true }
    }

    /// Returns the message for users of a program who did not write it: without the name of the call, and with advice
    /// that names no API.
    pub fn plain(&self) -> impl Display + use<'_> {
        Story { error: self, advice: None, names_call: false }
    }
}

struct Story<'e> {
    error: &'e Error,
    advice: Option<&'e str>,
    names_call: bool,
}

impl Display for Story<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let context = &*self.error.0;
        let call = if self.names_call { (context.verb, &*context.label) } else { ("", "") };
        subject(call, context.item, f)?;
        write!(f, "{}", Lines(&context.message))?;
        origin(context, f)?;
        if let Some(advice) = self.advice.or(context.remedy.map(Remedy::in_words)) {
            write!(f, "; {advice}")?;
        }
        paragraph("the worker's last output on stderr", &context.stderr, f)?;
        paragraph("backtrace", &context.backtrace, f)
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.story(None).fmt(f)
    }
}

// If `main` returns an error, Rust prints it with Debug: print the message there too, not a struct.
impl Debug for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

fn subject((verb, label): (&str, &str), item: Option<u64>, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_str(verb)?;
    if !label.is_empty() {
        write!(f, " {label:?}")?;
    }
    match item {
        Some(item) if verb.is_empty() => write!(f, "item {item}: "),
        Some(item) => write!(f, ", item {item}: "),
        None if verb.is_empty() => Ok(()),
        None => f.write_str(": "),
    }
}

fn origin(context: &Context, f: &mut Formatter<'_>) -> fmt::Result {
    let mut parts = Vec::new();
    if !context.host.is_empty() {
        parts.push(format!("host {}", Printable(&context.host)));
    }
    if context.pid != 0 {
        parts.push(format!("pid {}", context.pid));
    }
    match context.attempts {
        0 => {}
        1 => parts.push("1 attempt".to_owned()),
        more => parts.push(format!("{more} attempts")),
    }
    if parts.is_empty() { Ok(()) } else { write!(f, " ({})", parts.join(", ")) }
}

fn paragraph(title: &str, text: &str, f: &mut Formatter<'_>) -> fmt::Result {
    if text.is_empty() {
        return Ok(());
    }
    write!(f, "\n{title}:")?;
    text.lines().try_for_each(|line| write!(f, "\n    {}", Lines(line)))
}
