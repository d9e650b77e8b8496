//! Measures how long work takes to resume when something dies: real processes on loopback, which are killed.
//!
//! `cargo bench -p farpool --bench recovery -- [--runs N] [CASE...]`
//!
//! Each run starts a coordinator and three agents with two slots each. Times are from the moment of the kill: the median, minimum
//! and maximum. "all of it" is shown with the time of an undisturbed run.

mod cases;
mod cluster;
mod notes;

use std::process::ExitCode;

use farpool_testkit::{binaries, machine};

use cases::{CASES, Case};

const USAGE: &str = "\
How long it takes until work resumes when something dies

Usage: cargo bench -p farpool --bench recovery -- [OPTIONS] [CASE...]

  --runs N  so many runs of each instead of 5
  CASE      worker agent silent coordinator cut client (default: all)";

fn main() -> ExitCode {
    farpool::init();
    if cases::is_client() {
        return cases::client();
    }
    let (mut runs, mut chosen, mut under_cargo_bench) = (5, Vec::new(), false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bench" => under_cargo_bench = true,
            "--runs" => match words.next().and_then(|runs| runs.parse().ok()).filter(|runs| *runs > 0) {
                Some(number) => runs = number,
                None => return refuse("--runs takes a number of at least 1"),
            },
            name => match CASES.iter().find(|case| case.name == name) {
                Some(case) => chosen.push(case),
                None => return refuse(USAGE),
            },
        }
    }
    if chosen.is_empty() {
        // `cargo test --all-targets` runs this too, without --bench: then only one case, to check that it works.
        chosen = if under_cargo_bench { CASES.iter().collect() } else { CASES[..1].iter().collect() };
        runs = if under_cargo_bench { runs } else { 1 };
    }
    measure(&chosen, runs);
    ExitCode::SUCCESS
}

fn refuse(words: &str) -> ExitCode {
    eprintln!("{words}");
    ExitCode::from(2)
}

fn measure(chosen: &[&Case], runs: usize) {
    binaries::build_daemons();
    println!("{}, medians of {runs} (least - most)", machine::description());
    if let Some(warning) = machine::noise() {
        println!("{warning}");
    }
    println!("\n| what dies | until | takes |\n|---|---|---|");
    for case in chosen {
        let mut measured: Vec<Vec<f64>> = vec![Vec::new(); case.measures.len()];
        for _ in 0..runs {
            let seconds = (case.run)();
            assert_eq!(seconds.len(), case.measures.len(), "{} reports other measures than it declares", case.name);
            measured.iter_mut().zip(seconds).for_each(|(all, one)| all.push(one));
        }
        for (what, seconds) in case.measures.iter().zip(&mut measured) {
            println!("| {} | {what} | {} |", case.what, in_words(seconds));
        }
    }
    cluster::clean_up();
}

fn in_words(seconds: &mut [f64]) -> String {
    seconds.sort_by(f64::total_cmp);
    let text = |seconds: f64| match seconds {
        seconds if seconds < 0.01 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    };
    let (least, most) = (seconds[0], seconds[seconds.len() - 1]);
    format!("{} ({} - {})", text(seconds[seconds.len() / 2]), text(least), text(most))
}
