//! How much of the open-ended tests a run does: histories, chaos, random cases. And how many cases it runs at once, and whether it
//! may skip some.
//!
//! By default it is a quick dose; with `FARPOOL_THOROUGH=1` in the environment, a thorough one.

/// The variable that asks for the thorough doses. Empty or 0 counts as unset.
pub const THOROUGH: &str = "FARPOOL_THOROUGH";

/// Returns the number of histories that the simulation runs.
pub fn histories() -> u64 {
    dose(2_000, 20_000)
}

/// Returns how many seconds the chaos test disturbs a cluster.
pub fn chaos_seconds() -> u64 {
    dose(15, 60)
}

/// Returns the number of cases of a property test, given its usual number.
pub fn cases(usual: u32) -> u32 {
    dose(usual, 10 * usual)
}

/// Returns the number of calls that each thread of the stress test makes.
pub fn stress_calls() -> u64 {
    dose(150, 1_500)
}

/// The variable that is set if no test may be skipped because its tools are missing.
pub const REQUIRE_TOOLS: &str = "FARPOOL_REQUIRE_TOOLS";

/// Returns whether tests whose tools are missing must fail.
pub fn requires_tools() -> bool {
    std::env::var_os(REQUIRE_TOOLS).is_some()
}

/// Returns how many cases run at once, for test programs without the standard harness, which reads `RUST_TEST_THREADS` itself.
/// `None`: as many as there are cores.
pub fn threads() -> Option<usize> {
    std::env::var("RUST_TEST_THREADS").ok()?.parse().ok()
}

fn dose<T>(quick: T, thorough: T) -> T {
    let asked = std::env::var_os(THOROUGH).is_some_and(|value| !value.is_empty() && value != "0");
    if asked { thorough } else { quick }
}
