//! Calculates the factorials of 1 to 100 in worker processes: farpool in a few lines.
//!
//! `cargo run --release -p farpool-examples --example factorial`

use std::time::Instant;

use num_bigint::BigUint;

const USAGE: &str = "\
The factorials of 1 to 100, calculated in worker processes.

Usage: factorial [--processes N]

  --processes N  workers that run at once (default: one for each core, or slot of the cluster)";

fn calc_factorial(n: u32) -> BigUint {
    (1..=n).map(BigUint::from).product()
}

fn main() -> Result<(), farpool::Error> {
    farpool::init();
    let (processes, []) = farpool_examples::arguments(USAGE, []);

    let start = Instant::now();
    let pool = farpool_examples::pool(processes)?;
    let workers = pool.processes();
    let results = pool.map(calc_factorial, 1..=100u32)?;
    println!("finished {} calculations", results.len());
    println!("100! = {}", results[99]);
    pool.close();
    pool.join()?;

    println!("wall time: {:.1?} in {}", start.elapsed(), farpool_examples::processes(workers));
    Ok(())
}
