use std::num::NonZero;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use farpool_proto::v1::WorkerSettings;

use super::{Builder, Initializer, Target};
use crate::environment;
use crate::error::{Error, ErrorKind};
use crate::settings::Settings;

const INITIALIZER_TIMEOUT: Duration = Duration::from_secs(60);
const PAYLOAD_LIMIT: u64 = 1 << 30;
/// Positions in a batch are 32 bits: a batch holds one item of this size and some that are small.
const LARGEST_PAYLOAD_LIMIT: u64 = 2 << 30;

impl Builder {
    /// Checks every option and fills in the defaults.
    pub(super) fn resolve(self) -> Result<Settings, Error> {
        self.require_this_machine()?;
        let processes = match self.processes {
            Some(0) => return Err(Error::invalid("a pool needs at least 1 process")),
            Some(processes) => narrow(processes, "processes")?,
            None => thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
        };
        let (initializer, initializer_args) = resolve_initializer(self.initializer)?;
        let payload_limit = self.payload_limit.unwrap_or(PAYLOAD_LIMIT);
        if !(1..=LARGEST_PAYLOAD_LIMIT).contains(&payload_limit) {
            let message = format!(
                "payload_limit must be from 1 to {LARGEST_PAYLOAD_LIMIT} bytes (2 GiB), and it is {payload_limit}"
            );
            return Err(Error::invalid(message));
        }
        let settings = WorkerSettings {
            initializer,
            initializer_args,
            initializer_timeout_ns: initializer_timeout_ns(self.initializer_timeout)?,
            max_tasks_per_child: at_least_1(self.max_tasks_per_child, "max_tasks_per_child")?,
            threads: narrow(at_least_1(self.threads.map(|n| n as u64), "threads")?.max(1) as usize, "threads")?,
            memory_limit: at_least_1(self.memory_limit, "memory_limit")?,
            payload_limit,
            name: self.name,
        };
        Ok(Settings { processes, settings })
    }

    fn require_this_machine(&self) -> Result<(), Error> {
        let message = match &self.target {
            Target::ThisMachine => return Ok(()),
            Target::Cluster(url) => {
                format!("this build of farpool runs on this machine only: leave out .address({url:?})")
            }
            Target::Environment => match environment::address() {
                None => return Ok(()),
                Some(url) => format!(
                    "this build of farpool runs on this machine only: unset {}, which is {url:?}, or call .local()",
                    environment::ADDRESS
                ),
            },
        };
        Err(Error::new(ErrorKind::Unavailable, message))
    }
}

/// A process that is not prepared to be a worker would run its own main again in each worker, and open pools there.
pub(super) fn require_init(initialised: bool) -> Result<(), Error> {
    if initialised {
        return Ok(());
    }
    Err(Error::invalid(
        "farpool is not initialised: make `farpool::init();` the first line of main, since workers run this program too",
    ))
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
        return Err(Error::invalid("initializer_timeout must be longer than nothing"));
    }
    Ok(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX))
}

/// 0 stands for an option that was not given.
fn at_least_1(value: Option<u64>, option: &str) -> Result<u64, Error> {
    match value.map(NonZero::new) {
        None => Ok(0),
        Some(Some(value)) => Ok(value.get()),
        Some(None) => Err(Error::invalid(format!("{option} must be at least 1: leave it out for the default"))),
    }
}

fn narrow(value: usize, option: &str) -> Result<u32, Error> {
    /// More than any machine can run; the bound keeps a slip of the pen from becoming a fork bomb.
    const MOST: u32 = 1 << 20;
    u32::try_from(value)
        .ok()
        .filter(|&value| value <= MOST)
        .ok_or_else(|| Error::invalid(format!("{option} must be at most {MOST}, and it is {value}")))
}
