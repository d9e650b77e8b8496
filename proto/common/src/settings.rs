//! Settings of the daemons. A flag overrides its environment variable, which overrides the file given by `--config`,
//! which overrides the default.
//!
//! A program describes its settings once, as a [`clap::Parser`] with [`ConfigFile`] flattened into it, and calls
//! [`load`]. Values of the file become the defaults of their flags, so that values are checked in one place.

mod file;
mod report;
mod stop;

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::{BoolishValueParser, Resettable};
use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, Args, Command, FromArgMatches, Parser};

use file::FromFile;
pub use report::SettingsReport;
pub use stop::Stop;

/// The flags that are about settings, and not settings themselves.
#[derive(Args, Clone, Debug, Default)]
pub struct ConfigFile {
    /// Read settings from a TOML file
    ///
    /// Its keys are the names of the flags without the leading dashes, as in `memory = "4GiB"`. Flags and environment
    /// variables override it.
    #[arg(long, env = "FARPOOL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print every setting and where it comes from, and exit
    ///
    /// What is printed can be used as a --config file.
    #[arg(long)]
    pub print_config: bool,
}

/// Returns the settings of this program and their sources. The first of `args` is the program's name. If [they are to
/// be shown](SettingsReport::print_requested), the program checks its settings and ends with [`Stop::PrintConfig`].
///
/// # Errors
/// If they are invalid, and for `--help` and `--version`: [`Stop::exit`] handles both.
pub fn load<T: Parser>(args: impl IntoIterator<Item = OsString>) -> Result<(T, SettingsReport), clap::Error> {
    let args: Vec<_> = args.into_iter().collect();
    let (command, file) = with_file(with_environment(T::command(), |name| env::var_os(name)), &args)?;
    let parsed = command.clone().try_get_matches_from(&args);
    let mut matches = parsed.map_err(|error| naming_variable(error, &command, &args, |name| env::var_os(name)))?;
    let print_requested = ConfigFile::from_arg_matches(&matches).is_ok_and(|flags| flags.print_config);
    // A new command has the program's order of settings. Changing arguments has reordered the other one.
    let report = SettingsReport::new(&T::command(), &matches, file.as_ref(), print_requested);
    let settings = T::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command.clone()))?;
    Ok((settings, report))
}

/// Returns the command with its environment: an empty variable counts as unset, and 1 turns on a flag without value.
fn with_environment(mut command: Command, value: impl Fn(&OsStr) -> Option<OsString>) -> Command {
    let all = command.get_arguments().map(|arg| (arg.get_id().clone(), arg.get_env().map(OsStr::to_owned)));
    for (id, variable) in all.collect::<Vec<_>>() {
        let is_empty = variable.and_then(|name| value(&name)).is_some_and(|value| value.is_empty());
        command = command.mut_arg(id, |arg| {
            let arg = if is_empty { arg.env(Resettable::Reset) } else { arg };
            let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
            if is_switch { arg.value_parser(BoolishValueParser::new()) } else { arg }
        });
    }
    command
}

/// Returns the error with the name of the environment variable that the invalid value is from, where clap names the
/// flag.
fn naming_variable(
    mut error: clap::Error,
    command: &Command,
    args: &[OsString],
    value: impl Fn(&OsStr) -> Option<OsString>,
) -> clap::Error {
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg) else { return error };
    // Only the arguments of a built command can be shown.
    let mut command = command.clone();
    command.build();
    let arg = command.get_arguments().find(|arg| arg.to_string() == *named);
    let Some((flag, variable)) = arg.and_then(|arg| Some((arg.get_long()?, arg.get_env()?))) else { return error };
    let flag = format!("--{flag}");
    let is_on_command_line = args.iter().any(|arg| {
        let rest = arg.as_encoded_bytes().strip_prefix(flag.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"="))
    });
    if !is_on_command_line && value(variable).is_some() {
        let variable = ContextValue::String(variable.to_string_lossy().into_owned());
        error.insert(ContextKind::InvalidArg, variable);
    }
    error
}

