use std::ffi::OsStr;
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use farpool_link::message::{PROGRAM_VARIABLE, ROLE_VARIABLE};
use farpool_proto::limits;
use farpool_proto::v1::WorkerSettings;
use farpool_session::{RECONNECT_TIMEOUT, Settings, Target, environment, labels};
use farpool_worker::Initialised;

use super::{Builder, Initializer};
use crate::error::{Error, ErrorKind};

const INITIALIZER_TIMEOUT: Duration = Duration::from_secs(60);
const PAYLOAD_LIMIT: u64 = 1 << 30;
const LARGEST_PAYLOAD_LIMIT: u64 = limits::PAYLOAD_BYTES;

impl Builder {
    /// Checks every option and fills in the defaults.
    pub(super) fn resolve(self) -> Result<(Target, Settings), Error> {
        let target = self.placement.resolve()?;
        let is_here = matches!(target, Target::Here);
        let processes = match self.processes {
            Some(0) => return Err(Error::invalid("a pool needs at least 1 process")),
            Some(processes) => bounded(processes, "processes", limits::PROCESSES)?,
            None if !is_here => 0,
            None => thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
        };
        match is_here {
            false => labels::check(&self.require)?,
            true => labels::check_here(&self.require)?,
        }
        self.environment.iter().try_for_each(|(name, value)| check_variable(name, value))?;
        let (initializer, initializer_args) = resolve_initializer(self.initializer)?;
        let payload_limit = self.payload_limit.unwrap_or(PAYLOAD_LIMIT);
        if !(1..=LARGEST_PAYLOAD_LIMIT).contains(&payload_limit) {
            let message =
                format!("payload_limit must be from 1 to {LARGEST_PAYLOAD_LIMIT} bytes (2 GiB), not {payload_limit}");
            return Err(Error::invalid(message));
        }
        let settings = WorkerSettings {
            initializer,
            initializer_args,
            initializer_timeout_ns: initializer_timeout_ns(self.initializer_timeout)?,
            max_tasks_per_child: at_least_1(self.max_tasks_per_child, "max_tasks_per_child")?,
            max_chunks_per_child: 0,
            threads: bounded(
                at_least_1(self.threads.map(|n| n as u64), "threads")?.max(1) as usize,
                "threads",
                limits::THREADS,
            )?,
            memory_limit: at_least_1(self.memory_limit, "memory_limit")?,
            payload_limit,
            // Only people read it, so a long one is cut off.
            name: limits::clipped(&self.name, limits::POOL_NAME_BYTES),
        };
        limits::settings(&settings).map_err(|beyond| Error::invalid(beyond.to_string()))?;
        let weight =
            bounded(at_least_1(self.weight.map(u64::from), "weight")?.max(1) as usize, "weight", limits::WEIGHT)?;
        let reconnect_timeout = match (self.reconnect_timeout, is_here) {
            (Some(timeout), _) => timeout,
            (None, false) => environment::reconnect_timeout()?.unwrap_or(RECONNECT_TIMEOUT),
            (None, true) => RECONNECT_TIMEOUT,
        };
        let Self { require, environment, .. } = self;
        let settings = Settings {
            processes,
            program: farpool_session::Program::own(),
            settings,
            require,
            weight,
            environment,
            reconnect_timeout,
        };
        Ok((target, settings))
    }
}

impl super::Placement {
    fn resolve(&self) -> Result<Target, Error> {
        match self {
            Self::ThisMachine => Ok(Target::Here),
            #[cfg(feature = "cluster")]
            Self::Cluster(url) => Ok(Target::Cluster(farpool_session::address(url)?)),
            Self::Environment => environment::address()?.map_or(Ok(Target::Here), |url| at(&url)),
        }
    }
}

#[cfg(feature = "cluster")]
fn at(url: &str) -> Result<Target, Error> {
    Ok(Target::Cluster(farpool_session::address(url)?))
}

#[cfg(not(feature = "cluster"))]
fn at(url: &str) -> Result<Target, Error> {
    Err(Error::invalid(format!(
        "FARPOOL_ADDRESS is {url:?}, but this program was built without farpool's feature `cluster`: build it with that, unset the \
         variable, or use Pool::builder().local()"
    )))
}

fn check_variable(name: &OsStr, value: &OsStr) -> Result<(), Error> {
    let (shown, bytes) = (name.to_string_lossy(), name.as_bytes());
    if bytes.is_empty() || bytes.contains(&b'=') || bytes.contains(&0) {
        return Err(Error::invalid(format!("{shown:?} cannot be the name of an environment variable")));
    }
    if value.as_bytes().contains(&0) {
        return Err(Error::invalid(format!("the value of the environment variable {shown} contains a zero byte")));
    }
    if [ROLE_VARIABLE, environment::ADDRESS, PROGRAM_VARIABLE].contains(&&*shown) {
        return Err(Error::invalid(format!("farpool itself sets the environment variable {shown} of workers")));
    }
    Ok(())
}

/// Checks that `main` has called `init`: otherwise each worker would run `main` again, and open pools there.
pub(super) fn require_init(initialised: Initialised) -> Result<(), Error> {
    Err(Error::invalid(match initialised {
        Initialised::Yes => return Ok(()),
        Initialised::No => {
            "farpool is not initialised: make `farpool::init();` the first line of main, since workers run this program too"
        }
        Initialised::OutsideTest => {
            "farpool::init() was called on a thread that is not a test's own, so workers would run all tests to get there: \
             make `farpool::init();` the first line of the test"
        }
    }))
}

/// Checks that /proc/self/exe is the program: workers are started from there.
pub(super) fn require_own_executable(started_by_loader: bool) -> Result<(), Error> {
    if !started_by_loader {
        return Ok(());
    }
    let loader = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    Err(Error::invalid(format!(
        "this program was started as an argument of the loader, {}, but workers are started from /proc/self/exe, which is \
         the loader: start the program directly",
        loader.display()
    )))
}

fn resolve_initializer(initializer: Option<Initializer>) -> Result<(Bytes, Bytes), Error> {
    let Some(initializer) = initializer else { return Ok(Default::default()) };
    let args = initializer
        .args
        .map_err(|error| Error::new(ErrorKind::Codec, format!("the initializer's arguments: {error}")))?;
    Ok((initializer.function, args.into()))
}

fn initializer_timeout_ns(timeout: Option<Duration>) -> Result<u64, Error> {
    let timeout = timeout.unwrap_or(INITIALIZER_TIMEOUT);
    if timeout.is_zero() {
        return Err(Error::invalid("initializer_timeout must be above zero"));
    }
    Ok(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX))
}

/// Checks an option that must not be 0. If it was not given, returns 0.
fn at_least_1(value: Option<u64>, option: &str) -> Result<u64, Error> {
    match value.map(NonZero::new) {
        None => Ok(0),
        Some(Some(value)) => Ok(value.get()),
        Some(None) => Err(Error::invalid(format!("{option} must be at least 1: leave it out for the default"))),
    }
}

/// Checks an upper bound, so that a typing error does not become a fork bomb.
fn bounded(value: usize, option: &str, most: u32) -> Result<u32, Error> {
    u32::try_from(value)
        .ok()
        .filter(|&value| value <= most)
        .ok_or_else(|| Error::invalid(format!("{option} must be at most {most}, not {value}")))
}
