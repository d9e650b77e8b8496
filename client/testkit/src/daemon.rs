//! A program that a test starts and listens to: a daemon, or a client.

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

/// How long anything may take that takes some milliseconds on a quiet machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long what it said last may take to be read.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// So much of what it has said is shown with a failure.
const SHOWN_BYTES: usize = 4 << 10;

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    /// Its end is what some wait for.
    stdin: Option<ChildStdin>,
    said: Arc<Said>,
    /// So many lines were waited for.
    heard: usize,
}

/// What it has written, to its stdout and its stderr.
#[derive(Debug, Default)]
struct Said {
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
    /// Starts it.
    pub fn start(name: &str, command: impl BorrowMut<Command>) -> Daemon {
        Daemon::launch(name, command, None)
    }

    /// The same; what it says is also appended to a file in this folder, behind what others of this name have said.
    pub fn start_with_log(name: &str, command: impl BorrowMut<Command>, folder: &Path) -> Daemon {
        let file = OpenOptions::new().create(true).append(true).open(log(name, folder));
        Daemon::launch(name, command, Some(file.expect("the test's folder can be written")))
    }

    fn launch(name: &str, mut command: impl BorrowMut<Command>, file: Option<File>) -> Daemon {
        let command = command.borrow_mut();
        let (reader, writer) = io::pipe().expect("there are descriptors left");
        command.stdout(writer.try_clone().expect("there are descriptors left")).stderr(writer);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        // It has let go of the pipe then, whose end is to be seen.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let said = Arc::<Said>::default();
        let own = Arc::clone(&said);
        thread::spawn(move || own.listen(reader, file));
        Daemon { name: name.to_owned(), stdin: child.stdin.take(), child, said, heard: 0 }
    }

    /// Returns what the test calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, unless it has ended: its number may be somebody else's then.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let _ = processes::send(self.pid(), signal);
        }
    }

    /// Ends its input.
    pub fn tell_to_end(&mut self) {
        self.stdin = None;
    }

    /// Waits for the next line with these words, and returns it.
    #[track_caller]
    pub fn wait_for(&mut self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let said = Arc::clone(&self.said);
        let mut lines = said.lines();
        loop {
            let (found, over) = (lines.find(&mut self.heard, words), lines.over);
            match found {
                Some(line) => return line,
                None if over || Instant::now() > deadline => {
                    drop(lines);
                    panic!("{} does not say {words:?}; it said:\n{}", self.name, self.tail());
                }
                None => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    lines = said.changed.wait_timeout(lines, left).expect("nobody panics with it").0;
                }
            }
        }
    }

    /// The same for a test that does other things meanwhile; somebody else limits how long it takes.
    pub async fn says(&mut self, words: &str) -> String {
        let mut heard = self.heard;
        let line = self.says_behind(&mut heard, words).await;
        self.heard = heard;
        line
    }

    /// The same for a line that may have come before.
    pub async fn says_ever(&self, words: &str) -> String {
        self.says_behind(&mut 0, words).await
    }

    async fn says_behind(&self, heard: &mut usize, words: &str) -> String {
        let line = poll_fn(|context| {
            let mut lines = self.said.lines();
            match lines.find(heard, words) {
                None if !lines.over => {
                    lines.waker = Some(context.waker().clone());
                    Poll::Pending
                }
                found => Poll::Ready(found),
            }
        });
        match line.await {
            Some(line) => line,
            None => panic!("{} has ended without {words:?}; it said:\n{}", self.name, self.said()),
        }
    }

    /// Waits until it says nothing any more, since it and what it has started have ended.
    pub async fn falls_silent(&mut self) {
        poll_fn(|context| {
            let mut lines = self.said.lines();
            lines.waker = Some(context.waker().clone());
            if lines.over { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Returns how many lines with these words it has written so far. Who waits then, waits for lines behind all those.
    pub fn times_said(&mut self, words: &str) -> usize {
        let lines = self.said.lines();
        self.heard = lines.lines.len();
        lines.lines.iter().filter(|line| line.contains(words)).count()
    }

    /// Returns all that it has said so far.
    pub fn said(&self) -> String {
        self.said.lines().lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Returns the last of it, for messages.
    pub fn tail(&self) -> String {
        let said = self.said();
        let from = said.ceil_char_boundary(said.len().saturating_sub(SHOWN_BYTES));
        said[from..].lines().map(|line| format!("    {line}\n")).collect()
    }

    /// Returns how it has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end, but no longer than this.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus, String> {
        let start = Instant::now();
        loop {
            match self.ended() {
                Some(status) => {
                    self.said.wait_until_over();
                    return Ok(status);
                }
                None if start.elapsed() > patience => {
                    return Err(format!("{} is still there after {patience:?}; it said:\n{}", self.name, self.tail()));
                }
                None => thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Kills it.
    pub fn kill(&mut self) {
        // Errors mean that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns the file to which those of this name are logged.
pub fn log(name: &str, folder: &Path) -> std::path::PathBuf {
    folder.join(format!("{name}.log"))
}

impl Said {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().expect("nobody panics with it")
    }

    /// Reads to the end.
    fn listen(&self, from: PipeReader, mut file: Option<File>) {
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

    /// Waits until all is read. Somebody else may hold the pipe, and is not waited for.
    fn wait_until_over(&self) {
        let over = self.changed.wait_timeout_while(self.lines(), LAST_WORDS, |lines| !lines.over);
        drop(over.expect("nobody panics with it"));
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
    /// The next line with these words, behind those that were heard.
    fn find(&self, heard: &mut usize, words: &str) -> Option<String> {
        let line = self.lines[*heard..].iter().position(|line| line.contains(words));
        let found = line.map(|at| *heard + at);
        *heard = found.map_or(self.lines.len(), |at| at + 1);
        found.map(|at| self.lines[at].clone())
    }
}
