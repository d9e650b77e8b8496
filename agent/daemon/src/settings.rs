//! The daemon's settings.

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use farpool_common::address::Address;
use farpool_common::log::{Format, Log, info};
use farpool_common::settings::{self, ConfigFile, SettingsReport, Stop};
use farpool_common::units::{self, ByteSize, duration};
use farpool_net::Secret;
use farpool_proto::v1::{AgentHello, Label};

use farpool_agent::Agent;

/// Labels that every agent sets itself.
const OWN_LABELS: [&str; 3] = ["host", "arch", "os"];

const ABOUT: &str = "Runs the tasks of a farpool cluster on this host";

const LONG_ABOUT: &str = "Runs the tasks of a farpool cluster on this host.

It connects to the coordinator, offers this host's slots, and runs worker processes for the pools that use them. It \
needs no open port and no other software: programs come from the clients, and are kept in the --programs directory. If \
the coordinator cannot be reached, the agent keeps retrying, and runs the items it has until --orphan-timeout expires.";

const EXAMPLES: &str = "Examples:
  farpool-agent
      offers all cores to the coordinator on this machine
  farpool-agent --coordinator http://head:7070 --insecure --label gpu=a100
      joins a cluster in a trusted network; jobs can require the label
  farpool-agent --slots 4 --program-dir /opt/tools/bin
      runs at most 4 worker processes; programs already in that directory are not sent again

On SIGTERM or Ctrl-C it finishes running items, returns the others, and exits. A second signal stops it \
at once.";

#[derive(Debug, Parser)]
#[command(name = "farpool-agent", version = env!("FARPOOL_VERSION"), about = ABOUT, long_about = LONG_ABOUT, after_long_help = EXAMPLES)]
struct Flags {
    #[command(flatten)]
    file: ConfigFile,

    /// Where the coordinator listens
    #[arg(long, env = "FARPOOL_COORDINATOR", value_name = "URL", default_value = "http://127.0.0.1:7070")]
    coordinator: Address,

    /// Worker processes that run at once, across all pools [default: the cores that this process may use]
    #[arg(long, env = "FARPOOL_SLOTS", value_name = "N", value_parser = units::count)]
    slots: Option<u32>,

    /// A property of this host that pools and jobs can require; can be given more than once
    ///
    /// The labels host, arch and os are set automatically.
    #[arg(long = "label", env = "FARPOOL_LABELS", value_name = "KEY=VALUE", value_parser = label, value_delimiter = ',')]
    labels: Vec<Label>,

    /// The name of this host in labels, errors and output [default: its host name]
    #[arg(long, env = "FARPOOL_HOST", value_name = "NAME")]
    host: Option<String>,

    /// A directory with programs that clients need not send; can be given more than once
    ///
    /// The agent finds executables in it by their digest, under any name, including those added later. If it cannot read
    /// the directory, it logs a warning at startup.
    #[arg(long = "program-dir", env = "FARPOOL_PROGRAM_DIRS", value_name = "DIR", value_delimiter = ':')]
    program_directories: Vec<PathBuf>,

    /// Where to keep programs that clients send [default: below $XDG_CACHE_HOME, or /var/cache/farpool, or $TMPDIR]
    ///
    /// Agents on one host may share it. It should be on a local disk, and must not be mounted noexec.
    #[arg(long, env = "FARPOOL_PROGRAMS", value_name = "DIR")]
    programs: Option<PathBuf>,

    /// Bytes of programs to keep; the least recently used are evicted first
    #[arg(long, env = "FARPOOL_PROGRAM_CACHE", value_name = "SIZE", default_value = "4GiB")]
    program_cache: ByteSize,

    /// How long the coordinator may be silent before it counts as lost
    #[arg(long, env = "FARPOOL_HEARTBEAT_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = duration)]
    heartbeat_timeout: Duration,

    /// Orphan timeout: how long tasks may keep running after the coordinator is lost
    ///
    /// If the agent reaches a coordinator in time, the tasks resume under it. Otherwise they are killed.
    #[arg(long, env = "FARPOOL_ORPHAN_TIMEOUT", value_name = "TIME", default_value = "60s", value_parser = duration)]
    orphan_timeout: Duration,

    /// Allow a coordinator on another machine although there is no authentication yet
    ///
    /// Anyone who controls that address can run programs on this host. Use this only in a network that you alone control.
    #[arg(long, env = "FARPOOL_INSECURE")]
    insecure: bool,

    /// How lines on stderr are written: text or json
    #[arg(long, env = "FARPOOL_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: Format,
}

/// The settings in effect.
#[derive(Debug)]
pub(super) struct Settings {
    /// Proves on a new connection that this is the same agent, for as long as this process lives.
    pub(super) secret: Secret,
    pub(super) coordinator: Address,
    pub(super) slots: u32,
    /// All labels, including those that the agent sets itself.
    pub(super) labels: Vec<Label>,
    pub(super) host: String,
    pub(super) program_directories: Vec<PathBuf>,
    /// Directories where programs may be kept, the best one first.
    pub(super) programs: Vec<PathBuf>,
    /// In bytes.
    pub(super) program_cache: u64,
    pub(super) heartbeat_timeout: Duration,
    pub(super) orphan_timeout: Duration,
    insecure: bool,
    pub(super) log: Log,
}

