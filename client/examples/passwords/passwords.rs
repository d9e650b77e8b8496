//! Hashes passwords with Argon2: items that need much CPU and memory, and take very different times.
//!
//! `cargo run --release -p farpool-example-passwords --example passwords -- --processes 4`

use std::time::Instant;

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};

const USAGE: &str = "\
Hashes the passwords of 120 accounts with Argon2id; the more an account may do, the costlier its hash.

Usage: passwords [--processes N]

  --processes N  workers that run at once (default: one for each core, or slot of the cluster)";

#[derive(Clone, Serialize, Deserialize)]
struct Account {
    name: String,
    password: String,
    cost: Cost,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Cost {
    memory_kib: u32,
    passes: u32,
}

/// The costs for guests, users and administrators.
const COSTS: [Cost; 3] = [
    Cost { memory_kib: 1 << 10, passes: 1 },
    Cost { memory_kib: 8 << 10, passes: 2 },
    Cost { memory_kib: 64 << 10, passes: 3 },
];

/// Returns the hash in hexadecimal, or an error.
fn hash(account: Account) -> Result<String, String> {
    let Cost { memory_kib, passes } = account.cost;
    let params = Params::new(memory_kib, passes, 1, None).map_err(|error| error.to_string())?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    // A real program uses random salts. These are the accounts' names, so that the hashes are reproducible.
    let salt = format!("salt of {}", account.name);
    let mut hash = [0; 16];
    argon2
        .hash_password_into(account.password.as_bytes(), salt.as_bytes(), &mut hash)
        .map_err(|error| format!("{}: {error}", account.name))?;
    Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn main() -> Result<(), farpool::Error> {
    farpool::init();
    let (processes, []) = farpool_examples::arguments(USAGE, []);
    let accounts = accounts();

    let start = Instant::now();
    let pool = farpool_examples::pool(processes)?;
    let workers = pool.processes();
    // The bar is on stderr, if that is a terminal.
    let hashes = pool.job(hash).label("hashing").progress(true).map(accounts.clone())?;
    pool.close();
    pool.join()?;
    let took = start.elapsed();

    for error in hashes.iter().filter_map(|hash| hash.as_ref().err()) {
        println!("failed: {error}");
    }
    let done = hashes.iter().flatten().count();
    println!("hashed {done} passwords; that of {} became {}", accounts[0].name, hashes[0].as_deref().unwrap_or("-"));
    farpool_examples::compare(workers, took, &hashes, || accounts.into_iter().map(hash).collect());
    Ok(())
}

/// Most accounts are cheap; the expensive ones are scattered.
fn accounts() -> Vec<Account> {
    let account = |number: u32| {
        let kind = match number * 37 % 12 {
            0 => 2,
            1..=5 => 1,
            _ => 0,
        };
        Account { name: format!("account {number}"), password: format!("secret {number}"), cost: COSTS[kind] }
    };
    (1..=120).map(account).collect()
}
