//! The program: its flags, output and signals.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use bytes::Bytes;
use farpool_proto::v1::{ClosePool, Items};
use farpool_testkit::cable::Cable;
use farpool_testkit::daemon::{Daemon, PATIENCE};
use nix::sys::signal::Signal;
use tonic::transport::{Channel, Endpoint};

use crate::client::{Client, Event, Request, open_pool, open_pool_as};
use crate::server::{connect, soon};

pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farpool-coordinator"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FARPOOL_")) {
        command.env_remove(name);
    }
    command.args(["--listen", "127.0.0.1:0"]);
    command
}

pub(crate) fn with_programs() -> Command {
    let mut command = command();
    command.arg("--programs").arg(scratch("programs"));
    command
}

fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()))
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = with_programs().args(args).output().expect("cannot start the coordinator");
    let text = |bytes| String::from_utf8(bytes).expect("the output is not UTF-8");
    (status.code(), text(stdout), text(stderr))
}

pub(crate) struct Running(Daemon);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(Daemon::start("the coordinator", command))
    }

    /// Waits for a line with these words, and returns it.
    pub(crate) async fn line(&mut self, words: &str) -> String {
        soon(words, self.0.wait_for_line_since_start(words)).await
    }

    pub(crate) async fn address(&mut self) -> SocketAddr {
        let listening = self.line("listening").await;
        listening.rsplit_once("http://").expect("the line has no address").1.parse().expect("invalid address")
    }

    pub(crate) async fn connect(&mut self) -> Channel {
        let listening = self.line("listening").await;
        let address = listening.rsplit_once('=').expect("the line has no address").1.to_owned();
        Endpoint::from_shared(address)
            .expect("invalid address")
            .connect()
            .await
            .expect("cannot connect to the coordinator")
    }

    /// Returns its peak memory in bytes.
    pub(crate) fn peak(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.0.pid())).expect("the coordinator has exited");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the system does not report it");
        let kib = line.trim().trim_end_matches(" kB").parse::<u64>().expect("the peak is not a number");
        kib << 10
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        self.0.signal(signal);
    }

    pub(crate) fn ends(mut self) -> Option<i32> {
        self.0.wait(PATIENCE).unwrap_or_else(|wrong| panic!("{wrong}")).code()
    }
}

#[test]
fn help_and_version_are_printed() {
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for words in ["--listen", "FARPOOL_LISTEN", "--insecure", "--memory", "--config", "Examples:", "SIGTERM"] {
        assert!(help.contains(words), "{words}");
    }
    let (code, version, _) = run(&["--version"]);
    // Release builds name their commit too.
    let told = format!("farpool-coordinator {}", env!("CARGO_PKG_VERSION"));
    assert!(code == Some(0) && version.starts_with(&told) && version.lines().count() == 1, "{version}");
}

#[test]
fn errors_say_what_to_do() {
    let check = |args: &[&str], code, words: &[&str]| {
        let (found, _, text) = run(args);
        assert_eq!(found, Some(code), "{text}");
        words.iter().for_each(|words| assert!(text.contains(words), "{words}: {text}"));
    };
    check(&["--lisen", "x"], 2, &["--lisen", "--listen"]);
    check(&["--memory", "lots"], 2, &["lots", "--memory", "4GiB"]);
    check(&["--log-format", "xml"], 2, &["--log-format", "xml", "text or json"]);
    let file = scratch("wrong.toml");
    std::fs::write(&file, "memroy = '1GiB'\n").expect("cannot write a file");
    check(&["--config", &file.display().to_string()], 2, &["wrong.toml", "memroy", "memory"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("no free port");
    let address = taken.local_addr().expect("the listener has no address").to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_farpool-coordinator"));
    let output = command.args(["--listen", &address, "--programs"]).arg(scratch("taken")).output();
    let output = output.expect("cannot start the coordinator");
    let text = String::from_utf8(output.stderr).expect("the output is not UTF-8");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&address) && text.contains("another port with --listen"), "{text}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_farpool-coordinator"));
    let output = command.args(["--listen", "0.0.0.0:0"]).output().expect("cannot start the coordinator");
    let text = String::from_utf8(output.stderr).expect("the output is not UTF-8");
    assert!(output.status.code() == Some(2) && text.contains("--insecure"), "{text}");
}

