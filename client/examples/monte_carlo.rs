//! Prices options by simulation: each item has its own seed, so the result is the same with any number of processes.
//!
//! `cargo run --release -p farpool-examples --example monte_carlo -- --processes 4`

use std::time::Instant;

use serde::{Deserialize, Serialize};

const USAGE: &str = "\
Prices a European and an Asian call option by simulating a year of the share's price, week by week.

Usage: monte_carlo [--processes N]

  --processes N  workers that run at once (default: one for each core, or slot of the cluster)";

/// The share, and the options on it, which may be exercised after one year.
const SPOT: f64 = 100.0;
const STRIKE: f64 = 100.0;
const RATE: f64 = 0.05;
const VOLATILITY: f64 = 0.2;
/// The price of the European option by the Black-Scholes formula.
const BLACK_SCHOLES: f64 = 10.4506;

const WEEKS: u32 = 52;
const ITEMS: u64 = 400;
const PATHS: u32 = 4000;

/// The result of one item: sums over its paths.
#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Sums {
    paths: f64,
    european: f64,
    european_squared: f64,
    asian: f64,
    asian_squared: f64,
}

/// Everything random in an item comes from its seed, so its result does not depend on where and when it runs.
fn simulate(seed: u64) -> Sums {
    let mut random = Random(seed);
    let step = 1.0 / f64::from(WEEKS);
    let (drift, spread) = ((RATE - VOLATILITY * VOLATILITY / 2.0) * step, VOLATILITY * step.sqrt());
    let discount = (-RATE).exp();
    let mut sums = Sums::default();
    for _ in 0..PATHS {
        let (mut price, mut total) = (SPOT, 0.0);
        for _ in 0..WEEKS {
            price *= (drift + spread * random.normal()).exp();
            total += price;
        }
        let european = discount * (price - STRIKE).max(0.0);
        let asian = discount * (total / f64::from(WEEKS) - STRIKE).max(0.0);
        sums.paths += 1.0;
        sums.european += european;
        sums.european_squared += european * european;
        sums.asian += asian;
        sums.asian_squared += asian * asian;
    }
    sums
}

fn main() -> Result<(), farpool::Error> {
    farpool::init();
    let (processes, []) = farpool_examples::arguments(USAGE, []);

    let start = Instant::now();
    let pool = farpool_examples::pool(processes)?;
    let workers = pool.processes();
    let results = pool.map(simulate, 0..ITEMS)?;
    pool.close();
    pool.join()?;
    let took = start.elapsed();

    // Added in the order of the items, since sums of floating-point numbers depend on the order.
    let all = results.iter().fold(Sums::default(), |all, item| all.plus(*item));
    let european = estimate(all.paths, all.european, all.european_squared);
    let asian = estimate(all.paths, all.asian, all.asian_squared);
    println!("simulated {} paths of {WEEKS} weeks in {ITEMS} items", all.paths);
    println!("European call: {european} (Black-Scholes: {BLACK_SCHOLES})");
    println!("Asian call:    {asian} (there is no formula for it)");

    farpool_examples::compare(workers, took, &results, || (0..ITEMS).map(simulate).collect());
    println!("each item draws from its own seed: the digits do not depend on the number of processes");
    Ok(())
}

impl Sums {
    fn plus(self, other: Sums) -> Sums {
        Sums {
            paths: self.paths + other.paths,
            european: self.european + other.european,
            european_squared: self.european_squared + other.european_squared,
            asian: self.asian + other.asian,
            asian_squared: self.asian_squared + other.asian_squared,
        }
    }
}

/// Formats the mean with the half width of its 95 % confidence interval.
fn estimate(count: f64, sum: f64, sum_of_squares: f64) -> String {
    let mean = sum / count;
    let variance = (sum_of_squares / count - mean * mean) * count / (count - 1.0);
    format!("{mean:.4} +- {:.4}", 1.96 * (variance / count).sqrt())
}

/// splitmix64: simple and good enough here.
struct Random(u64);

impl Random {
    /// Returns a uniform number between 0 and 1, both excluded.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        ((bits >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }

    /// Returns a standard normal number, by the Box-Muller transform.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}
