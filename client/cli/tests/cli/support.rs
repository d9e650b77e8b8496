//! Runs the binary, and checks that calls do not hang and leave no process behind.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use farpool_testkit::folder::Folder;
use farpool_testkit::processes::{self, TAG};
use farpool_testkit::waiting;
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;

/// A call that takes longer than this hangs: the slowest takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A call of the binary.
pub(crate) struct Call {
    command: Command,
    tag: String,
    input: Vec<u8>,
}

/// The result of a call.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Returns `farpool` with these arguments.
pub(crate) fn farpool<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Call {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let tag = format!("cli.{}.{}", std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed));
    let mut command = Command::new(env!("CARGO_BIN_EXE_farpool"));
    command.args(arguments).env_remove("FARPOOL_ADDRESS").env(TAG, &tag);
    Call { command, tag, input: Vec::new() }
}

/// Returns `farpool map` with this line for the shell and these options, on this machine with two workers. Arguments
/// after `--` are items.
pub(crate) fn map<'a>(line: &'a str, arguments: impl IntoIterator<Item = &'a str>) -> Call {
    farpool(map_arguments(&["map", "-j2"], line, &arguments.into_iter().collect::<Vec<_>>()))
}

/// Returns the beginning of a command line, these options, the line for the shell, and what follows `--` as items.
pub(crate) fn map_arguments<'a>(begin: &[&'a str], line: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    let end = arguments.iter().position(|&argument| argument == "--").unwrap_or(arguments.len());
    let (options, rest) = arguments.split_at(end);
    let items = rest.iter().take(1).map(|_| ":::").chain(rest.iter().skip(1).copied());
    begin.iter().chain(options).copied().chain([line]).chain(items).collect()
}

impl Call {
    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Call {
        self.input = input.into();
        self
    }

    pub(crate) fn change(mut self, change: impl FnOnce(&mut Command)) -> Call {
        change(&mut self.command);
        self
    }

    /// Runs it until it exits.
    #[track_caller]
    pub(crate) fn run(self) -> Done {
        let (mut running, input) = self.start();
        let mut stdin = running.child.stdin.take().expect("stdin is not a pipe");
        // The program need not read all of its input.
        thread::spawn(move || stdin.write_all(&input));
        running.end()
    }

    /// Starts it; the caller writes its input.
    pub(crate) fn spawn(self) -> Running {
        self.start().0
    }

    fn start(mut self) -> (Running, Vec<u8>) {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Shells make background processes ignore SIGINT. If these tests run in the background, their children would inherit
        // that.
        let heed = || {
            // SAFETY: the default disposition runs no code of this process.
            unsafe { signal(Signal::SIGINT, SigHandler::SigDfl) }.map(drop).map_err(Into::into)
        };
        // SAFETY: between fork and exec, only a disposition is set.
        unsafe { self.command.pre_exec(heed) };
        let child = self.command.spawn().expect("cargo has not built it");
        (Running { child, tag: self.tag }, self.input)
    }
}

/// A running call.
pub(crate) struct Running {
    pub(crate) child: Child,
    tag: String,
}

impl Running {
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("cannot run the program");
    }

    /// Waits until it exits.
    #[track_caller]
    pub(crate) fn end(self) -> Done {
        let Running { child, tag } = self;
        let pid = Pid::from_raw(child.id().cast_signed());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(child.wait_with_output()));
        let Ok(output) = receiver.recv_timeout(PATIENCE) else {
            let _ = kill(pid, Signal::SIGKILL);
            panic!("the program did not exit in time");
        };
        assert_gone(&tag);
        let Output { status, stdout, stderr } = output.expect("cannot wait for a child");
        Done { code: status.code(), stdout, stderr }
    }

    /// Waits until it exits. What it has started may take five seconds to exit.
    pub(crate) fn end_killed(self) {
        let Running { mut child, tag } = self;
        child.wait().expect("cannot wait for a child");
        waiting::until_gone(Duration::from_secs(5), || processes::tagged(&tag));
    }

    /// Returns the processes of this call, including itself.
    pub(crate) fn processes(&self) -> Vec<u32> {
        processes::tagged(&self.tag).iter().map(|process| process.pid).collect()
    }
}

impl Done {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    #[track_caller]
    pub(crate) fn assert(&self, code: i32, stdout: &str, stderr: &str) {
        let expected = (Some(code), stdout.to_owned(), stderr.to_owned());
        assert_eq!((self.code, self.stdout(), self.stderr()), expected);
    }

    /// Checks that it succeeded with this stdout and an empty stderr.
    #[track_caller]
    pub(crate) fn assert_prints(&self, stdout: &str) {
        self.assert(0, stdout, "");
    }
}

/// Checks that everything that a call started is gone a second after it.
#[track_caller]
fn assert_gone(tag: &str) {
    let left = waiting::left_after(Duration::from_secs(1), || processes::tagged(tag));
    processes::kill(&left);
    assert!(left.is_empty(), "the program left processes behind:\n{}", processes::list(&left));
}

/// Returns a temporary folder.
pub(crate) fn folder() -> Folder {
    Folder::new("cli")
}

/// Reads this many lines, one byte at a time, so that nothing after them is consumed.
pub(crate) fn lines(reader: &mut impl Read, count: usize) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while text.iter().filter(|&&byte| byte == b'\n').count() < count && reader.read(&mut byte).is_ok_and(|n| n > 0) {
        text.push(byte[0]);
    }
    String::from_utf8(text).expect("the output is not UTF-8")
}

/// Returns this machine's name, as failures show it.
pub(crate) fn host() -> String {
    nix::unistd::gethostname().expect("cannot get the host's name").into_string().expect("the host's name is not UTF-8")
}

/// Reads the records in a file of `--results`.
pub(crate) fn records(path: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