#[tokio::test]
async fn variables_may_be_empty_and_switches_take_numbers() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farpool-coordinator"));
    command.arg("--programs").arg(scratch("programs"));
    for name in ["LISTEN", "MEMORY", "WINDOW", "JOURNAL", "JOURNAL_SIZE", "MAX_CONNECTIONS", "CONFIG"] {
        command.env(format!("FARPOOL_{name}"), "");
    }
    let mut server = Running::start(command.env("FARPOOL_INSECURE", "1").args(["--listen", "0.0.0.0:0"]));
    let settings = server.line("memory=").await;
    for words in ["listen=0.0.0.0:0", "window=64MiB", "max-connections=10000", "journal=none"] {
        assert!(settings.contains(words), "{words}: {settings}");
    }
    for value in ["", "0", "false"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farpool-coordinator"));
        let output = command.args(["--listen", "0.0.0.0:0"]).env("FARPOOL_INSECURE", value).output();
        let output = output.expect("cannot start the coordinator");
        let text = String::from_utf8(output.stderr).expect("the output is not UTF-8");
        assert!(output.status.code() == Some(2) && text.contains("--insecure"), "{value:?}: {text}");
    }
}

#[tokio::test]
async fn settings_come_from_all_sources_and_a_signal_ends_it() {
    let file = scratch("right.toml");
    std::fs::write(&file, "memory = '64MiB'\nwindow = '1MiB'\nmax-connections = 77\n").expect("cannot write the file");
    let mut command = with_programs();
    command.env("FARPOOL_CONFIG", &file).env("FARPOOL_WINDOW", "2MiB").args(["--memory", "128MiB"]);
    let mut server = Running::start(&mut command);
    let settings = server.line("memory=").await;
    for words in ["memory=128MiB", "window=2MiB", "max-connections=77", "heartbeat-timeout=5s"] {
        assert!(settings.contains(words), "{words}: {settings}");
    }
    let listening = server.line("listening").await;
    let address = listening.split_once(" INFO listening address=http://").expect("the line has no address").1;
    let _open = std::net::TcpStream::connect(address).expect("cannot connect to the coordinator");
    server.signal(Signal::SIGTERM);
    server.line("SIGTERM").await;
    assert_eq!(server.ends(), Some(0));
}

/// The settings come from all sources. The output is a settings file with the same effect.
#[test]
fn settings_are_shown_with_their_sources() {
    let (file, shown) = (scratch("shown.toml"), scratch("again.toml"));
    std::fs::write(&file, "memory = '64MiB'\nwindow = '1GiB'\nmax-connections = 77\n").expect("cannot write the file");
    let file = file.display().to_string();
    let show = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farpool-coordinator"));
        let output = command.env_clear().envs(variables.iter().copied()).args(args).arg("--print-config").output();
        let Output { status, stdout, stderr } = output.expect("cannot start the coordinator");
        let text = |bytes| String::from_utf8(bytes).expect("the output is not UTF-8");
        (status.code(), text(stdout), text(stderr))
    };
    let variables = [("FARPOOL_LOG_FORMAT", "json"), ("FARPOOL_INSECURE", "1"), ("FARPOOL_JOURNAL", "/j")];
    let (code, first, stderr) = show(&["--config", &file, "--listen", "0.0.0.0:0"], &variables);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let expected = format!(
        "listen = \"0.0.0.0:0\" # flag\n\
         insecure = true # environment variable FARPOOL_INSECURE\n\
         memory = \"64MiB\" # file {file}\n\
         programs = \"/j/programs\" # default\n\
         program-cache = \"4GiB\" # default\n\
         window = \"16MiB\" # file {file}\n\
         journal = \"/j\" # environment variable FARPOOL_JOURNAL\n\
         journal-size = \"10GiB\" # default\n\
         journal-expiry = \"7d\" # default\n\
         heartbeat-timeout = \"5s\" # default\n\
         reconnect-grace = \"500ms\" # default\n\
         max-connections = 77 # file {file}\n\
         log-format = \"json\" # environment variable FARPOOL_LOG_FORMAT\n"
    );
    assert_eq!(first, expected);
    std::fs::write(&shown, &first).expect("cannot write the file");
    let (code, again, _) = show(&["--config", &shown.display().to_string()], &[]);
    let values = |text: &str| text.lines().filter_map(|line| Some(line.split_once(" # ")?.0.to_owned())).collect();
    let (first, again): (Vec<_>, Vec<_>) = (values(&first), values(&again));
    assert_eq!((code, first), (Some(0), again));
    // Invalid settings are not shown.
    let (code, stdout, stderr) = show(&["--listen", "0.0.0.0:0"], &[]);
    assert!(code == Some(2) && stdout.is_empty() && stderr.contains("--insecure"), "{stdout} {stderr}");
    let (_, stdout, _) = show(&[], &[]);
    assert!(stdout.contains("# journal: not set, so no job can be detached # default\n"), "{stdout}");
}

