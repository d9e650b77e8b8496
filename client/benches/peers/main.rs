//! Compares farpool with Python's `multiprocessing.Pool` and the limit of the machine, in one run; and a cluster on loopback with
//! local mode and the limit of TCP.
//!
//! `cargo bench -p farpool --bench peers -- [--local | --cluster] [--quick] [--markdown] [--runs N] [WORKLOAD...]`
//!
//! For each workload, three processes are started, one per side: farpool's local mode, `multiprocessing.Pool` with the `python3`
//! on the PATH, and the least code that can do the work (if there is any). They warm up and then take turns, one run each, so
//! that changes of the machine's speed affect them alike. On a cluster, the sides are a client of a coordinator with two agents,
//! local mode, and the least code over TCP. One call at a time (W3) is measured with one agent of one slot, and compared with two
//! round trips of a bare gRPC stream and one over a socketpair.

mod cluster;
mod limit;
mod plan;
mod pool;
mod side;
mod spinner;
mod stream;
mod table;
mod tasks;

use std::process::ExitCode;
use std::time::Instant;

use farpool_testkit::machine;

use limit::Transport;
use plan::{Condition, WORKLOADS, Workload};
use side::{Sides, Values};
use table::Mode;

const USAGE: &str = "\
farpool beside multiprocessing.Pool, and a cluster beside local mode, and both beside the machine's limits

Usage: cargo bench -p farpool --bench peers -- [OPTIONS] [WORKLOAD...]

  --local     only local mode, beside multiprocessing.Pool
  --cluster   only a coordinator and two agents on loopback, beside local mode
  --quick     2 runs of each instead of 5
  --runs N    so many runs of each
  --markdown  print the table as Markdown
  WORKLOAD    W1 W2 W2c W3 W3awake W4 W5a W5r W6 W6s W7 W8 W9 W10 (default: all)";

fn main() -> ExitCode {
    farpool::init();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [spinner::ROLE, core] => spinner::spin(core),
        [side::FARPOOL_ROLE, workload] => side::serve(|| pool::Side::local(workload)),
        [side::CLUSTER_ROLE, workload] => side::serve(|| pool::Side::on_a_cluster(workload)),
        [side::LIMIT_ROLE, workload] => side::serve(|| limit::Side::new(workload, Transport::Socketpair)),
        [side::TCP_ROLE, workload] => side::serve(|| limit::Side::new(workload, Transport::Tcp)),
        words => match Options::read(words) {
            Ok(Some(options)) => measure(&options),
            Ok(None) => println!("{USAGE}"),
            Err(wrong) => {
                eprintln!("{wrong}\n\n{USAGE}");
                return ExitCode::from(2);
            }
        },
    }
    ExitCode::SUCCESS
}

struct Options {
    modes: &'static [Mode],
    workloads: Vec<&'static Workload>,
    runs: usize,
    markdown: bool,
}

impl Options {
    /// Parses the arguments; `None`: print the usage.
    fn read(words: &[&str]) -> Result<Option<Options>, String> {
        let mut options =
            Options { modes: &[Mode::Local, Mode::Cluster], workloads: Vec::new(), runs: 5, markdown: false };
        let mut under_cargo_bench = false;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--bench" => under_cargo_bench = true,
                "--help" | "-h" => return Ok(None),
                "--local" => options.modes = &[Mode::Local],
                "--cluster" => options.modes = &[Mode::Cluster],
                "--markdown" => options.markdown = true,
                "--quick" => options.runs = 2,
                "--runs" => {
                    let runs = words.next().and_then(|runs| runs.parse().ok()).filter(|runs| *runs > 0);
                    options.runs = runs.ok_or("--runs takes a number of at least 1")?;
                }
                name => options.workloads.push(Workload::named(name).ok_or(format!("there is no workload {name}"))?),
            }
        }
        if options.workloads.is_empty() {
            // `cargo test --all-targets` runs this too, without --bench: then only one workload, to check that it works.
            let all = if under_cargo_bench { WORKLOADS } else { &WORKLOADS[..1] };
            options.workloads = all.iter().collect();
            options.runs = if under_cargo_bench { options.runs } else { 1 };
        }
        Ok(Some(options))
    }
}

fn measure(options: &Options) {
    let start = Instant::now();
    let python = side::Python::find();
    println!("{}", machine::description());
    println!(
        "{}",
        python.as_ref().map_or("python3 is not on the PATH: its column stays empty", |python| &python.version)
    );
    if let Some(warning) = machine::noise() {
        println!("{warning}");
    }
    for mode in options.modes.iter().copied() {
        let wanted = |workload: &&Workload| mode == Mode::Local || workload.is_for_clusters();
        let rows: Vec<table::Row> = options
            .workloads
            .iter()
            .copied()
            .filter(wanted)
            .flat_map(|workload| measure_one(mode, workload, python.as_ref(), options.runs))
            .collect();
        println!();
        table::print(mode, &rows, options.markdown);
    }
    println!("{} runs of each, {:.0?}", options.runs, start.elapsed());
}

fn measure_one(
    mode: Mode,
    workload: &'static Workload,
    python: Option<&side::Python>,
    runs: usize,
) -> impl Iterator<Item = table::Row> {
    eprintln!("{}: {}", workload.name, workload.what);
    let _awake = (workload.condition == Condition::Awake).then(spinner::one_on_each_core);
    let measured = take_turns(mode, workload, python, runs);
    workload.measures.iter().enumerate().map(move |(at, measure)| {
        let [farpool, peer, limit] = measured.each_ref().map(|runs| runs.iter().map(|values| values[at]).collect());
        table::Row { workload, measure, farpool, peer, limit }
    })
}

/// Runs the three sides in turns. Returns what each measured in each run.
fn take_turns(mode: Mode, workload: &Workload, python: Option<&side::Python>, runs: usize) -> [Vec<Values>; 3] {
    let mut sides = Sides::start(mode, workload, python);
    let mut measured = [const { Vec::new() }; 3];
    for _ in 0..runs {
        for (measured, side) in measured.iter_mut().zip(&mut sides.sides) {
            // A side that hung once would hang again, and waiting for that takes long.
            let hung = measured.last().is_some_and(|values: &Values| values.iter().any(|value| value.is_infinite()));
            if let Some(side) = side.as_mut().filter(|_| !hung) {
                measured.push(side.run(workload));
            }
        }
    }
    measured
}
