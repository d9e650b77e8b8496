//! The plan of a map: its resolved options.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use farpool::{Job, Pool};

use super::arguments::MapArguments;
use super::columns::Columns;
use super::command::CommandLine;
use super::item::Item;
use super::items::{Input, List, ListValues, Source, Unit};
use super::records::{Mode, Program, RecordsOption};
use super::template::{Rules, Template};
use super::words::{self, Words};

/// The resolved options of a map.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) template: Template,
    pub(super) input: Input,
    /// Splits an item into the values of its command.
    pub(super) columns: Option<Columns>,
    pub(super) ordered: bool,
    pub(super) keep_going: bool,
    pub(super) timeout: Option<Duration>,
    /// How often a command is retried that fails, or whose worker or host is lost. `None`: never if it fails, and the
    /// default number of times if its worker or host is lost.
    pub(super) retries: Option<u32>,
    pub(super) processes: Option<usize>,
    /// Items per chunk; `None`: farpool chooses.
    pub(super) chunksize: Option<u64>,
    pub(super) require: Vec<(String, String)>,
    pub(super) priority: i32,
    pub(super) speculate: bool,
    /// The name of the detached job, if the map is detached.
    pub(super) detach: Option<String>,
    /// The variables given with --env.
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) progress: bool,
    pub(super) tag: bool,
    /// Lines are printed as they arrive.
    pub(super) line_buffer: bool,
    /// How long processes that a command leaves in the background may run.
    pub(super) grace: Duration,
    pub(super) dry_run: bool,
    pub(super) results: Option<RecordsOption>,
}

impl Plan {
    /// Checks what clap cannot. `dashes`: the words follow a `--`.
    pub(super) fn resolve(arguments: MapArguments, dashes: bool) -> Result<Plan, String> {
        if arguments.speculate && arguments.retries == Some(0) {
            return Err(
                "--speculate may run a command twice, but --retries 0 forbids that: use only one of them".to_owned()
            );
        }
        if arguments.pipe && arguments.retry_failed {
            let why = "--retry-failed would keep all failed blocks in memory: with --pipe, use --resume";
            return Err(why.to_owned());
        }
        let mode = match (arguments.overwrite, arguments.retry_failed) {
            (true, _) => Mode::Overwrite,
            (false, failed) if failed || arguments.resume => Mode::Resume { failed },
            _ => Mode::New,
        };
        let separator = if arguments.null { 0 } else { b'\n' };
        let unit = match arguments.pipe {
            true => Unit::Block { bytes: arguments.block, digests: arguments.results.is_some() },
            false => Unit::Values(arguments.max_args.unwrap_or(1) as usize),
        };
        let columns = arguments.colsep.map(|text| Columns::parse(text.as_bytes())).transpose()?;
        let CommandAndSources { command, lists } =
            CommandAndSources::from_words(arguments.program, arguments.words, dashes)?;
        let source = source(arguments.arg_file, lists, unit, columns.is_some())?;
        let template = command.template(&source, unit, columns.is_some())?;
        Ok(Plan {
            template,
            input: Input { source, separator, unit },
            columns,
            ordered: !arguments.unordered,
            keep_going: arguments.keep_going,
            timeout: arguments.timeout,
            retries: arguments.retries,
            processes: arguments.processes.map(|processes| processes as usize),
            chunksize: arguments.chunksize.map(u64::from),
            require: arguments.require,
            priority: arguments.priority,
            speculate: arguments.speculate,
            detach: arguments.detach,
            environment: arguments.env.iter().map(variable).collect::<Result<_, _>>()?,
            progress: arguments.progress,
            tag: arguments.tag,
            line_buffer: arguments.line_buffer,
            grace: arguments.grace,
            dry_run: arguments.dry_run,
            results: arguments.results.map(|path| RecordsOption { path, mode }),
        })
    }

    /// Returns the command for an item; indices start at 0.
    pub(super) fn command(&self, item: &Item, index: u64) -> CommandLine {
        let values = match &self.columns {
            Some(columns) => columns.cut(&item.name),
            None => item.values(),
        };
        self.template.render(&values, index + 1)
    }

    /// Returns the command as records name it.
    pub(super) fn program(&self) -> Program {
        let program = Program::new(self.template.text());
        match &self.columns {
            Some(columns) => program.with_columns(columns.key()),
            None => program,
        }
    }

    /// Returns a job of this function with the options of the plan.
    pub(super) fn job<'p, F>(&self, pool: &'p Pool, f: F) -> Job<'p, F> {
        let label = String::from_utf8_lossy(self.template.text());
        let mut job = pool.job(f).label(label).priority(self.priority).speculate(self.speculate);
        if let Some(items) = self.chunksize {
            job = job.chunksize(items);
        }
        if let Some(retries) = self.retries {
            job = job.retries(retries).retry_failed(true);
        }
        job
    }
}

