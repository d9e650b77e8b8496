//! The limits on the settings of pools, jobs and agents.
//!
//! The client checks its user's options, the coordinator checks clients and agents, and an agent checks its
//! coordinator. So an invalid setting fails in the client that made it. If it gets past the client, only its own pool
//! or job fails.

use std::fmt;

use crate::v1::{Label, OpenJob, Program, WorkerSettings};

/// Bytes of what a program needs to find a function, with the data that it uses.
pub const FUNCTION_BYTES: usize = 1 << 30;
/// How often an item may be run again.
pub const RETRIES: u32 = 10_000;
/// The weight of a pool relative to others.
pub const WEIGHT: u32 = 10_000;
/// Workers of a pool: more than any cluster runs.
pub const PROCESSES: u32 = 1 << 20;
/// Slots of an agent; on one machine these are the workers of its pool.
pub const SLOTS: u32 = PROCESSES;
/// Items that one worker runs at once.
pub const THREADS: u32 = 1024;
/// Bytes of an item or a result. Positions in a batch are 32 bits: it holds one item of this size and some small ones.
pub const PAYLOAD_BYTES: u64 = 2 << 30;
/// Bytes of a pool's name.
pub const POOL_NAME_BYTES: usize = 1024;
/// Bytes of a job's label.
pub const JOB_LABEL_BYTES: usize = 1024;
/// Bytes of the name of a host.
pub const HOST_BYTES: usize = 255;
/// Bytes of the name of a release.
pub const RELEASE_BYTES: usize = 64;
/// Labels that an agent may have, or a pool or job require.
pub const LABELS: usize = 64;
/// Bytes of a label's key, and of its value.
pub const LABEL_BYTES: usize = 256;
/// Bytes of a program's arguments and environment together: by default Linux takes no more either.
pub const ENVIRONMENT_BYTES: usize = 2 << 20;
/// Arguments and variables of a program together.
pub const ENVIRONMENT_PARTS: usize = 1 << 16;
/// Bytes of the directory in which a program starts.
pub const DIRECTORY_BYTES: usize = 4096;

/// The error for a setting beyond its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeyondLimit {
    /// The name of the setting, such as "bytes of the pool's name".
    pub what: &'static str,
    /// The value.
    pub found: u64,
    /// The limit.
    pub most: u64,
}

impl fmt::Display for BeyondLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, found, most } = self;
        write!(f, "too many {what}: {found}, the limit is {most}")
    }
}

impl std::error::Error for BeyondLimit {}

/// Checks one value against its limit.
///
/// # Errors
/// If it exceeds its limit.
pub fn at_most(what: &'static str, found: impl TryInto<u64>, most: impl TryInto<u64>) -> Result<(), BeyondLimit> {
    let (found, most) = (found.try_into().unwrap_or(u64::MAX), most.try_into().unwrap_or(u64::MAX));
    if found <= most { Ok(()) } else { Err(BeyondLimit { what, found, most }) }
}

/// Checks a pool's number of workers and its weight.
///
/// # Errors
/// If something in it is beyond its limit.
pub fn pool(processes: u32, weight: u32) -> Result<(), BeyondLimit> {
    at_most("workers in the pool", processes, PROCESSES)?;
    at_most("shares of the pool (weight)", weight, WEIGHT)
}

/// Checks the settings that all workers of a pool share.
///
/// # Errors
/// If something in it is beyond its limit.
pub fn settings(settings: &WorkerSettings) -> Result<(), BeyondLimit> {
    function("bytes of the initializer's function", settings.initializer.len())?;
    at_most("bytes of the initializer's arguments", settings.initializer_args.len(), PAYLOAD_BYTES)?;
    at_most("threads in a worker", settings.threads, THREADS)?;
    at_most("bytes in an item (payload_limit)", settings.payload_limit, PAYLOAD_BYTES)?;
    at_most("bytes in the pool's name", settings.name.len(), POOL_NAME_BYTES)
}

/// Checks the size of a program's arguments, environment and directory. Their contents are left to the operating
/// system.
///
/// # Errors
/// If something in it is beyond its limit.
pub fn program(program: &Program) -> Result<(), BeyondLimit> {
    let arguments = program.arguments.iter().map(|argument| argument.len());
    let variables = program.environment.iter().map(|variable| variable.name.len() + variable.value.len());
    let parts = program.arguments.len() + program.environment.len();
    at_most("arguments and environment variables of the program", parts, ENVIRONMENT_PARTS)?;
    let bytes: usize = arguments.chain(variables).sum();
    at_most("bytes in the program's arguments and environment", bytes, ENVIRONMENT_BYTES)?;
    at_most("bytes in the program's directory", program.directory.len(), DIRECTORY_BYTES)
}

