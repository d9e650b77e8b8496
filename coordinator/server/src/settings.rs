//! The settings of a server, and the values that follow from them on this host.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::CommandFactory;
use clap::error::ErrorKind;
use farpool_common::log::{Log, info};
use farpool_common::settings::{self, SettingsReport, Stop};
use farpool_common::units::{self, ByteSize};
use farpool_coordinator::Principal;
use farpool_net::http2::{LEAST_STREAM_WINDOW, STREAM_WINDOW};
use farpool_proto::limits;
use farpool_store::log as journal;

use super::flags::Flags;
use super::host::{default_programs, quarter_of_memory, random_id};
use super::meter::Meters;

/// The settings of a server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// Bytes of jobs, items and results that may be held.
    pub memory: u64,
    /// The directory of programs.
    pub programs: PathBuf,
    /// The most bytes of compressed programs.
    pub program_cache: u64,
    /// Bytes of items that a client may send for each job ahead of their results.
    pub window: u64,
    /// How long a peer may be silent.
    pub heartbeat_timeout: Duration,
    /// How long a session is kept after its connection was lost.
    pub reconnect_grace: Duration,
    /// The journal of detached jobs; `None`: they are not supported.
    pub journal: Option<journal::Settings>,
    /// The most open connections.
    pub max_connections: usize,
    /// Distinguishes this coordinator from previous ones.
    pub id: [u8; 16],
    /// The log.
    pub log: Log,
    /// Settings that only tests change.
    pub limits: Limits,
}

/// Timeouts of the server, and whether its scheduler checks itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// For the first bytes of a connection.
    pub preface: Duration,
    /// For the first message of a session.
    pub first_message: Duration,
    /// For a client to send a program, before another one is asked.
    pub upload: Duration,
    /// For the arrival of a program that an agent needs.
    pub fetch: Duration,
    /// For a client that was detaching a job to reconnect.
    pub detach: Duration,
    /// At the end, for peers to read why their sessions end.
    pub farewell: Duration,
    /// Check the scheduler's invariants after each event, in debug builds.
    pub check: bool,
    /// Returns the principal of a connection from this address. By default connections are not authenticated, and all
    /// belong to `local`.
    pub principal: fn(Option<SocketAddr>) -> Principal,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            preface: Duration::from_secs(10),
            first_message: Duration::from_secs(10),
            upload: Duration::from_secs(60),
            fetch: Duration::from_secs(300),
            detach: Duration::from_secs(60),
            farewell: Duration::from_secs(2),
            check: false,
            principal: |_| Principal::local(),
        }
    }
}

impl Settings {
    /// Returns the settings from the arguments of a program, the first of which is its name, from its environment, and
    /// from the file that they name.
    ///
    /// # Errors
    /// If any of it is invalid, and for `--help`, `--version` and `--print-config`: [`Stop::exit`] handles all of
    /// these.
    pub fn load(args: impl IntoIterator<Item = OsString>) -> Result<Self, Stop> {
        let (flags, report) = settings::load(args)?;
        let settings = Self::resolve(flags)?;
        if report.print_requested() {
            Err(Stop::PrintConfig(settings.with_effective_values(report)))
        } else {
            Ok(settings)
        }
    }

    /// Adds the effective values of settings that depend on this host or on other settings.
    fn with_effective_values(&self, report: SettingsReport) -> SettingsReport {
        report
            .with("memory", ByteSize(self.memory))
            .with("window", ByteSize(self.window))
            .with("programs", self.programs.display())
            .with_note("journal", "not set, so no job can be detached")
    }

