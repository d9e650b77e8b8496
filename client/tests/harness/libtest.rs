//! Pools in tests under Rust's own harness, whose `main` does not call `init`: each test does.

fn double(n: u32) -> u32 {
    2 * n
}

fn check(name: &str) {
    farpool::init();
    let pool = farpool::Pool::new(2).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(pool.map(double, 0..100).expect("doubling failed"), (0..200).step_by(2).collect::<Vec<_>>());
    pool.close();
    pool.join().expect("the workers did not exit");
}

#[test]
fn one_test_opens_a_pool() {
    check("one");
}

#[test]
fn another_test_opens_a_pool_at_the_same_time() {
    check("another");
}

mod nested {
    #[test]
    fn a_test_in_a_module_opens_two_pools() {
        super::check("first");
        super::check("second");
    }
}

#[test]
fn a_test_without_a_pool_runs_only_in_the_client() {
    // If fork servers ran the whole harness, it would run there, too. They only run the test that called `init`.
    assert!(std::env::var_os("FARPOOL_ROLE").is_none());
}
