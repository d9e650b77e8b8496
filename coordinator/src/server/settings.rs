//! What `farpool-coordinator` can be told, and what that comes to on this host.

use std::ffi::OsString;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use farpool_net::settings::{self, ByteSize, ConfigFile, duration};

/// farpool's coordinator: takes jobs from clients, hands their items to agents, and passes the results back
#[derive(Debug, Parser)]
#[command(name = "farpool-coordinator", version, long_about = LONG_ABOUT, after_long_help = EXAMPLES, max_term_width = 100)]
struct Flags {
    /// Where clients and agents connect: host:port
    ///
    /// With port 0 the system chooses one; the line that is written when the coordinator listens says which.
    #[arg(long, env = "FARPOOL_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:7070", value_parser = address)]
    listen: SocketAddr,

    /// Listens on an address that other hosts can reach
    ///
    /// There is no authentication yet: whoever can connect can run any program on the agents, as the user that they run
    /// as. Give this only where the network is yours alone.
    #[arg(long, env = "FARPOOL_INSECURE")]
    insecure: bool,

    /// Bytes of items and results that may be held at once [default: a quarter of this host's memory]
    ///
    /// When it is used up, the coordinator stops reading from those clients that hold most until it has come down to nine
    /// tenths; nothing is dropped. The largest item that clients may send is half of this.
    #[arg(long, env = "FARPOOL_MEMORY", value_name = "SIZE")]
    memory: Option<ByteSize>,

    /// Where clients' programs are kept for agents [default: ~/.cache/farpool/coordinator]
    ///
    /// A client uploads its executable when an agent needs it and it is not here. As a systemd service with
    /// CacheDirectory= the default is there.
    #[arg(long, env = "FARPOOL_PROGRAMS", value_name = "DIR")]
    programs: Option<PathBuf>,

    /// Bytes of programs that are kept; those that were not used for longest go first
    #[arg(long, env = "FARPOOL_PROGRAM_CACHE", value_name = "SIZE", default_value = "4GiB")]
    program_cache: ByteSize,

    /// Bytes of items that a client may send for each job ahead of their results
    ///
    /// No more than a quarter of the memory counts.
    #[arg(long, env = "FARPOOL_WINDOW", value_name = "SIZE", default_value = "64MiB")]
    window: ByteSize,

    /// How long a client or an agent may be silent before it counts as lost
    #[arg(long, env = "FARPOOL_HEARTBEAT_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = duration)]
    heartbeat_timeout: Duration,

    /// Connections that may be open at once; further ones wait to be accepted
    #[arg(long, env = "FARPOOL_MAX_CONNECTIONS", value_name = "COUNT", default_value = "10000",
          value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,

    #[command(flatten)]
    file: ConfigFile,
}

const LONG_ABOUT: &str = "\
farpool's coordinator: takes jobs from clients, hands their items to agents, and passes the results back.

Start one for a cluster, a farpool-agent on every host that is to work, and give programs the coordinator's address in \
FARPOOL_ADDRESS. Agents may come and go at any time.

Each setting is a flag, an environment variable, or a line in the file that --config names; a flag goes before the \
variable, and that before the file. The settings in force are written to stderr at the start, and so is the address, in a \
line of its own: `farpool-coordinator: listening on http://127.0.0.1:7070`.

SIGTERM and SIGINT end it gently: new clients are refused, open pools finish, then it exits with status 0. A second \
signal ends it at once, with status 128 and the signal's number.";

const EXAMPLES: &str = "\
Examples:
  On this machine, for trying:
    farpool-coordinator
    farpool-agent --coordinator http://127.0.0.1:7070
    FARPOOL_ADDRESS=http://127.0.0.1:7070 ./my-program

  For a network that is yours alone:
    farpool-coordinator --listen 0.0.0.0:7070 --insecure --memory 8GiB

  With a file, say /etc/farpool/coordinator.toml:
    listen = \"10.0.0.1:7070\"
    insecure = true
    memory = \"8GiB\"
  and then
    farpool-coordinator --config /etc/farpool/coordinator.toml";

/// What a server goes by.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Bytes of items and results that may be held.
    pub memory: u64,
    /// Where programs are kept.
    pub programs: PathBuf,
    /// How many bytes of them.
    pub program_cache: u64,
    /// Bytes of items that a client may send for each job ahead of their results.
    pub window: u64,
    /// How long a peer may be silent.
    pub heartbeat_timeout: Duration,
    /// Connections that may be open at once.
    pub max_connections: usize,
    /// Whether to say on stderr what happens.
    pub log: bool,
    /// What is the same for everybody but tests.
    pub limits: Limits,
}

/// How long the server waits for what.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// For the first bytes of a connection.
    pub preface: Duration,
    /// For the first message of a session.
    pub first_message: Duration,
    /// For a client to send a program, before another one is asked.
    pub upload: Duration,
    /// For a program to come that an agent has asked for.
    pub fetch: Duration,
    /// At the end, for peers to read why their sessions end.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            preface: Duration::from_secs(10),
            first_message: Duration::from_secs(10),
            upload: Duration::from_secs(60),
            fetch: Duration::from_secs(300),
            farewell: Duration::from_secs(2),
        }
    }
}

