//! Values of the file become the defaults of their flags.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

/// Flags that work only on the command line.
pub(super) const NOT_IN_FILES: [&str; 4] = ["config", "help", "print-config", "version"];

/// Values from a file.
#[derive(Debug)]
pub(super) struct FromFile {
    pub(super) path: PathBuf,
    pub(super) keys: Vec<String>,
}

pub(super) fn apply(mut command: Command, path: PathBuf) -> Result<(Command, FromFile), clap::Error> {
    let wrong = |command: &mut Command, text: String| {
        command.error(ErrorKind::ValueValidation, format!("{}: {text}", path.display()))
    };
    let text = std::fs::read_to_string(&path).map_err(|error| wrong(&mut command, error.to_string()))?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| wrong(&mut command, error_text(&error, &text)))?;
    let mut set = Vec::new();
    for (key, value) in table {
        let defaults = match arg(&command, &key) {
            Some(arg) => defaults(arg, &value).and_then(|defaults| check(arg, &defaults).map(|()| defaults)),
            None => Err(format!("no such setting; the settings are {}", keys(&command))),
        };
        let defaults = defaults.map_err(|text| wrong(&mut command, format!("`{key}`: {text}")))?;
        let id = arg(&command, &key).expect("the setting was just found").get_id().clone();
        command = command.mut_arg(id, |arg| with_defaults(arg, defaults));
        set.push(key);
    }
    Ok((command, FromFile { path, keys: set }))
}

fn with_defaults(arg: Arg, defaults: Vec<String>) -> Arg {
    // An empty list is the same as no list, except that the flag is not required then.
    let arg = arg.required(false);
    if defaults.is_empty() { arg } else { arg.default_values(defaults.into_iter().map(clap::builder::OsStr::from)) }
}

fn arg<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(key)).filter(|_| !NOT_IN_FILES.contains(&key))
}

fn keys(command: &Command) -> String {
    let mut keys: Vec<_> = command.get_arguments().filter_map(Arg::get_long).collect();
    keys.retain(|key| !NOT_IN_FILES.contains(key));
    keys.sort_unstable();
    keys.join(", ")
}

/// Returns what would have been written after the flag.
fn defaults(arg: &Arg, value: &Value) -> Result<Vec<String>, String> {
    let wrong = |allowed: &str| Err(format!("expected {allowed}, not {}", kind(value)));
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, Value::Boolean(on)) => Ok(vec![on.to_string()]),
        (ArgAction::SetTrue, _) => wrong("true or false"),
        (ArgAction::Append, Value::Array(values)) => values.iter().map(scalar).collect(),
        (ArgAction::Append, _) => scalar(value).map(|value| vec![value]).or_else(|_| wrong("an array of strings")),
        _ => scalar(value).map(|value| vec![value]),
    }
}

fn scalar(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        _ => Err(format!("expected a string or a number, not {}", kind(value))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Boolean(_) => "a boolean",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "an array",
        Value::Table(_) => "a table",
    }
}

/// Has clap check the values as if they followed their flag, so that errors have its texts.
fn check(arg: &Arg, values: &[String]) -> Result<(), String> {
    if !arg.get_action().takes_values() {
        return Ok(());
    }
    let flag = format!("--{}", arg.get_long().expect("settings have long flags"));
    let args = values.iter().map(|value| OsString::from(format!("{flag}={value}")));
    let alone = Command::new("check").no_binary_name(true).disable_help_flag(true).arg(arg.clone());
    alone.try_get_matches_from(args).map(drop).map_err(|error| {
        let text = error.to_string();
        let first = text.split("\n\n").next().unwrap_or_default();
        first.trim_start_matches("error: ").trim_end().to_owned()
    })
}

fn error_text(error: &toml::de::Error, text: &str) -> String {
    let at = error.span().map_or(0, |span| span.start);
    let line = 1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count();
    format!("line {line}: {}", error.message())
}