#[tokio::test]
async fn the_log_can_be_json() {
    let mut server = Running::start(with_programs().args(["--log-format", "json", "--memory", "64MiB"]));
    let started = server.line("coordinator started").await;
    assert!(started.starts_with("{\"time\":\"20") && started.ends_with('}'), "{started}");
    for words in ["\"level\":\"INFO\"", "\"memory\":\"64MiB\"", "\"max-connections\":10000"] {
        assert!(started.contains(words), "{words}: {started}");
    }
    let listening = server.line("\"event\":\"listening\",\"address\":\"http://127.0.0.1:").await;
    assert!(listening.ends_with("\"}"), "{listening}");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut server = Running::start(&mut with_programs());
    let _client = Client::opened_over(server.connect().await, open_pool()).await;
    server.signal(Signal::SIGINT);
    let waits = server.line("waiting for open pools").await;
    assert!(waits.contains(" pools=1 clients=127.0.0.1:"), "{waits}");
    server.signal(Signal::SIGINT);
    assert_eq!(server.ends(), Some(130));
}

#[tokio::test]
async fn a_hangup_is_logged_and_ends_nothing() {
    let mut server = Running::start(&mut with_programs());
    let channel = server.connect().await;
    server.signal(Signal::SIGHUP);
    server.line("SIGHUP").await;
    Client::opened_over(channel, open_pool()).await.close().await;
    server.signal(Signal::SIGTERM);
    assert_eq!(server.ends(), Some(0));
}

#[tokio::test]
async fn a_client_that_disconnects_after_closing_its_pool_is_not_lost() {
    let mut server = Running::start(with_programs().args(["--reconnect-grace", "100ms"]));
    let listening = server.line("listening").await;
    let address = listening.rsplit_once("//").expect("the line has no address").1.parse().expect("invalid address");
    let mut kept = Vec::new();
    for closes in [true, false] {
        let cable = Cable::to(address);
        let mut client = Client::opened_over(connect(cable.socket()).await, open_pool_as(7 + u8::from(closes))).await;
        if closes {
            client.send(Request::ClosePool(ClosePool { now: false }));
            while !matches!(client.next().await, Event::PoolClosed(_)) {}
        }
        // As the kernel does when a process ends.
        cable.cut();
        kept.push((cable, client));
    }
    // Sessions are closed in the order in which their clients disconnected.
    server.line("client session closed").await;
    assert_eq!(server.0.count_lines("client session closed"), 1, "{}", server.0.output());
    server.signal(Signal::SIGTERM);
    server.line("shut down").await;
    assert_eq!(server.0.count_lines("client session closed"), 1, "{}", server.0.output());
}

