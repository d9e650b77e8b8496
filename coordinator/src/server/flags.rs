//! What `farpool-coordinator` can be told, and how its help tells it.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use farpool_net::settings::{ByteSize, ConfigFile, duration};

/// farpool's coordinator: takes jobs from clients, hands their items to agents, and passes the results back
#[derive(Debug, Parser)]
#[command(name = "farpool-coordinator", version, long_about = LONG_ABOUT, after_long_help = EXAMPLES, max_term_width = 100)]
pub(super) struct Flags {
    /// Where clients and agents connect: host:port
    ///
    /// With port 0 the system chooses one; the line that is written when the coordinator listens says which.
    #[arg(long, env = "FARPOOL_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:7070", value_parser = address)]
    pub(super) listen: SocketAddr,

    /// Listens on an address that other hosts can reach
    ///
    /// There is no authentication yet: whoever can connect can run any program on the agents, as the user that they run
    /// as. Give this only where the network is yours alone.
    #[arg(long, env = "FARPOOL_INSECURE")]
    pub(super) insecure: bool,

    /// Bytes of jobs, items and results that may be held at once [default: a quarter of the memory of this host or container]
    ///
    /// When it is used up, the coordinator stops reading from those clients that hold most until it has come down to nine
    /// tenths; nothing is dropped. The largest item that clients may send is half of this.
    #[arg(long, env = "FARPOOL_MEMORY", value_name = "SIZE")]
    pub(super) memory: Option<ByteSize>,

    /// Where clients' programs are kept for agents [default: ~/.cache/farpool/coordinator]
    ///
    /// A client uploads its executable when an agent needs it and it is not here. As a systemd service with
    /// CacheDirectory= the default is there. With --journal it is in the journal's directory.
    #[arg(long, env = "FARPOOL_PROGRAMS", value_name = "DIR")]
    pub(super) programs: Option<PathBuf>,

    /// Bytes of programs that are kept; those that were not used for longest go first
    #[arg(long, env = "FARPOOL_PROGRAM_CACHE", value_name = "SIZE", default_value = "4GiB")]
    pub(super) program_cache: ByteSize,

    /// Bytes of items that a client may send for each job ahead of their results
    ///
    /// No more than a quarter of the memory counts.
    #[arg(long, env = "FARPOOL_WINDOW", value_name = "SIZE", default_value = "64MiB")]
    pub(super) window: ByteSize,

    /// Where jobs are kept that clients detach, with their results [default: nowhere, and no job can be detached]
    ///
    /// What is there outlives the coordinator: jobs that have not ended go on when it is started again. No two coordinators
    /// can have the same. The programs of these jobs are needed as well: unless --programs says otherwise, programs are
    /// kept in it.
    #[arg(long, env = "FARPOOL_JOURNAL", value_name = "DIR")]
    pub(super) journal: Option<PathBuf>,

    /// Bytes that the journal may take up on disk
    ///
    /// When it is full, no further jobs can be detached until results were discarded or have expired.
    #[arg(long, env = "FARPOOL_JOURNAL_SIZE", value_name = "SIZE", default_value = "10GiB")]
    pub(super) journal_size: ByteSize,

    /// How long the results of a detached job are kept after it has ended
    #[arg(long, env = "FARPOOL_JOURNAL_EXPIRY", value_name = "TIME", default_value = "7d", value_parser = duration)]
    pub(super) journal_expiry: Duration,

    /// How long a client or an agent may be silent before it counts as lost
    #[arg(long, env = "FARPOOL_HEARTBEAT_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(super) heartbeat_timeout: Duration,

    /// How long a client or an agent may take to come back when its connection was lost
    ///
    /// Until then what it has and what it was sent is kept, and it goes on as if nothing had happened. Later its items run
    /// elsewhere, or its pool is stopped.
    #[arg(long, env = "FARPOOL_RECONNECT_GRACE", value_name = "TIME", default_value = "500ms", value_parser = duration)]
    pub(super) reconnect_grace: Duration,

    /// Connections that may be open at once; further ones wait to be accepted
    #[arg(long, env = "FARPOOL_MAX_CONNECTIONS", value_name = "COUNT", default_value = "10000",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_connections: u32,

    #[command(flatten)]
    _file: ConfigFile,
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

impl Flags {
    /// Why it must not listen where it should, if it is so.
    pub(super) fn in_reach(&self) -> Option<String> {
        let listen = self.listen;
        (!listen.ip().is_loopback() && !self.insecure).then(|| {
            format!(
                "other hosts can reach {listen}, and there is no authentication yet: whoever connects can run any program \
                 on the agents.\nIf the network is yours alone, say so with --insecure; otherwise listen on 127.0.0.1"
            )
        })
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let example = "an address is host:port, as in 127.0.0.1:7070";
    let mut found = text.to_socket_addrs().map_err(|error| format!("{error}; {example}"))?;
    found.next().ok_or_else(|| example.to_owned())
}
