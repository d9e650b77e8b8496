//! `farpool results NAME`: what a job has brought, printed.

use std::any::type_name;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use bytes::Bytes;
use farpool::{DetachedState, DetachedStatus, Error, check_detached, decode_detached};
use farpool_session::Outcome;
use farpool_session::detached::{End, Outcomes, Place as Keeper};

use super::super::finished::{Finished, Lost};
use super::super::item::{Item, Value};
use super::super::records::{Mode, Place, Records};
use super::super::sink::{Look, Sink};
use super::super::{MapError, end};
use super::Done;
use crate::cli::ResultsArguments;
use crate::streams;
use crate::text::{bytes_in_words, counted, printable};

/// What a map's job has as results.
type Brought = Option<Done>;

/// Prints them; `discard` drops the job with this id when all of that is done.
pub(crate) fn print(
    address: &str,
    name: &str,
    arguments: &ResultsArguments,
    discard: impl FnOnce(Bytes) -> Result<(), String>,
) -> ExitCode {
    end(try_print(address, name, arguments, discard))
}

/// Returns how many items failed.
fn try_print(
    address: &str,
    name: &str,
    arguments: &ResultsArguments,
    discard: impl FnOnce(Bytes) -> Result<(), String>,
) -> Result<u64, MapError> {
    let keeper = Keeper::at(address).map_err(Error::from)?;
    let mut job = Outcomes::open(&keeper, "results", name, arguments.wait).map_err(Error::from)?;
    let status = DetachedStatus::read(job.about())?;
    let mut shown: Box<dyn Shown> = match &arguments.raw {
        Some(folder) => Box::new(Files::create(folder)?),
        None if job.about().result == type_name::<Brought>() => {
            check_detached::<Brought>(job.about().format)?;
            let mode = if arguments.overwrite { Mode::Overwrite } else { Mode::New };
            let place = arguments.results.clone().map(|path| Place { path, mode });
            let records = place.map(|place| Records::open(&place, None)).transpose()?;
            let look = Look { ordered: false, tag: arguments.tag, hosts: true };
            Box::new(Outputs(Sink::open(look, records.map(|(records, _)| records), None)))
        }
        None if arguments.tag || arguments.results.is_some() => {
            let message =
                format!("job {name} was not detached by `farpool map`: --tag and --results do not apply to it");
            return Err(MapError::Told(message));
        }
        None => Box::new(Amount { kind: job.about().result.clone(), ..Amount::default() }),
    };
    let ended = loop {
        match job.take() {
            Some(Ok(outcome)) => shown.add(outcome)?,
            Some(Err(End::Broken(error))) => {
                // What came before is to be seen.
                let _ = shown.flush();
                return Err(Error::from(error).into());
            }
            Some(Err(ended)) => break ended,
            None => {
                // So is whatever there is while nothing comes.
                shown.flush()?;
                job.wait();
            }
        }
    };
    let failed = shown.end()?;
    let discarded = arguments.discard && !matches!(ended, End::Running);
    if discarded {
        discard(job.about().id.clone()).map_err(MapError::Told)?;
    }
    let discarded = if discarded { "; it was discarded now, with its results" } else { "" };
    match ended {
        End::Finished => Ok(failed),
        End::Failed(error) | End::Broken(error) => Err(MapError::Told(format!("{}{discarded}", Error::from(error)))),
        End::Cancelled => {
            let items = counted(status.items, "item");
            let message = format!("job {name} was cancelled before all of its {items} had an outcome{discarded}");
            Err(MapError::Told(message))
        }
        End::Running => Err(MapError::Told(format!("job {name} {}", goes_on(&status, arguments.discard)))),
    }
}

/// What there is to say of a job that was not waited for.
fn goes_on(DetachedStatus { state, items, done, .. }: &DetachedStatus, discard: bool) -> String {
    let kept = if discard { ", and it was not discarded" } else { "" };
    match state {
        DetachedState::Receiving => format!("is still being sent: nothing runs yet{kept}"),
        _ => {
            let items = counted(*items, "item");
            format!("is still running: {done} of its {items} have an outcome{kept}; --wait waits for the others")
        }
    }
}

/// How results are shown.
trait Shown {
    fn add(&mut self, outcome: Outcome) -> Result<(), MapError>;

    fn flush(&mut self) -> Result<(), MapError>;

    /// Returns how many items failed.
    fn end(&mut self) -> Result<u64, MapError>;
}

/// As `farpool map` would have.
struct Outputs(Sink);

impl Shown for Outputs {
    fn add(&mut self, Outcome { item: index, result, attempts }: Outcome) -> Result<(), MapError> {
        let lost = |error: Error| Finished::new(index, None, error.attempts(), Err(Lost::Failed(error)));
        let finished = match result.map_err(Error::from).and_then(|bytes| decode_detached::<Brought>(&bytes)) {
            Ok(Some(Done { item, outcome })) => {
                Finished::new(index, Some(Item::from(Value::from(item))), attempts, Ok(outcome))
            }
            Ok(None) => return Ok(()),
            Err(error) => lost(error),
        };
        self.0.add(finished, false)
    }

    fn flush(&mut self) -> Result<(), MapError> {
        self.0.flush()
    }

    fn end(&mut self) -> Result<u64, MapError> {
        self.0.end()?;
        Ok(self.0.failed())
    }
}

/// Only how much there is of them.
#[derive(Default)]
struct Amount {
    kind: String,
    results: u64,
    bytes: u64,
    failed: u64,
}

impl Shown for Amount {
    fn add(&mut self, outcome: Outcome) -> Result<(), MapError> {
        match outcome.result {
            Ok(bytes) => {
                self.results += 1;
                self.bytes += bytes.len() as u64;
            }
            Err(error) => {
                self.failed += 1;
                tell_failure(error);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), MapError> {
        Ok(())
    }

    fn end(&mut self) -> Result<u64, MapError> {
        let Amount { kind, results, bytes, failed } = self;
        let kind = printable(kind.as_bytes());
        let (results, size) = (counted(*results, "result"), bytes_in_words(*bytes));
        let line = format!("{results} of type {kind}, {size}; --raw DIR writes each to a file\n");
        streams::stdout()
            .and_then(|mut stdout| stdout.write_all(line.as_bytes()))
            .map_err(|error| MapError::of_stdout(&error))?;
        Ok(*failed)
    }
}

/// Each in a file.
struct Files<'a> {
    folder: &'a Path,
    failed: u64,
}

impl<'a> Files<'a> {
    fn create(folder: &'a Path) -> Result<Self, MapError> {
        fs::create_dir_all(folder).map_err(|error| not_written(folder, &error))?;
        Ok(Self { folder, failed: 0 })
    }
}

impl Shown for Files<'_> {
    fn add(&mut self, outcome: Outcome) -> Result<(), MapError> {
        match outcome.result {
            Ok(bytes) => {
                let path = self.folder.join(outcome.item.to_string());
                fs::write(&path, bytes).map_err(|error| not_written(&path, &error))
            }
            Err(error) => {
                self.failed += 1;
                tell_failure(error);
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> Result<(), MapError> {
        Ok(())
    }

    fn end(&mut self) -> Result<u64, MapError> {
        Ok(self.failed)
    }
}

fn not_written(path: &Path, error: &io::Error) -> MapError {
    MapError::Told(format!("cannot write the results to {}: {error}", path.display()))
}

fn tell_failure(error: farpool_session::Error) {
    // Without a reader there is nobody to tell.
    let _ = writeln!(io::stderr(), "farpool: {}", Error::from(error));
}
