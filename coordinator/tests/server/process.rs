//! The program: its flags, its lines, its signals.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farpool-coordinator"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FARPOOL_")) {
        command.env_remove(name);
    }
    command.args(["--listen", "127.0.0.1:0", "--programs"]).arg(scratch("programs"));
    command
}

fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()))
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command().args(args).output().expect("it can be started");
    let text = |bytes| String::from_utf8(bytes).expect("it is text");
    (status.code(), text(stdout), text(stderr))
}

struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it can be started");
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    fn line(&self, words: &str) -> String {
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(20)) {
            if line.contains(words) {
                return line;
            }
            seen.push(line);
        }
        panic!("no line has {words:?}: {seen:?}")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
    }

    fn ends(mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

#[test]
fn help_teaches_and_the_version_is_told() {
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for words in ["--listen", "FARPOOL_LISTEN", "--insecure", "--memory", "--config", "Examples:", "SIGTERM"] {
        assert!(help.contains(words), "{words}");
    }
    let (code, version, _) = run(&["--version"]);
    assert_eq!((code, version), (Some(0), format!("farpool-coordinator {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let check = |args: &[&str], code, words: &[&str]| {
        let (found, _, text) = run(args);
        assert_eq!(found, Some(code), "{text}");
        words.iter().for_each(|words| assert!(text.contains(words), "{words}: {text}"));
    };
    check(&["--lisen", "x"], 2, &["--lisen", "--listen"]);
    check(&["--memory", "lots"], 2, &["lots", "--memory", "4GiB"]);
    let file = scratch("wrong.toml");
    std::fs::write(&file, "memroy = '1GiB'\n").expect("a file can be written");
    check(&["--config", &file.display().to_string()], 2, &["wrong.toml", "memroy", "memory"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = taken.local_addr().expect("it has an address").to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_farpool-coordinator"));
    let output = command.args(["--listen", &address, "--programs"]).arg(scratch("taken")).output();
    let output = output.expect("it can be started");
    let text = String::from_utf8(output.stderr).expect("it is text");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&address) && text.contains("another port with --listen"), "{text}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_farpool-coordinator"));
    let output = command.args(["--listen", "0.0.0.0:0"]).output().expect("it can be started");
    let text = String::from_utf8(output.stderr).expect("it is text");
    assert!(output.status.code() == Some(2) && text.contains("--insecure"), "{text}");
}

#[test]
fn settings_come_from_everywhere_and_a_signal_ends_it() {
    let file = scratch("right.toml");
    std::fs::write(&file, "memory = '64MiB'\nwindow = '1MiB'\nmax-connections = 77\n").expect("it can be written");
    let mut command = command();
    command.env("FARPOOL_CONFIG", &file).env("FARPOOL_WINDOW", "2MiB").args(["--memory", "128MiB"]);
    let server = Running::start(&mut command);
    let settings = server.line("memory=");
    for words in ["memory=128MiB", "window=2MiB", "max-connections=77", "heartbeat-timeout=5s"] {
        assert!(settings.contains(words), "{words}: {settings}");
    }
    let listening = server.line("listening");
    let address = listening.strip_prefix("farpool-coordinator: listening on http://").expect("it says where");
    let _open = std::net::TcpStream::connect(address).expect("it listens there");
    server.signal(Signal::SIGTERM);
    server.line("SIGTERM");
    assert_eq!(server.ends(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let server = Running::start(&mut command());
    let listening = server.line("listening");
    let address = listening.rsplit("http://").next().expect("it says where").to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it can be made");
    runtime.block_on(async {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("it is an address");
        let channel = channel.connect().await.expect("it listens there");
        let client = crate::client::Client::over(channel).await;
        client.ask(crate::client::Ask::OpenPool(crate::client::open_pool()));
        let mut client = client;
        assert!(matches!(client.next().await, crate::client::Told::Welcome(_)));
        server.signal(Signal::SIGINT);
        server.line("waiting for 1 pool");
        server.signal(Signal::SIGINT);
    });
    assert_eq!(server.ends(), Some(130));
}
