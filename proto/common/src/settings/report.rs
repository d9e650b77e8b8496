//! The output of `--print-config`: every setting, its value, and its source.

use std::fmt;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use farpool_proto::text::{Printable, is_plain};

use super::file::{FromFile, NOT_IN_FILES};

/// The settings of a program, one by one. They are shown as a file that `--config` accepts.
#[derive(Debug)]
pub struct SettingsReport {
    print_requested: bool,
    settings: Vec<Setting>,
}

#[derive(Debug)]
struct Setting {
    key: String,
    value: Value,
    source: Source,
}

#[derive(Debug)]
enum Value {
    /// The value as a file of settings has it.
    Toml(String),
    /// Not given: a note on what that means.
    None(String),
}

#[derive(Debug, PartialEq, Eq)]
enum Source {
    Flag,
    Variable(String),
    File(String),
    Default,
}

impl SettingsReport {
    pub(super) fn new(command: &Command, matches: &ArgMatches, file: Option<&FromFile>, print_requested: bool) -> Self {
        let is_setting = |arg: &&Arg| arg.get_long().is_some_and(|key| !NOT_IN_FILES.contains(&key));
        let settings = command.get_arguments().filter(is_setting).map(|arg| {
            let key = arg.get_long().unwrap_or_default().to_owned();
            Setting { value: value(arg, matches), source: source(arg, &key, matches, file), key }
        });
        Self { print_requested, settings: settings.collect() }
    }

    /// Whether the settings are to be shown instead of running the program.
    pub fn print_requested(&self) -> bool {
        self.print_requested
    }

    /// Shows this value of a setting: the one that the program uses, derived from what was given, if anything.
    #[must_use]
    pub fn with(self, key: &str, value: impl fmt::Display) -> Self {
        let value = Value::Toml(scalar(&value.to_string()));
        self.change(key, |setting| setting.value = value)
    }

    /// Adds a note on what it means that this setting was not given; nothing if it was.
    #[must_use]
    pub fn with_note(self, key: &str, note: impl Into<String>) -> Self {
        self.change(key, |setting| {
            if matches!(setting.value, Value::None(_)) {
                setting.value = Value::None(note.into());
            }
        })
    }

    fn change(mut self, key: &str, change: impl FnOnce(&mut Setting)) -> Self {
        let setting = self.settings.iter_mut().find(|setting| setting.key == key);
        change(setting.expect("the key is one of the program's settings"));
        self
    }
}

impl fmt::Display for SettingsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.iter().try_for_each(|Setting { key, value, source }| match value {
            Value::Toml(value) => writeln!(f, "{key} = {value} # {source}"),
            Value::None(note) => writeln!(f, "# {key}: {} # {source}", Printable(note)),
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::File(path) => write!(f, "file {}", Printable(path)),
            Self::Default => f.write_str("default"),
        }
    }
}

fn source(arg: &Arg, key: &str, matches: &ArgMatches, file: Option<&FromFile>) -> Source {
    let variable = || arg.get_env().map(|name| name.to_string_lossy().into_owned());
    let in_file = || file.filter(|file| file.keys.iter().any(|other| other == key));
    match matches.value_source(arg.get_id().as_str()) {
        Some(ValueSource::CommandLine) => Source::Flag,
        Some(ValueSource::EnvVariable) => Source::Variable(variable().unwrap_or_default()),
        // For clap, a value from the file is a default.
        _ => in_file().map_or(Source::Default, |file| Source::File(shown(&file.path))),
    }
}

fn value(arg: &Arg, matches: &ArgMatches) -> Value {
    let id = arg.get_id().as_str();
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return Value::Toml(matches.get_flag(id).to_string());
    }
    let values = matches.get_raw(id).into_iter().flatten();
    let mut values = values.map(|value| scalar(&value.to_string_lossy()));
    match arg.get_action() {
        ArgAction::Append => Value::Toml(format!("[{}]", values.collect::<Vec<_>>().join(", "))),
        _ => values.next().map_or_else(|| Value::None("not set".to_owned()), Value::Toml),
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Formats a value for TOML: as a number if it is written like one, otherwise as a string in which nothing acts on a
/// terminal.
fn scalar(value: &str) -> String {
    let is_number = value.parse::<i64>().is_ok_and(|number| number.to_string() == value);
    if is_number { value.to_owned() } else { format!("\"{}\"", value.chars().map(escaped).collect::<String>()) }
}

fn escaped(c: char) -> String {
    match c {
        '"' | '\\' => format!("\\{c}"),
        c if is_plain(c.encode_utf8(&mut [0; 4])) => c.to_string(),
        c => format!("\\U{:08x}", u32::from(c)),
    }
}