impl Settings {
    /// Loads the settings of a process with these arguments, the first of which is its name.
    ///
    /// # Errors
    /// If anything is wrong with them, and for `--help`, `--version` and `--print-config`.
    pub(super) fn load(args: impl IntoIterator<Item = OsString>) -> Result<Settings, Stop> {
        let (flags, report) = settings::load::<Flags>(args)?;
        let settings = Settings::resolve(flags);
        let settings = settings.map_err(|text| Flags::command().error(ErrorKind::ValueValidation, text))?;
        if report.print_requested() {
            Err(Stop::PrintConfig(settings.with_effective_values(report)))
        } else {
            Ok(settings)
        }
    }

    /// Adds the values that some settings get on this host.
    fn with_effective_values(&self, report: SettingsReport) -> SettingsReport {
        let places = self.programs.iter().map(|place| place.display().to_string());
        let places = format!("the first usable one of: {}", places.collect::<Vec<_>>().join(", "));
        report.with("slots", self.slots).with("host", &self.host).with_note("programs", places)
    }

    /// Logs the settings in effect, and the directory that programs are kept in.
    pub(super) fn announce(&self, programs: &Path) {
        let joined = |list: Vec<String>, by| Some(list.join(by)).filter(|_| !list.is_empty());
        let labels = self.labels[OWN_LABELS.len()..].iter().map(|label| format!("{}={}", label.key, label.value));
        let directories = self.program_directories.iter().map(|directory| directory.display().to_string());
        info!(
            self.log,
            version = env!("CARGO_PKG_VERSION"),
            coordinator = %self.coordinator,
            slots = self.slots,
            host = self.host,
            label = joined(labels.collect(), ","),
            "program-dir" = joined(directories.collect(), ":"),
            "program-cache" = %ByteSize(self.program_cache),
            "heartbeat-timeout" = units::format_exact(self.heartbeat_timeout),
            "orphan-timeout" = units::format_exact(self.orphan_timeout),
            insecure = self.insecure,
            programs = %programs.display(),
            "agent started"
        );
    }

    /// Creates an agent with these settings.
    pub(super) fn agent(&self) -> io::Result<Agent> {
        let mut settings = farpool_agent::Settings::host(self.slots);
        settings.host = Some(self.host.clone());
        settings.id = Some(u128::from_be_bytes(self.secret.id()));
        Agent::with(settings)
    }

    /// Returns the message that the agent introduces itself with.
    pub(super) fn hello(&self) -> AgentHello {
        AgentHello {
            host: self.host.clone(),
            slots: self.slots,
            version: Some(farpool_proto::version()),
            secret: self.secret.to_bytes(),
            labels: self.labels.clone(),
            ..AgentHello::default()
        }
    }

    fn resolve(flags: Flags) -> Result<Settings, String> {
        check_coordinator(&flags.coordinator, flags.insecure)?;
        let cores = || std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
        let own_name = || nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
        let host = match flags.host {
            Some(host) => host,
            None => own_name().map_err(|error| format!("cannot read the host's name: {error}; set it with --host"))?,
        };
        if host.is_empty() {
            return Err("the host's name is empty: set it with --host".to_owned());
        }
        let own = [&*host, std::env::consts::ARCH, std::env::consts::OS];
        let own = OWN_LABELS.iter().zip(own).map(|(key, value)| Label { key: (*key).into(), value: value.into() });
        Ok(Settings {
            secret: Secret::random(),
            coordinator: flags.coordinator,
            slots: flags.slots.unwrap_or_else(cores),
            labels: own.chain(flags.labels).collect(),
            host,
            program_directories: flags.program_directories,
            programs: flags.programs.map_or_else(usual_places, |programs| vec![programs]),
            program_cache: flags.program_cache.0,
            heartbeat_timeout: flags.heartbeat_timeout,
            orphan_timeout: flags.orphan_timeout,
            insecure: flags.insecure,
            log: Log::new(flags.log_format),
        })
    }
}

fn check_coordinator(address: &Address, insecure: bool) -> Result<(), String> {
    let host = address.host();
    let ip: Option<IpAddr> = host.parse().ok();
    if insecure || host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
        return Ok(());
    }
    Err(format!(
        "the coordinator at {address} (--coordinator) is on another machine, and there is no authentication yet: anyone who answers there can run \
         programs on this host, and anyone in between can read and change the traffic. If you trust everyone in \
         that network, add --insecure"
    ))
}

fn label(text: &str) -> Result<Label, String> {
    match text.split_once('=') {
        Some((key, _)) if OWN_LABELS.contains(&key) => {
            let way_out = if key == "host" { "; --host changes it" } else { "" };
            Err(format!("the label {key} is set by the agent itself{way_out}"))
        }
        Some((key, value)) if !key.is_empty() => Ok(Label { key: key.into(), value: value.into() }),
        _ => Err("a label is written KEY=VALUE, as in gpu=a100".to_owned()),
    }
}

fn usual_places() -> Vec<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let own = format!("farpool-programs-{}", nix::unistd::geteuid());
    let places = [cache.map(|cache| cache.join("farpool/programs")), Some("/var/cache/farpool/programs".into())];
    places.into_iter().flatten().chain([std::env::temp_dir().join(own)]).collect()
}