#[tokio::test]
async fn the_memory_of_the_process_is_bounded() {
    const MIB: u64 = 1 << 20;
    let mut server =
        Running::start(with_programs().args(["--memory", "32MiB", "--window", "8MiB", "--heartbeat-timeout", "60s"]));
    let item = Bytes::from(vec![7; MIB as usize]);
    let ends = Bytes::copy_from_slice(&(MIB as u32).to_le_bytes());
    let mut clients = Vec::new();
    for _ in 0..4 {
        let client = Client::opened_over(server.connect().await, open_pool()).await;
        // 200 MiB each, which no agent runs.
        for job in 1..=25 {
            client.open_job(job);
            for first in 0..8 {
                client.send(Request::Items(Items { job, first, data: item.clone(), ends: ends.clone() }));
            }
        }
        clients.push(client);
    }
    server.line("the memory is full").await;
    let (mut before, mut now) = (0, server.peak());
    while before < now {
        tokio::time::sleep(Duration::from_millis(500)).await;
        before = std::mem::replace(&mut now, server.peak());
    }
    // In addition to the held bytes, each client may have 8 MiB in flight.
    assert!(now < (32 + 4 * 8 + 60) * MIB, "{} MiB", now / MIB);
}

/// A container, or a service with a limit, on a host with control groups of version 1.
#[tokio::test]
async fn the_limit_of_a_control_group_counts() {
    let groups = std::fs::read_to_string("/proc/self/cgroup").expect("the system does not report it");
    let own = groups.lines().find_map(|line| line.split_once(":memory:")).map_or("", |(_, path)| path);
    let group = PathBuf::from(format!("/sys/fs/cgroup/memory{own}/farpool-test-{}", std::process::id()));
    if own.is_empty() || std::fs::create_dir(&group).is_err() {
        return eprintln!("no memory group of version 1 can be made here: nothing was tested");
    }
    let limited = std::fs::write(group.join("memory.limit_in_bytes"), (512_u64 << 20).to_string());
    let mut command = Command::new("sh");
    let enter = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
    command.args(["-c", enter]).arg(&group).arg(env!("CARGO_BIN_EXE_farpool-coordinator"));
    command.args(["--listen", "127.0.0.1:0", "--programs"]).arg(scratch("group"));
    let mut server = Running::start(command.env_remove("FARPOOL_MEMORY"));
    let line = server.line("memory=").await;
    drop(server);
    let removed = std::fs::remove_dir(&group);
    limited.expect("cannot set the limit");
    assert!(line.contains("memory=128MiB"), "{line}");
    removed.expect("cannot remove the control group");
}

/// Processes of the same user, such as tasks, can read neither the environment nor the memory of the daemon.
#[tokio::test]
async fn other_processes_cannot_read_its_memory() {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65_534;
    let is_root = nix::unistd::geteuid().is_root();
    // In a directory from which everybody may run it.
    let place = std::env::temp_dir().join(format!("farpool-coordinator-{}", std::process::id()));
    std::fs::create_dir_all(&place).expect("cannot create a folder");
    let program = place.join("coordinator");
    std::fs::copy(env!("CARGO_BIN_EXE_farpool-coordinator"), &program).expect("cannot copy the coordinator");
    let programs = place.join("programs");
    std::fs::create_dir_all(&programs).expect("cannot create a folder");
    let mut command = Command::new(&program);
    command.args(["--listen", "127.0.0.1:0", "--programs"]).arg(&programs);
    if is_root {
        std::os::unix::fs::chown(&programs, Some(NOBODY), Some(NOBODY)).expect("cannot change the owner");
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut server = Running::start(&mut command);
    server.line("listening").await;
    // Readable processes belong to their user.
    let owner =
        std::fs::metadata(format!("/proc/{}/environ", server.0.pid())).expect("the coordinator has exited").uid();
    std::fs::remove_dir_all(&place).expect("cannot remove the folder");
    assert_eq!(owner, 0);
}
