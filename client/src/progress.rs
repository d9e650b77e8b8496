//! The progress bar of a job, on stderr.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use farpool_proto::text::Printable;
use farpool_session::Counted;
use farpool_session::fork::Owner;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::terminal::ShownBar;

const REDRAW: Duration = Duration::from_millis(100);
const WITH_TOTAL: &str = "{prefix}{wide_bar} {human_pos}/{human_len} {per_sec} eta {eta}";
const WITHOUT_TOTAL: &str = "{prefix}{spinner} {human_pos} done {per_sec} in {elapsed}";

/// Draws the bar until it is dropped, which leaves the last state on the screen.
///
/// A separate thread polls the job's count, so that the bar costs the job nothing.
pub(crate) struct Progress {
    /// The process that the thread belongs to.
    owner: Owner,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Shows the job, if stderr is a terminal.
    pub(crate) fn show<C: Counted>(done: &Arc<C>, label: &str, total: Option<u64>) -> Option<Self> {
        if !io::stderr().is_terminal() {
            return None;
        }
        let bar = bar(label, total, ProgressDrawTarget::stderr());
        let stop = Arc::new(AtomicBool::new(false));
        let draw = {
            let (done, stop) = (Arc::clone(done), Arc::clone(&stop));
            move || {
                let shown = ShownBar::new(&bar);
                while !stop.load(Ordering::Acquire) && !done.is_over() {
                    bar.set_position(done.count());
                    bar.tick();
                    thread::park_timeout(REDRAW);
                }
                shown.end(|| {
                    bar.set_position(done.count());
                    bar.abandon();
                });
            }
        };
        // The job runs without its bar rather than not at all.
        let thread = thread::Builder::new().name("farpool-progress".to_owned()).spawn(draw).ok()?;
        Some(Self { owner: Owner::this_process(), stop, thread: Some(thread) })
    }

    /// Keeps the bar until the job ends.
    pub(crate) fn detach(mut self) {
        self.thread = None;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // In a fork this thread does not exist.
        if let Some(thread) = self.thread.take().filter(|_| self.owner.is_here()) {
            self.stop.store(true, Ordering::Release);
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn bar(label: &str, total: Option<u64>, target: ProgressDrawTarget) -> ProgressBar {
    let template = if total.is_some() { WITH_TOTAL } else { WITHOUT_TOTAL };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let prefix = if label.is_empty() { String::new() } else { format!("{} ", Printable(label)) };
    ProgressBar::with_draw_target(total, target).with_style(style).with_prefix(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_templates_are_valid() {
        for template in [WITH_TOTAL, WITHOUT_TOTAL] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
