//! A program that a test starts, and whose output it reads: a daemon or a client.

use std::borrow::BorrowMut;
use std::fs::{File, OpenOptions};
use std::future::poll_fn;
use std::io::{self, BufRead, BufReader, PipeReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::processes;

/// How long any step may take. On an idle machine it takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long reading its last output may take.
const LAST_OUTPUT: Duration = Duration::from_millis(200);
/// How much of its output is shown with a failure.
const SHOWN_BYTES: usize = 4 << 10;

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    /// Closing it tells some programs to exit.
    stdin: Option<ChildStdin>,
    output: Arc<Captured>,
    /// Number of lines that earlier calls have consumed.
    consumed: usize,
}

/// What it has written to stdout and stderr.
#[derive(Debug, Default)]
struct Captured {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    over: bool,
    waker: Option<Waker>,
}

impl Daemon {
    /// Starts the command.
    pub fn start(name: &str, command: impl BorrowMut<Command>) -> Daemon {
        Daemon::launch(name, command, None)
    }

    /// Starts the command, and appends its output to a file in this folder, which daemons with this name share.
    pub fn start_with_log(name: &str, command: impl BorrowMut<Command>, folder: &Path) -> Daemon {
        let file = OpenOptions::new().create(true).append(true).open(log(name, folder));
        Daemon::launch(name, command, Some(file.expect("cannot write the test's folder")))
    }

    fn launch(name: &str, mut command: impl BorrowMut<Command>, file: Option<File>) -> Daemon {
        let command = command.borrow_mut();
        let (reader, writer) = io::pipe().expect("no free descriptors");
        command.stdout(writer.try_clone().expect("no free descriptors")).stderr(writer);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        // Drops the command's copies of the pipe, so that its end can be detected.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let output = Arc::<Captured>::default();
        let own = Arc::clone(&output);
        thread::spawn(move || own.read(reader, file));
        Daemon { name: name.to_owned(), stdin: child.stdin.take(), child, output, consumed: 0 }
    }

    /// Returns the name that the test gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, unless it has exited: its pid may have been reused.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let _ = processes::send(self.pid(), signal);
        }
    }

    /// Closes its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits for the next line that contains these words, and returns it.
    #[track_caller]
    pub fn wait_for(&mut self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let output = Arc::clone(&self.output);
        let mut lines = output.lines();
        loop {
            let (found, over) = (lines.find(&mut self.consumed, words), lines.over);
            match found {
                Some(line) => return line,
                None if over || Instant::now() > deadline => {
                    drop(lines);
                    panic!("{} wrote no line with {words:?}; its output:\n{}", self.name, self.tail());
                }
                None => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    lines =
                        output.changed.wait_timeout(lines, left).expect("a thread panicked while it held the lock").0;
                }
            }
        }
    }

    /// Waits for the next line that contains these words, and returns it. The caller limits the time.
    pub async fn wait_for_line(&mut self, words: &str) -> String {
        let mut consumed = self.consumed;
        let line = self.find_after(&mut consumed, words).await;
        self.consumed = consumed;
        line
    }

    /// Waits for a line that contains these words, and returns it. It may have been written before an earlier wait.
    pub async fn wait_for_line_since_start(&self, words: &str) -> String {
        self.find_after(&mut 0, words).await
    }

    async fn find_after(&self, consumed: &mut usize, words: &str) -> String {
        let line = poll_fn(|context| {
            let mut lines = self.output.lines();
            match lines.find(consumed, words) {
                None if !lines.over => {
                    lines.waker = Some(context.waker().clone());
                    Poll::Pending
                }
                found => Poll::Ready(found),
            }
        });
        match line.await {
            Some(line) => line,
            None => panic!("{} has ended and wrote no line with {words:?}; its output:\n{}", self.name, self.output()),
        }
    }

    /// Waits for the end of its output: it and all processes it has started have exited.
    pub async fn wait_for_eof(&mut self) {
        poll_fn(|context| {
            let mut lines = self.output.lines();
            lines.waker = Some(context.waker().clone());
            if lines.over { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Returns how many lines with these words it has written so far. Later waits ignore these lines.
    pub fn count_lines(&mut self, words: &str) -> usize {
        let lines = self.output.lines();
        self.consumed = lines.lines.len();
        lines.lines.iter().filter(|line| line.contains(words)).count()
    }

    /// Returns all its output so far.
    pub fn output(&self) -> String {
        self.output.lines().lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Returns the end of its output, for messages.
    pub fn tail(&self) -> String {
        let output = self.output();
        let from = output.ceil_char_boundary(output.len().saturating_sub(SHOWN_BYTES));
        output[from..].lines().map(|line| format!("    {line}\n")).collect()
    }

    /// Returns its exit status, if it has exited.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("cannot wait for a child")
    }

    /// Waits until it exits, but no longer than this.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus, String> {
        let start = Instant::now();
        loop {
            match self.ended() {
                Some(status) => {
                    self.output.wait_until_over();
                    return Ok(status);
                }
                None if start.elapsed() > patience => {
                    return Err(format!("{} still runs after {patience:?}; its output:\n{}", self.name, self.tail()));
                }
                None => thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Kills it.
    pub fn kill(&mut self) {
        // Errors mean that it has exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns the log file of daemons with this name.
pub fn log(name: &str, folder: &Path) -> std::path::PathBuf {
    folder.join(format!("{name}.log"))
}

impl Captured {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().expect("a thread panicked while it held the lock")
    }

    /// Reads to the end.
    fn read(&self, from: PipeReader, mut file: Option<File>) {
        let (mut from, mut line) = (BufReader::new(from), Vec::new());
        while from.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            if let Some(file) = &mut file {
                // A full disk is no reason to stop reading.
                let _ = file.write_all(&line);
            }
            let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
            self.change(|lines| lines.lines.push(text));
            line.clear();
        }
        self.change(|lines| lines.over = true);
    }

    /// Waits until all output is read, but not long: another process may hold the pipe open.
    fn wait_until_over(&self) {
        let over = self.changed.wait_timeout_while(self.lines(), LAST_OUTPUT, |lines| !lines.over);
        drop(over.expect("a thread panicked while it held the lock"));
    }

    fn change(&self, change: impl FnOnce(&mut Lines)) {
        let mut lines = self.lines();
        change(&mut lines);
        if let Some(waker) = lines.waker.take() {
            waker.wake();
        }
        self.changed.notify_all();
    }
}

impl Lines {
    /// Returns the next line with these words after the consumed ones.
    fn find(&self, consumed: &mut usize, words: &str) -> Option<String> {
        let line = self.lines[*consumed..].iter().position(|line| line.contains(words));
        let found = line.map(|at| *consumed + at);
        *consumed = found.map_or(self.lines.len(), |at| at + 1);
        found.map(|at| self.lines[at].clone())
    }
}
