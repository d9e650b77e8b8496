//! Prints the output of workers, and the session's notices.
//!
//! A separate thread prints, because the reader of this process's stdout may be slow, and results must not wait for it.
//! Output beyond [`MOST_BYTES`] is dropped.

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use farpool_proto::text;
use farpool_proto::v1::{Output, OutputStream};
use farpool_session::Front;
use farpool_session::fork::PerProcess;

use crate::terminal;

/// Most bytes that may wait to be printed.
const MOST_BYTES: usize = 1 << 20;

static PRINTER: PerProcess<Printer> = PerProcess::new();

#[derive(Default)]
struct Printer {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    /// The first entry is being printed.
    waiting: VecDeque<(OutputStream, Vec<u8>)>,
    bytes: usize,
    dropped: usize,
    /// Whether the printing thread was started.
    started: bool,
}

/// Output of workers on a cluster.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum Printed<'a> {
    /// Whole lines on stdout.
    Stdout(&'a [u8]),
    /// Whole lines on stderr.
    Stderr(&'a [u8]),
    /// This many bytes were dropped, because earlier output was not printed in time.
    Dropped(usize),
}

/// The function that gets all output instead, if one was set.
static REDIRECT: OnceLock<fn(Printed<'_>)> = OnceLock::new();

/// Passes the output of workers on clusters to this function from now on, unchanged. For the binary `farpool`.
#[doc(hidden)]
pub fn print_workers_with(printer: fn(Printed<'_>)) {
    // Only the first call counts.
    let _ = REDIRECT.set(printer);
}

/// Shows output and notices of sessions on this program's stdout and stderr.
pub(crate) struct Terminal;

impl Front for Terminal {
    fn output(&self, output: &Output) {
        print(output);
    }

    fn notice(&self, line: &str) {
        print_notice(line);
    }

    fn flush(&self, timeout: Duration) {
        flush(timeout);
    }
}

/// Queues a worker's output for printing, each line prefixed with its origin. On a terminal, control characters are escaped;
/// elsewhere the output is unchanged. Never blocks.
fn print(output: &Output) {
    let stream = match output.stream() {
        OutputStream::Stderr => OutputStream::Stderr,
        OutputStream::Stdout | OutputStream::Unspecified => OutputStream::Stdout,
    };
    let shown = match stream {
        OutputStream::Stderr => io::stderr().is_terminal(),
        OutputStream::Stdout | OutputStream::Unspecified => io::stdout().is_terminal(),
    };
    let label = format!("[{} {}] ", text::Printable(&output.host), output.pid);
    let lines = match REDIRECT.get() {
        Some(_) => output.data.to_vec(),
        None if shown => text::labelled(&label, &output.data),
        None => labelled(&label, &output.data),
    };
    PRINTER.get().enqueue(stream, lines);
}

/// Queues a notice for stderr. Never blocks.
fn print_notice(text: &str) {
    PRINTER.get().enqueue(OutputStream::Stderr, format!("farpool: {}\n", text::Printable(text)).into_bytes());
}

/// Waits until everything is printed, but no longer than `timeout`.
fn flush(timeout: Duration) {
    let (printer, waits) = (PRINTER.get(), |queue: &mut Queue| !queue.waiting.is_empty());
    drop(printer.changed.wait_timeout_while(printer.queue(), timeout, waits));
}

/// Prefixes each line with the label, and ends the last line.
fn labelled(label: &str, output: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(output.len() + 4 * label.len());
    for line in output.split_inclusive(|&byte| byte == b'\n') {
        lines.extend_from_slice(label.as_bytes());
        lines.extend_from_slice(line);
    }
    if lines.last().is_some_and(|&byte| byte != b'\n') {
        lines.push(b'\n');
    }
    lines
}

impl Printer {
    fn enqueue(&'static self, stream: OutputStream, lines: Vec<u8>) {
        let mut queue = self.queue();
        if !lines.is_empty() && queue.bytes + lines.len() <= MOST_BYTES && self.is_started(&mut queue) {
            queue.bytes += lines.len();
            queue.waiting.push_back((stream, lines));
            self.changed.notify_all();
        } else {
            queue.dropped += lines.len();
        }
    }

    /// Starts the thread on first use.
    fn is_started(&'static self, queue: &mut Queue) -> bool {
        let start = || thread::Builder::new().name("farpool-output".to_owned()).spawn(|| self.serve());
        queue.started = queue.started || start().is_ok();
        queue.started
    }

    fn serve(&self) {
        loop {
            let nothing = |queue: &mut Queue| queue.waiting.is_empty();
            let mut queue = self.changed.wait_while(self.queue(), nothing).unwrap_or_else(PoisonError::into_inner);
            let (stream, lines) = match queue.waiting.front_mut() {
                Some((stream, lines)) => (*stream, std::mem::take(lines)),
                None => continue,
            };
            let dropped = std::mem::take(&mut queue.dropped);
            drop(queue);
            write(stream, dropped, &lines);
            let mut queue = self.queue();
            queue.waiting.pop_front();
            queue.bytes -= lines.len();
            self.changed.notify_all();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the lines, after a note on how much was dropped before them.
fn write(stream: OutputStream, dropped: usize, lines: &[u8]) {
    let is_stderr = stream == OutputStream::Stderr;
    if let Some(instead) = REDIRECT.get() {
        if dropped > 0 {
            instead(Printed::Dropped(dropped));
        }
        return instead(if is_stderr { Printed::Stderr(lines) } else { Printed::Stdout(lines) });
    }
    if dropped > 0 {
        let message = format!("farpool: {dropped} bytes of output were dropped, because earlier output was not read\n");
        terminal::write(io::stderr().as_fd(), message.as_bytes());
    }
    match is_stderr {
        true => terminal::write(io::stderr().as_fd(), lines),
        false => terminal::write(io::stdout().as_fd(), lines),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_prefixed_with_its_origin() {
        for (data, expected) in [
            ("one\ntwo\n", "[node7 12] one\n[node7 12] two\n"),
            ("half", "[node7 12] half\n"),
            ("\n\nx", "[node7 12] \n[node7 12] \n[node7 12] x\n"),
            ("", ""),
        ] {
            assert_eq!(String::from_utf8(labelled("[node7 12] ", data.as_bytes())).unwrap(), expected);
        }
    }
}
