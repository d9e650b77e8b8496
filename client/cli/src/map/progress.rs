//! `--progress`: a progress bar on the terminal.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub(super) struct Progress(ProgressBar);

const TICK: Duration = Duration::from_millis(100);
/// Used while the number of items is unknown.
const ENDLESS: &str = "{spinner} {human_pos} done {per_sec} in {elapsed}{msg}";
const WITH_TOTAL: &str = "{wide_bar} {human_pos}/{human_len} {per_sec} eta {eta}{msg}";

impl Progress {
    /// Shows the bar; `None` if stderr is not a terminal.
    pub(super) fn show() -> Option<Progress> {
        if !io::stderr().is_terminal() {
            return None;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style(ENDLESS));
        bar.enable_steady_tick(TICK);
        Some(Progress(bar))
    }

    pub(super) fn set_total(&self, items: u64) {
        self.0.set_length(items);
        self.0.set_style(style(WITH_TOTAL));
    }

    pub(super) fn note(&self, written: u64, failed: u64) {
        self.0.set_position(written);
        if failed > 0 {
            self.0.set_message(format!(", {failed} failed"));
        }
    }

    /// Hides the bar while `write` writes to the terminal, so that the bar stays below.
    pub(super) fn suspended<R>(bar: Option<&Progress>, write: impl FnOnce() -> R) -> R {
        match bar {
            Some(Progress(bar)) => bar.suspend(write),
            None => write(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_templates_are_valid() {
        for template in [ENDLESS, WITH_TOTAL] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
