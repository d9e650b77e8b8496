//! The settings of `farpool-coordinator`, and their help.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use farpool_common::log::Format;
use farpool_common::settings::ConfigFile;
use farpool_common::units::{ByteSize, count, duration};

/// farpool's coordinator: takes jobs from clients, hands their items to agents, and passes the results back
#[derive(Debug, Parser)]
#[command(name = "farpool-coordinator", version = env!("FARPOOL_VERSION"), long_about = LONG_ABOUT)]
#[command(after_long_help = EXAMPLES, max_term_width = 100)]
pub(super) struct Flags {
    /// Where clients and agents connect: host:port
    ///
    /// With port 0 the system picks one, and the coordinator logs which.
    #[arg(long, env = "FARPOOL_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:7070", value_parser = address)]
    pub(super) listen: SocketAddr,

    /// Allow an address that other hosts can reach
    ///
    /// There is no authentication yet: anyone who can connect can run any program on the agents, as the user that the
    /// agents run as. Use this only in a network that you alone control.
    #[arg(long, env = "FARPOOL_INSECURE")]
    pub(super) insecure: bool,

    /// Bytes of jobs, items and results to hold at once [default: a quarter of the memory of this host or container]
    ///
    /// When it is used up, the coordinator stops reading from the clients that hold most until use is down to nine
    /// tenths; nothing is dropped. The largest item that clients may send is half of this.
    #[arg(long, env = "FARPOOL_MEMORY", value_name = "SIZE")]
    pub(super) memory: Option<ByteSize>,

    /// Where to keep clients' programs for the agents [default: ~/.cache/farpool/coordinator]
    ///
    /// A client uploads its executable when an agent needs it and the coordinator lacks it. In a systemd service with
    /// CacheDirectory=, that is the default. With --journal the default is in the journal's directory.
    #[arg(long, env = "FARPOOL_PROGRAMS", value_name = "DIR")]
    pub(super) programs: Option<PathBuf>,

    /// Bytes of programs to keep; the least recently used are evicted first
    ///
    /// Programs are kept compressed. While one is being received, it counts with its full size.
    #[arg(long, env = "FARPOOL_PROGRAM_CACHE", value_name = "SIZE", default_value = "4GiB")]
    pub(super) program_cache: ByteSize,

    /// Bytes of items that a client may send for each job ahead of their results
    ///
    /// It is limited to a quarter of --memory.
    #[arg(long, env = "FARPOOL_WINDOW", value_name = "SIZE", default_value = "64MiB")]
    pub(super) window: ByteSize,

    /// Where to keep detached jobs and their results [default: nowhere, so no job can be detached]
    ///
    /// The journal outlives the coordinator: unfinished jobs resume after a restart. Two coordinators cannot share one.
    /// The jobs' programs are kept in it too, unless --programs says otherwise.
    #[arg(long, env = "FARPOOL_JOURNAL", value_name = "DIR")]
    pub(super) journal: Option<PathBuf>,

    /// Bytes that the journal may use on disk
    ///
    /// When it is full, no more jobs can be detached until results are discarded or expire.
    #[arg(long, env = "FARPOOL_JOURNAL_SIZE", value_name = "SIZE", default_value = "10GiB")]
    pub(super) journal_size: ByteSize,

    /// How long to keep the results of a detached job after it has ended
    #[arg(long, env = "FARPOOL_JOURNAL_EXPIRY", value_name = "TIME", default_value = "7d", value_parser = duration)]
    pub(super) journal_expiry: Duration,

    /// How long a client or an agent may be silent before it counts as lost
    #[arg(long, env = "FARPOOL_HEARTBEAT_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(super) heartbeat_timeout: Duration,

    /// How long a client or an agent may take to reconnect
    ///
    /// Until then its state and unacknowledged messages are kept, and it resumes as if nothing had happened. After
    /// that, an agent's items run elsewhere, and a client's pool is stopped.
    #[arg(long, env = "FARPOOL_RECONNECT_GRACE", value_name = "TIME", default_value = "500ms", value_parser = duration)]
    pub(super) reconnect_grace: Duration,

    /// Maximum number of open connections; further ones wait
    #[arg(long, env = "FARPOOL_MAX_CONNECTIONS", value_name = "COUNT", default_value = "10000",
          value_parser = count)]
    pub(super) max_connections: u32,

    /// How lines on stderr are written: text or json
    #[arg(long, env = "FARPOOL_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub(super) log_format: Format,

    #[command(flatten)]
    _file: ConfigFile,
}

const LONG_ABOUT: &str = "\
farpool's coordinator: takes jobs from clients, hands their items to agents, and passes the results back.

Start one coordinator per cluster and a farpool-agent on every worker host, and give programs the coordinator's \
address in FARPOOL_ADDRESS. Agents can join and leave at any time.

Each setting is a flag, an environment variable, or a line in the file given by --config; flags override variables, \
and variables override the file; --print-config shows the effective values. At startup the coordinator logs its \
effective settings to stderr, and its address on a separate line: `INFO listening address=http://127.0.0.1:7070`.

SIGTERM and SIGINT shut it down gracefully: new clients are refused, open pools finish, then it exits with status 0. A \
second signal ends it at once, with status 128 plus the signal's number.";

const EXAMPLES: &str = "\
Examples:
  On this machine, to try it out:
    farpool-coordinator
    farpool-agent --coordinator http://127.0.0.1:7070
    FARPOOL_ADDRESS=http://127.0.0.1:7070 ./my-program

  In a network that you alone control:
    farpool-coordinator --listen 0.0.0.0:7070 --insecure --memory 8GiB

  With a file such as /etc/farpool/coordinator.toml:
    listen = \"10.0.0.1:7070\"
    insecure = true
    memory = \"8GiB\"
  and then
    farpool-coordinator --config /etc/farpool/coordinator.toml";

impl Flags {
    /// Returns why it must not listen on its address; `None` if it may.
    pub(super) fn refused_address(&self) -> Option<String> {
        let listen = self.listen;
        (!listen.ip().is_loopback() && !self.insecure).then(|| {
            format!(
                "other hosts can reach {listen}, and there is no authentication yet: anyone who connects can run any \
                 program on the agents.\nIf you alone control the network, add --insecure; otherwise listen on 127.0.0.1"
            )
        })
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let example = "an address is host:port, as in 127.0.0.1:7070";
    let mut found = text.to_socket_addrs().map_err(|error| format!("{error}; {example}"))?;
    found.next().ok_or_else(|| example.to_owned())
}
