//! Measures the speed of sessions on loopback, compared with raw TCP: two processes, one thread each.
//!
//! `cargo bench -p farpool-net --bench sessions -- [--quick] [FIGURE...]`
//!
//! FIGURE is any of `push`, `take`, `give`, `cycle`, `round`, `awake`, `in` and `out` (default: all).

mod cost;
mod measure;
mod peer;
mod spinner;
mod tcp;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [peer::ROLE] => peer::serve(),
        [tcp::ROLE] => tcp::serve(),
        [spinner::ROLE] => spinner::spin(),
        words => {
            let known = |word: &&&str| !matches!(**word, "--bench" | "--quick");
            let chosen: Vec<&str> = words.iter().filter(known).copied().collect();
            // `cargo test --all-targets` runs this too, without --bench, only to see that it works.
            let quick = words.contains(&"--quick") || !words.contains(&"--bench");
            if let Some(wrong) = chosen.iter().find(|word| !measure::FIGURES.contains(word)) {
                eprintln!("there is no figure {wrong}; there are {}", measure::FIGURES.join(", "));
                return ExitCode::from(2);
            }
            measure::run(&chosen, if quick { 20 } else { 1 });
        }
    }
    ExitCode::SUCCESS
}