/// Returns the command with the file's values as defaults, and these values.
fn with_file(command: Command, args: &[OsString]) -> Result<(Command, Option<FromFile>), clap::Error> {
    // The file is found before the rest is checked: it may have the required settings.
    let early = command.clone().ignore_errors(true).try_get_matches_from(args)?;
    let named = ConfigFile::from_arg_matches(&early).unwrap_or_default();
    match named.config {
        None => Ok((command, None)),
        Some(path) => file::apply(command, path).map(|(command, file)| (command, Some(file))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::units::{ByteSize, duration};

    #[derive(Debug, Parser)]
    #[command(name = "server", version = "1.2.3")]
    struct Settings {
        #[command(flatten)]
        file: ConfigFile,
        #[arg(long)]
        upstream: String,
        #[arg(long, env = "FARPOOL_TEST_MEMORY", default_value = "1GiB")]
        memory: ByteSize,
        #[arg(long, default_value = "5s", value_parser = duration)]
        patience: Duration,
        #[arg(long)]
        slots: Option<u32>,
        #[arg(long)]
        insecure: bool,
        #[arg(long)]
        label: Vec<String>,
    }

    fn run(args: &[&str], file: Option<&str>) -> Result<Settings, String> {
        given(args, file).map(|(settings, _)| settings)
    }

    fn given(args: &[&str], file: Option<&str>) -> Result<(Settings, SettingsReport), String> {
        let directory = std::env::temp_dir().join(format!("farpool-settings-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory can be made");
        let path = directory.join(format!("{:?}.toml", std::thread::current().id()));
        let mut all = vec!["server".to_owned()];
        if let Some(text) = file {
            std::fs::write(&path, text).expect("a file can be written");
            all.extend(["--config".to_owned(), path.display().to_string()]);
        }
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        load::<Settings>(all.into_iter().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_override_the_file_and_the_file_overrides_defaults() {
        let file = "upstream = 'there'\nmemory = '2GiB'\nslots = 4\ninsecure = true\nlabel = ['a=1', 'b=2']\n";
        let settings = run(&["--slots", "7"], Some(file)).expect("the settings are right");
        assert_eq!((settings.upstream.as_str(), settings.slots), ("there", Some(7)));
        assert_eq!((settings.memory.0, settings.patience), (2 << 30, Duration::from_secs(5)));
        assert!(settings.insecure && settings.file.config.is_some());
        assert_eq!(settings.label, ["a=1", "b=2"]);

        let settings = run(&["--upstream", "here", "--label", "c=3"], Some("label = ['a=1']\ninsecure = false"));
        let settings = settings.expect("the settings are right");
        assert_eq!((settings.label, settings.insecure, settings.memory.0), (vec!["c=3".to_owned()], false, 1 << 30));
    }

    #[test]
    fn errors_are_named() {
        let check = |args: &[&str], file: Option<&str>, words: &[&str]| {
            let error = run(args, file).expect_err("the settings are refused");
            words.iter().for_each(|words| assert!(error.contains(words), "{words}: {error}"));
        };
        check(&[], None, &["--upstream"]);
        check(&["--slost", "3"], None, &["--slost", "--slots"]);
        check(&["--config", "/nowhere/at.all"], None, &["/nowhere/at.all", "No such file"]);
        check(&[], Some("upstream = "), &[".toml", "line 1"]);
        check(&[], Some("slost = 3"), &[".toml", "`slost`", "label", "memory", "slots"]);
        check(&[], Some("config = 'x'"), &[".toml", "`config`"]);
        check(&[], Some("slots = 'many'"), &[".toml", "`slots`", "many", "invalid digit"]);
        check(&[], Some("slots = [1, 2]"), &[".toml", "`slots`", "an array", "a string or a number"]);
        check(&[], Some("slots = true"), &[".toml", "`slots`", "a boolean", "a string or a number"]);
        check(&[], Some("insecure = 'yes'"), &[".toml", "`insecure`", "a string", "true or false"]);
        check(&[], Some("[label]\nx = 1"), &[".toml", "`label`", "a table", "an array"]);
        check(&[], Some("label = [['x']]"), &[".toml", "`label`", "an array"]);
        check(&[], Some("memory = '12 potatoes'"), &[".toml", "`memory`", "12 potatoes", "GiB"]);
    }

    #[test]
    fn errors_about_environment_variables_name_them() {
        #[derive(Debug, Parser)]
        struct Settings {
            #[command(flatten)]
            _file: ConfigFile,
            // A variable that is set, to something that is no size.
            #[arg(long, env = "PATH", value_name = "SIZE", default_value = "1GiB")]
            memory: ByteSize,
        }
        let run = |args: &[&str]| {
            let args = ["server"].iter().chain(args).map(OsString::from);
            load::<Settings>(args).map(|(settings, _)| settings.memory.0).map_err(|error| error.to_string())
        };
        let error = run(&[]).expect_err("no PATH is a size");
        assert!(error.contains("for 'PATH'") && !error.contains("--memory"), "{error}");
        let error = run(&["--memory=x"]).expect_err("x is no size");
        assert!(error.contains("for '--memory <SIZE>'") && !error.contains("PATH"), "{error}");
        assert_eq!(run(&["--memory", "1kB"]), Ok(1000));
    }

    #[test]
    fn each_setting_is_shown_with_its_source() {
        let file = "upstream = 'a \"b\"\\'\nlabel = ['a=1', 'b=\u{202e}']\ninsecure = true\n";
        let (settings, report) =
            given(&["--slots", "7", "--print-config"], Some(file)).expect("the settings are right");
        assert!(report.print_requested());
        let path = settings.file.config.expect("there is a file").display().to_string();
        let shown = report.to_string();
        let expected = format!(
            "upstream = \"a \\\"b\\\"\\\\\" # file {path}\nmemory = \"1GiB\" # default\npatience = \"5s\" # default\n\
             slots = 7 # flag\ninsecure = true # file {path}\nlabel = [\"a=1\", \"b=\\U0000202e\"] # file {path}\n"
        );
        assert_eq!(shown, expected);
        let again = run(&[], Some(&shown)).expect("the output is a file of settings");
        assert_eq!((again.upstream.as_str(), again.slots, again.insecure), ("a \"b\"\\", Some(7), true));
        assert_eq!(again.label, ["a=1", "b=\u{202e}"]);
    }

    #[test]
    fn unset_settings_are_comments_or_effective_values() {
        let (_, report) = given(&["--upstream", "007"], None).expect("the settings are right");
        assert!(!report.print_requested());
        let lines = |report: SettingsReport| report.to_string().lines().map(str::to_owned).collect::<Vec<_>>();
        let report = report.with_note("slots", "the number of\ncores").with_note("upstream", "not shown");
        let report = report.with("memory", ByteSize(1 << 20));
        let expected = ["upstream = \"007\" # flag", "memory = \"1MiB\" # default", "patience = \"5s\" # default"];
        let rest = ["# slots: the number of\\ncores # default", "insecure = false # default", "label = [] # default"];
        assert_eq!(lines(report), [expected, rest].concat());
    }
}
