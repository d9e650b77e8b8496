//! Many threads use one pool in every way at once, in an order drawn from a seed. Whichever thread drives the session, and
//! whatever is cancelled or dies meanwhile, each call gets its own outcomes, and no wake-up is lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use farpool::{ErrorKind, Pool};
use farpool_testkit::doses;

const THREADS: u64 = 6;
/// Without a finished call for this long, something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A small generator (xorshift64), so that one seed is one order of calls.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn identity(n: u64) -> u64 {
    n
}

fn nap(microseconds: u64) -> u64 {
    std::thread::sleep(Duration::from_micros(microseconds));
    microseconds
}

fn abort_at_100(n: u64) -> u64 {
    if n == 100 {
        std::process::abort();
    }
    n
}

fn one_call(pool: &Pool, random: &mut Random) {
    let n = random.below(2000);
    let expected: Vec<u64> = (0..n).collect();
    match random.below(9) {
        0 => assert_eq!(pool.apply(identity, (n,)).expect("the call failed"), n),
        1 => assert_eq!(pool.map(identity, 0..n).expect("the call failed"), expected),
        2 => assert_eq!(pool.imap(identity, 0..n).collect::<Result<Vec<_>, _>>().expect("the call failed"), expected),
        3 => {
            let unordered = pool.job(identity).chunksize(3).imap_unordered(0..n);
            let mut results = unordered.collect::<Result<Vec<_>, _>>().expect("the call failed");
            results.sort_unstable();
            assert_eq!(results, expected);
        }
        4 => assert_eq!(pool.map_async(identity, 0..n).get().expect("the call failed"), expected),
        5 => {
            // Dropped in the middle.
            let taken: Vec<u64> =
                pool.imap(identity, 0..).take(expected.len()).map(|result| result.expect("the call failed")).collect();
            assert_eq!(taken, expected);
        }
        6 => {
            let naps = pool.map_async(nap, vec![n; 5]);
            if n.is_multiple_of(2) {
                naps.cancel();
                // It may have finished before.
                let outcome = naps.get();
                assert!(outcome.is_ok() || outcome.is_err_and(|error| error.kind() == ErrorKind::Cancelled));
            } else {
                assert_eq!(naps.get().expect("the naps failed").len(), 5);
            }
        }
        7 if random.below(10) == 0 => {
            let outcomes: Vec<_> = pool.job(abort_at_100).retries(1).imap(0..200).collect();
            assert_eq!(outcomes.len(), 200);
            for (at, outcome) in (0..).zip(outcomes) {
                match outcome {
                    Ok(result) => assert_eq!(result, at),
                    Err(error) => assert_eq!((error.kind(), error.item()), (ErrorKind::WorkerDied, Some(100))),
                }
            }
        }
        _ => {
            let bytes = vec![7_u8; usize::try_from(n * 997).expect("too many bytes")];
            assert_eq!(pool.apply(|bytes: Vec<u8>| bytes, (bytes.clone(),)).expect("the call failed"), bytes);
        }
    }
}

#[test]
fn many_threads_use_one_pool_in_every_way() {
    farpool::init();
    let pool = Pool::new(3).expect("cannot open the pool");
    let seed = std::env::var("FARPOOL_STRESS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_123);
    println!("FARPOOL_STRESS_SEED={seed}");
    let (done, calls) = (AtomicU64::new(0), doses::stress_calls());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (pool, done) = (&pool, &done);
            scope.spawn(move || {
                let mut random = Random(seed + 7919 * thread);
                for _ in 0..calls {
                    one_call(pool, &mut random);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let (mut last, mut since) = (0, Instant::now());
        while last < THREADS * calls {
            std::thread::sleep(Duration::from_millis(20));
            let now = done.load(Ordering::Relaxed);
            if now != last {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() > PATIENCE {
                eprintln!("no call has finished for {PATIENCE:?} after {now} of {}, seed {seed}", THREADS * calls);
                std::process::abort();
            }
        }
    });
    pool.close();
    pool.join().expect("the workers did not exit");
}