    fn resolve(flags: Flags) -> Result<Self, clap::Error> {
        if let Some(message) = flags.refused_address() {
            return Err(Flags::command().error(ErrorKind::MissingRequiredArgument, message));
        }
        let memory = flags.memory.map_or_else(|| quarter_of_memory().max(LEAST_MEMORY), |memory| memory.0);
        if memory < LEAST_MEMORY {
            let (asked, least) = (ByteSize(memory), ByteSize(LEAST_MEMORY));
            let message = format!("a memory of {asked} is too little: give at least {least} with --memory");
            return Err(Flags::command().error(ErrorKind::ValueValidation, message));
        }
        if flags.journal_size.0 < LEAST_JOURNAL {
            let (asked, least) = (flags.journal_size, ByteSize(LEAST_JOURNAL));
            let message = format!("a journal of {asked} is too small: give it at least {least} with --journal-size");
            return Err(Flags::command().error(ErrorKind::ValueValidation, message));
        }
        let programs = match (&flags.programs, &flags.journal) {
            (Some(programs), _) => programs.clone(),
            (None, Some(journal)) => journal.join("programs"),
            (None, None) => default_programs(),
        };
        let journal = flags.journal.map(|directory| {
            let mut journal = journal::Settings::new(directory);
            (journal.size, journal.expiry) = (flags.journal_size.0, flags.journal_expiry);
            journal.backlog = (memory / 8).min(64 << 20);
            journal
        });
        Ok(Self {
            listen: flags.listen,
            memory,
            programs,
            journal,
            program_cache: flags.program_cache.0,
            window: flags.window.0.min(memory / 4).max(1),
            heartbeat_timeout: flags.heartbeat_timeout,
            reconnect_grace: flags.reconnect_grace,
            max_connections: flags.max_connections as usize,
            id: random_id(),
            log: Log::new(flags.log_format),
            limits: Limits::default(),
        })
    }

    /// Logs the effective settings.
    pub fn announce(&self) {
        let journal = self.journal.as_ref();
        info!(
            self.log,
            version = env!("CARGO_PKG_VERSION"),
            listen = %self.listen,
            memory = %ByteSize(self.memory),
            programs = %self.programs.display(),
            "program-cache" = %ByteSize(self.program_cache),
            window = %ByteSize(self.window),
            "heartbeat-timeout" = units::format_exact(self.heartbeat_timeout),
            "reconnect-grace" = units::format_exact(self.reconnect_grace),
            "max-connections" = self.max_connections,
            journal = journal.map_or_else(|| "none".to_owned(), |journal| journal.directory.display().to_string()),
            "journal-size" = journal.map(|journal| ByteSize(journal.size).to_string()),
            "journal-expiry" = journal.map(|journal| units::format_exact(journal.expiry)),
            "coordinator started"
        );
    }

    /// Returns the bytes that may wait for a client before its pool is paused: unread messages of some clients must
    /// leave room for others.
    pub(super) fn queue(&self) -> usize {
        (self.memory / 64).min(MAX_QUEUE) as usize
    }

    /// Returns the bytes that may still wait for a client when its paused pool is resumed.
    pub(super) fn low_queue(&self) -> usize {
        self.queue() / 4
    }

    /// Returns how many uncounted bytes each client may have in flight: together they must not exceed the memory.
    pub(super) fn stream_window(&self) -> u32 {
        let window = (self.memory / 256).clamp(LEAST_STREAM_WINDOW.into(), STREAM_WINDOW.into());
        u32::try_from(window).unwrap_or(STREAM_WINDOW)
    }

    /// Returns the largest message that a client may send: all of it must arrive before it is handled.
    pub(super) fn max_message(&self) -> u64 {
        self.memory / 2 + MESSAGE_BESIDE
    }

    /// Returns the largest first message of a client.
    pub(super) fn max_opening(&self) -> u64 {
        self.memory / 4
    }

    /// Returns the largest result of a worker. The largest message of an agent is a result with others before it.
    pub(super) fn max_result(&self) -> u64 {
        (self.memory / 2).clamp(LEAST_RESULT, limits::PAYLOAD_BYTES)
    }

    pub(super) fn max_report(&self) -> u64 {
        self.max_result() + REPORT_BESIDE
    }

    /// Makes the meters of partial frames in flight.
    pub(super) fn meters(&self) -> Meters {
        Meters::new((self.memory / 16) as usize, self.limits.first_message)
    }
}

/// The most bytes that may wait for a client before its pool is paused, however large the memory is.
const MAX_QUEUE: u64 = 16 << 20;

