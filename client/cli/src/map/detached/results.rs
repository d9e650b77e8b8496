//! `farpool results NAME`: prints the results of a job.

use std::any::type_name;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use bytes::Bytes;
use farpool::{DetachedState, DetachedStatus, Error, check_detached, decode_detached};
use farpool_session::Outcome;
use farpool_session::detached::{JobLocation, Outcomes, ReadEnd};

use super::super::finished::{Finished, Lost};
use super::super::item::{Item, Value};
use super::super::records::{Mode, Records, RecordsOption};
use super::super::sink::{PrintOptions, Sink};
use super::super::{MapError, end};
use super::Done;
use crate::cli::ResultsArguments;
use crate::streams;
use crate::text::{bytes_in_words, counted, printable};

/// The result type of a map's job.
type MapResult = Option<Done>;

/// Prints the results. `discard` drops the job with this id afterwards.
pub(crate) fn print(
    address: &str,
    name: &str,
    arguments: &ResultsArguments,
    discard: impl FnOnce(Bytes) -> Result<(), String>,
) -> ExitCode {
    end(try_print(address, name, arguments, discard))
}

/// Prints the results. Returns how many items failed.
fn try_print(
    address: &str,
    name: &str,
    arguments: &ResultsArguments,
    discard: impl FnOnce(Bytes) -> Result<(), String>,
) -> Result<u64, MapError> {
    let location = JobLocation::at(address).map_err(Error::from)?;
    let mut job = Outcomes::open(&location, "results", name, arguments.wait).map_err(Error::from)?;
    let status = DetachedStatus::read(job.about())?;
    let mut shown: Box<dyn ResultPrinter> = match &arguments.raw {
        Some(folder) => Box::new(Files::create(folder)?),
        None if job.about().result == type_name::<MapResult>() => {
            check_detached::<MapResult>(job.about().format)?;
            let mode = if arguments.overwrite { Mode::Overwrite } else { Mode::New };
            let place = arguments.results.clone().map(|path| RecordsOption { path, mode });
            let records = place.map(|place| Records::open(&place, None)).transpose()?;
            let options = PrintOptions { ordered: false, tag: arguments.tag, hosts: true };
            Box::new(OutputPrinter(Sink::open(options, records.map(|(records, _)| records), None)))
        }
        None if arguments.tag || arguments.results.is_some() => {
            let message =
                format!("job {name} was not detached by `farpool map`: --tag and --results do not apply to it");
            return Err(MapError::Failed(message));
        }
        None => Box::new(Summary { kind: job.about().result.clone(), ..Summary::default() }),
    };
    let ended = loop {
        match job.take() {
            Some(Ok(outcome)) => shown.add(outcome)?,
            Some(Err(ReadEnd::Broken(error))) => {
                // Show what arrived before.
                let _ = shown.flush();
                return Err(Error::from(error).into());
            }
            Some(Err(ended)) => break ended,
            None => {
                // Show what has arrived while waiting for more.
                shown.flush()?;
                job.wait();
            }
        }
    };
    let failed = shown.end()?;
    let discarded = arguments.discard && !matches!(ended, ReadEnd::Running);
    if discarded {
        discard(job.about().id.clone()).map_err(MapError::Failed)?;
    }
    let discarded = if discarded { "; it was discarded now, with its results" } else { "" };
    match ended {
        ReadEnd::Finished => Ok(failed),
        ReadEnd::Failed(error) | ReadEnd::Broken(error) => {
            Err(MapError::Failed(format!("{}{discarded}", Error::from(error))))
        }
        ReadEnd::Cancelled => {
            let items = counted(status.items, "item");
            let message = format!("job {name} was cancelled before all of its {items} had an outcome{discarded}");
            Err(MapError::Failed(message))
        }
        ReadEnd::Running => Err(MapError::Failed(format!("job {name} {}", unfinished(&status, arguments.discard)))),
    }
}

/// Describes a job that was not waited for.
fn unfinished(DetachedStatus { state, items, done, .. }: &DetachedStatus, discard: bool) -> String {
    let kept = if discard { ", and it was not discarded" } else { "" };
    match state {
        DetachedState::Receiving => format!("is still being sent: nothing runs yet{kept}"),
        _ => {
            let items = counted(*items, "item");
            format!("is still running: {done} of its {items} have an outcome{kept}; --wait waits for the others")
        }
    }
}

/// How results are printed.
trait ResultPrinter {
    fn add(&mut self, outcome: Outcome) -> Result<(), MapError>;

    fn flush(&mut self) -> Result<(), MapError>;

    /// Ends the output. Returns how many items failed.
    fn end(&mut self) -> Result<u64, MapError>;
}

/// Prints results as `farpool map` would.
struct OutputPrinter(Sink);

impl ResultPrinter for OutputPrinter {
    fn add(&mut self, Outcome { item: index, result, attempts }: Outcome) -> Result<(), MapError> {
        let lost = |error: Error| Finished::new(index, None, error.attempts(), Err(Lost::Failed(error)));
        let finished = match result.map_err(Error::from).and_then(|bytes| decode_detached::<MapResult>(&bytes)) {
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

/// Counts results and their bytes.
#[derive(Default)]
struct Summary {
    kind: String,
    results: u64,
    bytes: u64,
    failed: u64,
}

impl ResultPrinter for Summary {
    fn add(&mut self, outcome: Outcome) -> Result<(), MapError> {
        match outcome.result {
            Ok(bytes) => {
                self.results += 1;
                self.bytes += bytes.len() as u64;
            }
            Err(error) => {
                self.failed += 1;
                report_failure(error);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), MapError> {
        Ok(())
    }

    fn end(&mut self) -> Result<u64, MapError> {
        let Summary { kind, results, bytes, failed } = self;
        let kind = printable(kind.as_bytes());
        let (results, size) = (counted(*results, "result"), bytes_in_words(*bytes));
        let line = format!("{results} of type {kind}, {size}; --raw DIR writes each to a file\n");
        streams::stdout()
            .and_then(|mut stdout| stdout.write_all(line.as_bytes()))
            .map_err(|error| MapError::of_stdout(&error))?;
        Ok(*failed)
    }
}

/// Writes each result to a file.
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

impl ResultPrinter for Files<'_> {
    fn add(&mut self, outcome: Outcome) -> Result<(), MapError> {
        match outcome.result {
            Ok(bytes) => {
                let path = self.folder.join(outcome.item.to_string());
                fs::write(&path, bytes).map_err(|error| not_written(&path, &error))
            }
            Err(error) => {
                self.failed += 1;
                report_failure(error);
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
    MapError::Failed(format!("cannot write the results to {}: {error}", path.display()))
}

fn report_failure(error: farpool_session::Error) {
    // Errors are ignored: there is nowhere to report them.
    let _ = writeln!(io::stderr(), "farpool: {}", Error::from(error));
}