/// The command and the sources, from the words or from the deprecated `--program`.
struct CommandAndSources {
    command: GivenCommand,
    /// `None`: the items come from a file or stdin.
    lists: Option<Vec<List>>,
}

enum GivenCommand {
    /// `--program`
    Program(Vec<u8>),
    /// One word.
    Line(Vec<u8>),
    Words(Vec<Vec<u8>>),
}

const NO_COMMAND: &str = "there is no command: give one after the options, as in `farpool map gzip -9 ::: *.log`";

impl CommandAndSources {
    fn from_words(program: Option<OsString>, words: Vec<OsString>, dashes: bool) -> Result<CommandAndSources, String> {
        let words = words.into_iter().map(OsStringExt::into_vec);
        let program = program.map(OsStringExt::into_vec);
        if let Some(program) = program.clone().filter(|_| dashes) {
            let items = List { values: ListValues::Given(words.collect()), linked: false };
            return Ok(CommandAndSources { command: GivenCommand::Program(program), lists: Some(vec![items]) });
        }
        let Words { mut command, lists } = words::split(words)?;
        let command = match (program, command.len()) {
            (Some(program), 0) => GivenCommand::Program(program),
            (Some(_), _) => {
                return Err("there are two commands, --program and the words after the options: give only the words, \
                            and the items after :::"
                    .to_owned());
            }
            (None, 0) => return Err(NO_COMMAND.to_owned()),
            (None, 1) => GivenCommand::Line(command.remove(0)),
            (None, _) => GivenCommand::Words(command),
        };
        Ok(CommandAndSources { command, lists })
    }
}

impl GivenCommand {
    fn template(self, source: &Source, unit: Unit, columns: bool) -> Result<Template, String> {
        let positions = match (source, unit) {
            _ if columns => None,
            (Source::Lists(lists), Unit::Values(1)) => Some(lists.len()),
            (_, Unit::Values(count)) => Some(count),
            (_, Unit::Block { .. }) => Some(1),
        };
        let append = !matches!(unit, Unit::Block { .. });
        let rules = Rules { numbered: !matches!(self, Self::Program(_)), positions, append };
        let parsed = match &self {
            Self::Program(line) | Self::Line(line) => Template::line(line, rules),
            Self::Words(words) => Template::words(words, rules),
        };
        parsed.map_err(|error| error.to_string())
    }
}

/// Returns the source of the items; fails if several kinds are given.
fn source(file: Option<PathBuf>, lists: Option<Vec<List>>, unit: Unit, columns: bool) -> Result<Source, String> {
    let Some(lists) = lists else { return Ok(file.map_or(Source::Stdin, Source::File)) };
    if file.is_some() {
        return Err("-a and ::: both give items: write the file as a source of its own, `:::: FILE`".to_owned());
    }
    if matches!(unit, Unit::Block { .. }) {
        return Err("--pipe splits stdin or a file (-a FILE) into blocks: it takes no items after :::".to_owned());
    }
    if lists.len() > 1 && columns {
        return Err(
            "--colsep splits the items of one source: it cannot be combined with several (:::, ::::)".to_owned()
        );
    }
    if lists.len() > 1 && unit != Unit::Values(1) {
        return Err("-n takes items of one source together: it cannot be combined with several (:::, ::::)".to_owned());
    }
    Ok(Source::Lists(lists))
}

fn variable(text: &OsString) -> Result<(OsString, OsString), String> {
    let bytes = text.as_bytes();
    let (name, value) = match bytes.iter().position(|&byte| byte == b'=') {
        Some(at) => (OsStr::from_bytes(&bytes[..at]), Some(OsStr::from_bytes(&bytes[at + 1..]).to_owned())),
        None => (text.as_os_str(), env::var_os(text)),
    };
    match value {
        _ if name == "FARPOOL_ADDRESS" => Err(
            "--env FARPOOL_ADDRESS: commands get the address of the cluster that they run on; choose it with --address URL. For a \
             command that should use another one, put it into the command: 'FARPOOL_ADDRESS=URL command {}'"
                .to_owned(),
        ),
        _ if name.is_empty() => Err(format!("--env {} has no variable name: write NAME or NAME=VALUE", text.display())),
        None => Err(format!("--env {0}: this variable is not set here; set it with --env {0}=VALUE", text.display())),
        Some(value) => Ok((name.to_owned(), value)),
    }
}