/// Checks the bytes of a function.
///
/// # Errors
/// If there are too many.
pub fn function(what: &'static str, bytes: usize) -> Result<(), BeyondLimit> {
    at_most(what, bytes, FUNCTION_BYTES)
}

/// Checks the size of a shared value.
///
/// # Errors
/// If it is too large.
pub fn shared(bytes: usize) -> Result<(), BeyondLimit> {
    at_most("bytes of the shared value", bytes as u64, PAYLOAD_BYTES)
}

/// Checks the settings of a job.
///
/// # Errors
/// If something in it is beyond its limit.
pub fn job(open: &OpenJob) -> Result<(), BeyondLimit> {
    if open.shared {
        shared(open.function.len())?;
    } else {
        function("bytes of the job's function", open.function.len())?;
    }
    at_most("retries", open.retries, RETRIES)?;
    at_most("bytes in the job's label", open.label.len(), JOB_LABEL_BYTES)?;
    labels(&open.require)
}

/// Checks labels.
///
/// # Errors
/// If there are too many of them, or if one is too long.
pub fn labels(labels: &[Label]) -> Result<(), BeyondLimit> {
    at_most("labels", labels.len(), LABELS)?;
    let mut parts = labels.iter().flat_map(|label| [&label.key, &label.value]);
    parts.try_for_each(|part| at_most("bytes in a label's key or value", part.len(), LABEL_BYTES))
}

/// Returns the beginning of a text, at most this many bytes; `...` marks that it was cut off.
pub fn clipped(text: &str, most: usize) -> String {
    const MARK: &str = "...";
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most.saturating_sub(MARK.len()));
    format!("{}{MARK}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Variable;

    fn check(found: Result<(), BeyondLimit>, expected: &str) {
        match found {
            Ok(()) => assert_eq!(expected, ""),
            Err(error) => assert!(!expected.is_empty() && error.to_string().contains(expected), "{error} / {expected}"),
        }
    }

    #[test]
    fn pools_have_limits() {
        check(pool(0, 0), "");
        check(pool(PROCESSES, WEIGHT), "");
        check(pool(PROCESSES + 1, 1), "workers in the pool");
        check(pool(1, WEIGHT + 1), "weight");
    }

    #[test]
    fn settings_have_limits() {
        let with = |change: fn(&mut WorkerSettings)| {
            let mut all = WorkerSettings::default();
            change(&mut all);
            settings(&all)
        };
        check(with(|_| {}), "");
        check(with(|all| all.threads = THREADS), "");
        check(with(|all| all.threads = THREADS + 1), "too many threads in a worker: 1025, the limit is 1024");
        check(with(|all| all.payload_limit = PAYLOAD_BYTES + 1), "payload_limit");
        check(with(|all| all.payload_limit = u64::MAX), "payload_limit");
        check(with(|all| all.name = "x".repeat(POOL_NAME_BYTES + 1)), "pool's name");
        check(with(|all| all.initializer = vec![0; FUNCTION_BYTES + 1].into()), "initializer's function");
    }

    #[test]
    fn programs_have_limits() {
        let with = |change: fn(&mut Program)| {
            let mut all = Program::default();
            change(&mut all);
            program(&all)
        };
        check(with(|_| {}), "");
        check(with(|all| all.arguments = vec![vec![0; ENVIRONMENT_BYTES].into()]), "");
        check(with(|all| all.arguments = vec![vec![0; ENVIRONMENT_BYTES + 1].into()]), "arguments and environment");
        check(with(|all| all.environment = vec![Variable::default(); ENVIRONMENT_PARTS + 1]), "variables");
        check(with(|all| all.directory = vec![0; DIRECTORY_BYTES + 1].into()), "directory");
    }

    #[test]
    fn jobs_have_limits() {
        let with = |change: fn(&mut OpenJob)| {
            let mut all = OpenJob::default();
            change(&mut all);
            job(&all)
        };
        check(with(|_| {}), "");
        check(with(|all| all.function = vec![0; FUNCTION_BYTES].into()), "");
        check(with(|all| all.function = vec![0; FUNCTION_BYTES + 1].into()), "the limit is 1073741824");
        check(with(|all| all.retries = u32::MAX), "retries");
        check(with(|all| all.label = "x".repeat(65_536)), "job's label");
        check(with(|all| all.require = vec![Label::default(); LABELS + 1]), "labels");
    }

    #[test]
    fn clipped_text_stays_valid() {
        assert_eq!(clipped("short", 5), "short");
        assert_eq!(clipped("longer", 5), "lo...");
        assert_eq!(clipped("größer", 6), "gr...");
        assert_eq!(clipped("x", 0), "...");
    }
}
