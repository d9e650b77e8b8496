//! Printing what workers have printed, and what the session has to say.
//!
//! A thread of its own does it, since whoever reads this process's stdout may take their time: results must not wait for
//! that. What nobody reads is dropped beyond a bound.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use farpool_proto::v1::{Output, OutputStream};

use crate::terminal;

/// Bytes that wait to be printed, at most.
const MOST_BYTES: usize = 1 << 20;

static QUEUE: Mutex<Queue> = Mutex::new(Queue { waiting: VecDeque::new(), bytes: 0, dropped: 0 });
static CHANGED: Condvar = Condvar::new();

struct Queue {
    /// The first one is being printed.
    waiting: VecDeque<(OutputStream, Vec<u8>)>,
    bytes: usize,
    dropped: usize,
}

/// Prints what a worker has printed, each line with where it comes from. Never blocks.
pub(super) fn print(output: &Output) {
    let stream = match output.stream() {
        OutputStream::Stderr => OutputStream::Stderr,
        OutputStream::Stdout | OutputStream::Unspecified => OutputStream::Stdout,
    };
    enqueue(stream, label(output));
}

/// Says something on stderr. Never blocks.
pub(super) fn say(text: &str) {
    enqueue(OutputStream::Stderr, format!("farpool: {text}\n").into_bytes());
}

/// Waits until all is printed, or until `patience` is over.
pub(super) fn flush(patience: Duration) {
    let waits = |queue: &mut Queue| !queue.waiting.is_empty();
    drop(CHANGED.wait_timeout_while(queue(), patience, waits));
}

/// The output with its label before each line, and an end at the last one.
fn label(output: &Output) -> Vec<u8> {
    let label = format!("[{} {}] ", output.host, output.pid);
    let mut lines = Vec::with_capacity(output.data.len() + 4 * label.len());
    for line in output.data.split_inclusive(|&byte| byte == b'\n') {
        lines.extend_from_slice(label.as_bytes());
        lines.extend_from_slice(line);
    }
    if lines.last().is_some_and(|&byte| byte != b'\n') {
        lines.push(b'\n');
    }
    lines
}

fn enqueue(stream: OutputStream, lines: Vec<u8>) {
    let mut queue = queue();
    if !lines.is_empty() && queue.bytes + lines.len() <= MOST_BYTES && thread_is_there() {
        queue.bytes += lines.len();
        queue.waiting.push_back((stream, lines));
        CHANGED.notify_all();
    } else {
        queue.dropped += lines.len();
    }
}

/// Starts the thread when it is needed first. To be called with the queue's lock, so that nobody starts it twice.
fn thread_is_there() -> bool {
    static STARTED: OnceLock<()> = OnceLock::new();
    let start = || thread::Builder::new().name("farpool-output".to_owned()).spawn(serve);
    STARTED.get().is_some() || start().is_ok_and(|_| STARTED.set(()).is_ok())
}

fn serve() {
    loop {
        let mut waiting =
            CHANGED.wait_while(queue(), |queue| queue.waiting.is_empty()).unwrap_or_else(PoisonError::into_inner);
        let (stream, lines) = match waiting.waiting.front_mut() {
            Some((stream, lines)) => (*stream, std::mem::take(lines)),
            None => continue,
        };
        let dropped = std::mem::take(&mut waiting.dropped);
        drop(waiting);
        if dropped > 0 {
            let message =
                format!("farpool: {dropped} bytes of output were dropped, since nobody has read what was before\n");
            terminal::write(io::stderr().as_fd(), message.as_bytes());
        }
        match stream {
            OutputStream::Stderr => terminal::write(io::stderr().as_fd(), &lines),
            OutputStream::Stdout | OutputStream::Unspecified => terminal::write(io::stdout().as_fd(), &lines),
        }
        let mut queue = queue();
        queue.waiting.pop_front();
        queue.bytes -= lines.len();
        CHANGED.notify_all();
    }
}

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_says_where_it_comes_from() {
        for (data, expected) in [
            ("one\ntwo\n", "[node7 12] one\n[node7 12] two\n"),
            ("half", "[node7 12] half\n"),
            ("\n\nx", "[node7 12] \n[node7 12] \n[node7 12] x\n"),
            ("", ""),
        ] {
            let output = Output { host: "node7".into(), pid: 12, stream: 1, data: data.into() };
            assert_eq!(String::from_utf8(label(&output)).unwrap(), expected);
        }
    }
}
