//! Counts primes in a job that outlives its client: one run detaches it, and another, from anywhere, collects the results.
//!
//! ```sh
//! farpool-coordinator --journal /var/lib/farpool & farpool-agent &
//! export FARPOOL_ADDRESS=http://127.0.0.1:7070
//! cargo run --release -p farpool-examples --example detached -- detach primes
//! cargo run --release -p farpool-examples --example detached -- attach primes
//! ```

use std::env;
use std::process::exit;

const USAGE: &str = "\
Counts the primes below 100 million in a job that the cluster keeps.

Usage: detached detach NAME
       detached attach NAME

  detach  gives the job to the cluster that FARPOOL_ADDRESS names, and returns
  attach  prints the results as they arrive, then discards the job";

const BLOCKS: u64 = 1000;
const BLOCK: u64 = 100_000;

/// Returns the number of primes in a block of numbers.
fn primes(block: u64) -> u64 {
    let (first, end) = (block * BLOCK, (block + 1) * BLOCK);
    let mut is_prime = vec![true; BLOCK as usize];
    for factor in (2..).take_while(|factor| factor * factor < end) {
        let multiples = (first.next_multiple_of(factor).max(factor * factor)..end).step_by(factor as usize);
        multiples.for_each(|multiple| is_prime[(multiple - first) as usize] = false);
    }
    (first..end).filter(|&number| number >= 2 && is_prime[(number - first) as usize]).count() as u64
}

fn main() -> Result<(), farpool::Error> {
    farpool::init();
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["detach", name] => detach(name),
        ["attach", name] => attach(name),
        ["-h" | "--help"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => {
            eprintln!("say what to do, and with which job\n\n{USAGE}");
            exit(2)
        }
    }
}

fn detach(name: &str) -> Result<(), farpool::Error> {
    // As many workers as the cluster has slots.
    let pool = farpool::Pool::builder().build()?;
    // Returns when the coordinator has the whole job on disk.
    let job = pool.job(primes).progress(true).detach(name).map(0..BLOCKS)?;
    println!("{} is detached: this process may end, and so may the coordinator's", job.name());
    Ok(())
}

fn attach(name: &str) -> Result<(), farpool::Error> {
    let job = farpool::attach::<u64>(name)?;
    let status = job.status()?;
    println!("{name}: {} of {} blocks are done", status.done, status.items);
    let mut found = 0;
    for (block, count) in (1..).zip(job.iter()?) {
        found += count?;
        if block % (BLOCKS / 10) == 0 {
            println!("{found} primes below {}", block * BLOCK);
        }
    }
    job.discard()
}