impl Settings {
    /// What is asked for by the arguments that a program was started with, the first of which is its name, by its
    /// environment, and by the file that they name.
    ///
    /// # Errors
    /// If any of it is wrong, and for `--help` and `--version`: [`clap::Error::exit`] does what is right.
    pub fn load(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let flags: Flags = settings::load(args)?;
        if !flags.listen.ip().is_loopback() && !flags.insecure {
            return Err(Flags::command().error(ErrorKind::MissingRequiredArgument, in_reach(flags.listen)));
        }
        let memory = flags.memory.map_or_else(quarter_of_host, |memory| memory.0);
        if memory < LEAST_MEMORY {
            let (asked, least) = (ByteSize(memory), ByteSize(LEAST_MEMORY));
            let message = format!("--memory {asked} is too little to work with: give it at least {least}");
            return Err(Flags::command().error(ErrorKind::ValueValidation, message));
        }
        Ok(Self {
            listen: flags.listen,
            memory,
            programs: flags.programs.unwrap_or_else(default_programs),
            program_cache: flags.program_cache.0,
            window: flags.window.0.min(memory / 4).max(1),
            heartbeat_timeout: flags.heartbeat_timeout,
            max_connections: flags.max_connections as usize,
            log: true,
            limits: Limits::default(),
        })
    }

    /// Bytes that may wait for a client before its pool is paused: what some do not read must leave room for others.
    pub(super) fn queue(&self) -> usize {
        (self.memory / 64).min(MAX_QUEUE) as usize
    }

    /// Bytes that may be left when it is resumed.
    pub(super) fn low_queue(&self) -> usize {
        self.queue() / 4
    }

    /// The largest message that a client may send: it must be there as a whole before anything is done with it.
    pub(super) fn max_message(&self) -> u64 {
        self.memory / 2
    }
}

/// What may wait for a client before its pool is paused, however large the memory is.
const MAX_QUEUE: u64 = 16 << 20;

/// As `--memory`, with room for a frame or two of several clients.
const LEAST_MEMORY: u64 = 16 << 20;

/// In one line.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listen, memory, programs, program_cache, window, heartbeat_timeout, max_connections, .. } = self;
        let (memory, program_cache, window) = (ByteSize(*memory), ByteSize(*program_cache), ByteSize(*window));
        write!(
            f,
            "listen={listen} memory={memory} programs={} program-cache={program_cache} window={window} \
             heartbeat-timeout={heartbeat_timeout:?} max-connections={max_connections}",
            programs.display()
        )
    }
}

fn in_reach(listen: SocketAddr) -> String {
    format!(
        "other hosts can reach {listen}, and there is no authentication yet: whoever connects can run any program on the \
         agents.\nIf the network is yours alone, say so with --insecure; otherwise listen on 127.0.0.1"
    )
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let example = "an address is host:port, as in 127.0.0.1:7070";
    let mut found = text.to_socket_addrs().map_err(|error| format!("{error}; {example}"))?;
    found.next().ok_or_else(|| example.to_owned())
}

/// Where systemd has made a directory for the service, or the user's cache is.
fn default_programs() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    variable("CACHE_DIRECTORY")
        .map(|directory| directory.join("programs"))
        .unwrap_or_else(|| cache().unwrap_or_else(|| "/var/cache".into()).join("farpool/coordinator"))
}

fn quarter_of_host() -> u64 {
    // A gigabyte where the system does not say.
    let host = memory_of_host(Path::new("/proc/meminfo")).unwrap_or(4 << 30);
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    let quarter = host.min(group.unwrap_or(u64::MAX)) / 4;
    // Whole MiB are easier to read.
    (quarter >> 20 << 20).max(LEAST_MEMORY)
}

fn memory_of_host(meminfo: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(meminfo).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(args: &[&str]) -> Result<Settings, String> {
        let args = ["farpool-coordinator"].iter().chain(args).map(|arg| OsString::from(*arg));
        Settings::load(args).map_err(|error| error.to_string())
    }

    #[test]
    fn what_others_can_reach_needs_a_word() {
        let settings = load(&[]).expect("the defaults are right");
        assert_eq!((settings.listen.to_string().as_str(), settings.window), ("127.0.0.1:7070", 64 << 20));
        let error = load(&["--listen", "0.0.0.0:7070"]).expect_err("it is refused");
        assert!(error.contains("--insecure") && error.contains("0.0.0.0:7070"), "{error}");
        assert!(load(&["--listen", "0.0.0.0:7070", "--insecure"]).is_ok());
        assert!(load(&["--listen", "[::1]:7070"]).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |args: &[&str], words: &[&str]| {
            let error = load(args).expect_err("it is refused");
            words.iter().for_each(|words| assert!(error.contains(words), "{error}"));
        };
        check(&["--listen", "7070"], &["--listen", "host:port"]);
        check(&["--memory", "lots"], &["--memory", "lots", "4GiB"]);
        check(&["--memory", "1KiB"], &["--memory", "16MiB"]);
        check(&["--max-connections", "0"], &["--max-connections"]);
        check(&["--heartbeat-timeout", "0s"], &["--heartbeat-timeout", "5s"]);
        check(&["--memroy", "1GiB"], &["--memory"]);
    }

    #[test]
    fn the_window_fits_the_memory_and_the_line_says_it() {
        let settings = load(&["--memory", "64MiB", "--programs", "/tmp/x"]).expect("it is right");
        assert_eq!((settings.window, settings.max_message()), (16 << 20, 32 << 20));
        let line = settings.to_string();
        assert!(line.contains("memory=64MiB") && line.contains("programs=/tmp/x") && !line.contains('\n'), "{line}");
        assert!(memory_of_host(Path::new("/proc/meminfo")).is_some_and(|bytes| bytes > 1 << 20));
    }
}
