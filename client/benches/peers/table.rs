//! Prints the figures as a table.

use crate::plan::{Better, Goal, Measure, Workload};

/// The sides that are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Local mode, `multiprocessing.Pool`, and the limit over socketpairs.
    Local,
    /// A cluster, local mode, and the limit over TCP or of a call's path.
    Cluster,
}

/// One measure of a workload: the value of each run of each side.
pub(crate) struct Row {
    pub(crate) workload: &'static Workload,
    pub(crate) measure: &'static Measure,
    pub(crate) farpool: Vec<f64>,
    pub(crate) peer: Vec<f64>,
    pub(crate) limit: Vec<f64>,
}

impl Mode {
    fn head(self) -> [&'static str; 9] {
        let [farpool, peer] = match self {
            Mode::Local => ["farpool (min - max)", "multiprocessing.Pool"],
            Mode::Cluster => ["farpool, cluster (min - max)", "farpool, local"],
        };
        let [limit, of_the_limit] = match self {
            Mode::Local => ["limit", "of the limit"],
            Mode::Cluster => ["the limit", "of the limit"],
        };
        ["workload", "unit", farpool, peer, "times as good", limit, of_the_limit, "goal", ""]
    }
}

/// Prints the table. `times as good` is above 1 if farpool beats its peer; `of the limit` is farpool's figure divided by the
/// limit's.
pub(crate) fn print(mode: Mode, rows: &[Row], markdown: bool) {
    let mut lines = vec![mode.head().map(str::to_owned)];
    lines.extend(rows.iter().filter(|row| row.has_figures()).map(|row| row.cells(mode)));
    let widths: [usize; 9] =
        std::array::from_fn(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0));
    let (before, between, after) = if markdown { ("| ", " | ", " |") } else { ("", "  ", "") };
    for (number, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", format!("{before}{}{after}", cells.join(between)).trim_end());
        if number == 0 {
            let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            println!("{before}{}{after}", rule.join(between));
        }
    }
}

impl Row {
    fn has_figures(&self) -> bool {
        [&self.farpool, &self.peer, &self.limit].iter().any(|runs| median(runs).is_some())
    }

    fn cells(&self, mode: Mode) -> [String; 9] {
        let [farpool, peer, limit] = [&self.farpool, &self.peer, &self.limit].map(|runs| median(runs));
        let what = match self.measure.what {
            "" => self.workload.what.to_owned(),
            what => format!("{}, {what}", self.workload.what),
        };
        let better = match self.measure.better {
            Better::More => farpool.zip(peer).map(|(farpool, peer)| farpool / peer),
            Better::Less => farpool.zip(peer).map(|(farpool, peer)| peer / farpool),
        };
        let (goal, reached) = self.goal(mode, farpool, limit);
        [
            format!("{}: {what}", self.workload.name),
            self.measure.unit.to_owned(),
            with_range(&self.farpool),
            peer.map_or_else(String::new, |peer| if peer.is_infinite() { "hangs".to_owned() } else { figure(peer) }),
            better.filter(|times| times.is_finite()).map_or_else(String::new, ratio),
            limit.map_or_else(String::new, figure),
            farpool.zip(limit).map_or_else(String::new, |(farpool, limit)| ratio(farpool / limit)),
            goal,
            reached.map_or("", |reached| if reached { "reached" } else { "NOT REACHED" }).to_owned(),
        ]
    }

    fn goal(&self, mode: Mode, farpool: Option<f64>, limit: Option<f64>) -> (String, Option<bool>) {
        let goal = match mode {
            Mode::Local => self.measure.goal,
            Mode::Cluster => self.measure.cluster_goal,
        };
        match goal {
            Goal::None => (String::new(), None),
            Goal::AtLeast(least) => (format!(">= {}", figure(least)), farpool.map(|value| value >= least)),
            Goal::AtMost(most) => (format!("<= {}", figure(most)), farpool.map(|value| value <= most)),
            Goal::AtMostTimesTheLimit(times) => {
                (format!("<= {times} x limit"), farpool.zip(limit).map(|(value, limit)| value <= times * limit))
            }
        }
    }
}

/// Returns the median; `None` without figures.
fn median(runs: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = runs.iter().copied().filter(|run| !run.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

fn with_range(runs: &[f64]) -> String {
    let Some(median) = median(runs) else { return String::new() };
    let (least, most) =
        runs.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), run| (least.min(*run), most.max(*run)));
    format!("{} ({} - {})", figure(median), figure(least), figure(most))
}

fn ratio(ratio: f64) -> String {
    let digits = if ratio >= 10.0 { 0 } else { 2 };
    format!("{ratio:.digits$}")
}

/// Formats three significant digits.
fn figure(value: f64) -> String {
    let (scaled, unit) = match value {
        value if value >= 1e6 => (value / 1e6, " M"),
        value if value >= 1e4 => (value / 1e3, " k"),
        value => (value, ""),
    };
    let digits = match scaled {
        scaled if scaled >= 100.0 || scaled == 0.0 => 0,
        scaled if scaled >= 10.0 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$}{unit}")
}