/// The size that a result may always have, in bytes, however small the memory is.
const LEAST_RESULT: u64 = 8 << 20;

/// Room in a message, in bytes, for the results before the largest one, and for the ends of all.
const REPORT_BESIDE: u64 = 4 << 20;

/// Room in a message of a client, in bytes, for smaller items before a large one, for the ends of all, and for what is beside a function.
const MESSAGE_BESIDE: u64 = 1 << 20;

/// The least `--journal-size`.
const LEAST_JOURNAL: u64 = 1 << 20;

/// The least `--memory`, with room for a frame or two of several clients.
const LEAST_MEMORY: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn load(args: &[&str]) -> Result<Settings, String> {
        let args = ["farpool-coordinator"].iter().chain(args).map(|arg| OsString::from(*arg));
        Settings::load(args).map_err(|error| error.to_string())
    }

    fn announced(mut settings: Settings) -> String {
        let (sender, lines) = std::sync::mpsc::channel();
        settings.log = Log::to(move |line| sender.send(line.to_owned()).expect("the reader of the lines is gone"));
        settings.announce();
        lines.recv().expect("no settings were logged")
    }

    #[test]
    fn a_reachable_address_needs_the_insecure_flag() {
        let settings = load(&[]).expect("the default settings were refused");
        assert_eq!((settings.listen.to_string().as_str(), settings.window), ("127.0.0.1:7070", 64 << 20));
        let error = load(&["--listen", "0.0.0.0:7070"]).expect_err("the settings were accepted");
        assert!(error.contains("--insecure") && error.contains("0.0.0.0:7070"), "{error}");
        assert!(load(&["--listen", "0.0.0.0:7070", "--insecure"]).is_ok());
        assert!(load(&["--listen", "[::1]:7070"]).is_ok());
    }

    #[test]
    fn errors_name_the_setting_and_an_example() {
        let check = |args: &[&str], words: &[&str]| {
            let error = load(args).expect_err("the settings were accepted");
            words.iter().for_each(|words| assert!(error.contains(words), "{error}"));
        };
        check(&["--listen", "7070"], &["--listen", "host:port"]);
        check(&["--memory", "lots"], &["--memory", "lots", "4GiB"]);
        check(&["--memory", "1KiB"], &["--memory", "16MiB"]);
        check(&["--journal-size", "1KiB"], &["--journal-size", "1MiB"]);
        check(&["--journal-expiry", "soon"], &["--journal-expiry", "5s"]);
        check(&["--max-connections", "0"], &["--max-connections"]);
        check(&["--heartbeat-timeout", "0s"], &["--heartbeat-timeout", "5s"]);
        check(&["--memroy", "1GiB"], &["--memory"]);
        check(&["--log-format", "xml"], &["--log-format", "xml", "text or json"]);
    }

    #[test]
    fn programs_of_detached_jobs_are_in_the_journals_directory() {
        let settings = load(&["--journal", "/tmp/j", "--journal-size", "2GiB"]).expect("the settings were refused");
        assert_eq!(settings.programs, PathBuf::from("/tmp/j/programs"));
        let line = announced(settings);
        assert!(line.ends_with("journal=/tmp/j journal-size=2GiB journal-expiry=7d"), "{line}");
        let elsewhere = load(&["--journal", "/tmp/j", "--programs", "/tmp/p"]).expect("the settings were refused");
        assert_eq!(elsewhere.programs, PathBuf::from("/tmp/p"));
    }

    #[test]
    fn the_window_fits_the_memory_and_is_announced() {
        let settings = load(&["--memory", "64MiB", "--programs", "/tmp/x"]).expect("the settings were refused");
        assert_eq!((settings.window, settings.max_result()), (16 << 20, 32 << 20));
        assert_eq!(settings.max_message(), (32 << 20) + MESSAGE_BESIDE);
        let line = announced(settings);
        assert!(line.ends_with("journal=none"), "{line}");
        assert!(line.contains("memory=64MiB") && line.contains("programs=/tmp/x") && !line.contains('\n'), "{line}");
    }
}
