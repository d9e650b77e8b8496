//! The factorials of 1 to 100, calculated in worker processes: the whole of farpool in a few lines.
//!
//! `cargo run --release --example factorial`

mod common;

use std::time::Instant;

use num_bigint::BigUint;

const USAGE: &str = "\
The factorials of 1 to 100, calculated in worker processes.

Usage: factorial [--processes N]

  --processes N  workers that run at once (default: 4)";

fn calc_factorial(n: u32) -> BigUint {
    (1..=n).map(BigUint::from).product()
}

fn main() -> Result<(), farpool::Error> {
    farpool::init();
    let (processes, []) = common::arguments(USAGE, Some(4), []);

    let start = Instant::now();
    let pool = farpool::Pool::new(processes)?;
    let results = pool.map(calc_factorial, 1..=100u32)?;
    println!("finished {} calculations", results.len());
    println!("100! = {}", results[99]);
    pool.close();
    pool.join()?;

    common::compare(processes, start.elapsed(), &results, || (1..=100).map(calc_factorial).collect());
    Ok(())
}
