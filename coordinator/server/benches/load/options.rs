//! The command line.

pub(crate) const USAGE: &str = "\
The coordinator under the load of many agents

Usage: cargo bench -p farpool-coordinator-server --bench load -- [OPTIONS]

  --agents N,N,...  numbers of agents, each with a pair of runs [default: 10,100,1000]
  --slots N         slots of each agent [default: 64]
  --seconds N       how long to measure each run, in seconds [default: 5]
  --saturated       only the first run of each pair
  --paced           only the second run of each pair
  --coordinator P   executable to measure [default: the one that was built with this bench]
  --rate N          chunks a second in the second run of each pair [default: 100000]
  --quick           3 agents, half a second: checks only that the bench works";

pub(crate) struct Options {
    pub(crate) agents: Vec<usize>,
    pub(crate) slots: u32,
    pub(crate) seconds: f64,
    pub(crate) rate: u64,
    pub(crate) saturated: bool,
    pub(crate) paced: bool,
    pub(crate) coordinator: String,
}

impl Options {
    /// Parses the command line; `None`: print the usage.
    pub(crate) fn read(mut words: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let mut options = Options {
            agents: vec![10, 100, 1000],
            slots: 64,
            seconds: 5.0,
            rate: 100_000,
            saturated: true,
            paced: true,
            coordinator: env!("CARGO_BIN_EXE_farpool-coordinator").to_owned(),
        };
        let (mut under_cargo_bench, mut chosen) = (false, false);
        while let Some(word) = words.next() {
            let mut number = || positive(words.next().as_deref(), &word);
            match word.as_str() {
                "--bench" => under_cargo_bench = true,
                "--help" | "-h" => return Ok(None),
                "--quick" => (options.agents, options.seconds, options.rate) = (vec![3], 0.5, 10_000),
                "--slots" => options.slots = number()? as u32,
                "--seconds" => options.seconds = number()?,
                "--rate" => options.rate = number()? as u64,
                "--saturated" => options.paced = false,
                "--paced" => options.saturated = false,
                "--coordinator" => options.coordinator = words.next().ok_or("--coordinator takes a path")?,
                "--agents" => {
                    let list = words.next().unwrap_or_default();
                    let numbers = list.split(',').map(|one| positive(Some(one), &word).map(|number| number as usize));
                    options.agents = numbers.collect::<Result<_, _>>()?;
                }
                _ => return Err(format!("unknown option {word}")),
            }
            chosen |= word != "--bench";
        }
        // `cargo test --all-targets` runs this too, without --bench: then it is only a check that it works.
        if !under_cargo_bench && !chosen {
            return Options::read(["--quick".to_owned()].into_iter());
        }
        Ok(Some(options))
    }
}

fn positive(word: Option<&str>, option: &str) -> Result<f64, String> {
    let number = word.and_then(|word| word.parse().ok()).filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| format!("{option} takes numbers above 0"))
}
