//! Shared by the examples: the command line, the pool, and the comparison with one process.

use std::path::PathBuf;
use std::time::Duration;

use farpool::Pool;

use lexopt::Arg;

/// Parses `--processes N` and the example's own arguments: `own` names options (`--folder`, whose value is returned) and operands
/// (`FOLDER`).
///
/// `--help` prints the usage; unknown arguments end the example with exit code 2.
pub fn arguments<const N: usize>(usage: &str, own: [&str; N]) -> (Option<usize>, [Option<PathBuf>; N]) {
    read(usage, own).unwrap_or_else(|error| wrong(usage, &error.to_string()))
}

/// Opens a pool of this many workers; `None`: one per core, or on a cluster one per slot.
///
/// # Errors
/// If it cannot be opened.
pub fn pool(processes: Option<usize>) -> Result<Pool, farpool::Error> {
    let builder = Pool::builder();
    match processes {
        Some(processes) => builder.processes(processes),
        None => builder,
    }
    .build()
}

/// Ends the example, because its arguments are invalid.
pub fn wrong(usage: &str, what: &str) -> ! {
    eprintln!("{what}\n\n{usage}");
    std::process::exit(2)
}

/// Runs the same work in this process alone, prints both times, and checks that the results are the same.
///
/// # Panics
/// If they are not.
pub fn compare<R: PartialEq>(workers: usize, pool: Duration, results: &R, alone: impl FnOnce() -> R) {
    let start = std::time::Instant::now();
    let results_alone = alone();
    let alone = start.elapsed();
    assert!(*results == results_alone, "the workers' results differ from those of this process");
    let ratio = alone.as_secs_f64() / pool.as_secs_f64();
    println!(
        "wall time: {pool:.1?} in {}, {alone:.1?} in this process ({ratio:.2} times as fast); the same results",
        processes(workers)
    );
}

/// Returns the number of worker processes as text.
pub fn processes(workers: usize) -> String {
    if workers == 1 { "1 worker process".to_owned() } else { format!("{workers} worker processes") }
}

fn read<const N: usize>(usage: &str, own: [&str; N]) -> Result<(Option<usize>, [Option<PathBuf>; N]), lexopt::Error> {
    let mut processes = None;
    let mut values = [const { None }; N];
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => {
                println!("{usage}");
                std::process::exit(0)
            }
            Arg::Long("processes") => processes = Some(number(&parser.value()?)?),
            Arg::Long(name) => match own.iter().position(|known| known.strip_prefix("--") == Some(name)) {
                Some(at) => values[at] = Some(parser.value()?.into()),
                None => return Err(argument.unexpected()),
            },
            Arg::Value(value) => match free_operand(&own, &values) {
                Some(at) => values[at] = Some(value.into()),
                None => return Err(Arg::Value(value).unexpected()),
            },
            Arg::Short(_) => return Err(argument.unexpected()),
        }
    }
    Ok((processes, values))
}

fn number(text: &std::ffi::OsStr) -> Result<usize, lexopt::Error> {
    let number = text.to_str().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
    number.ok_or_else(|| format!("--processes takes a number of at least 1, not {}", text.display()).into())
}

fn free_operand(own: &[&str], values: &[Option<PathBuf>]) -> Option<usize> {
    own.iter().zip(values).position(|(name, value)| !name.starts_with("--") && value.is_none())
}
