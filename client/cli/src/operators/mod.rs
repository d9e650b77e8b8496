//! The commands for operators: they call the coordinator's Operators service, and print for people or programs.

mod connection;
mod error;
mod json;
mod table;
mod tables;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use farpool_proto::text::{MIN_ID_DIGITS, json as json_text};
use farpool_proto::v1::{CancelJobRequest, DrainAgentRequest, StatusReply};

use crate::cli::{CancelArguments, DEFAULT_ADDRESS, DrainArguments, ResultsArguments, ShowArguments};
use crate::map::{detached, exit_code};
use crate::streams;
use connection::Connection;
pub(crate) use error::OperatorError;

/// How often `drain --wait` polls the status.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Checks the address that a command was given, for commands that do not use this module's connections.
pub(crate) fn check_address(address: &str) -> Result<(), OperatorError> {
    connection::parse(address).map(drop)
}

/// Runs `farpool status`.
pub(crate) fn status(address: Option<String>, arguments: ShowArguments) -> Result<(), OperatorError> {
    let (address, status) = fetch(address)?;
    let status = status?;
    if arguments.json { print_json(&json::status(&status)) } else { print(&tables::status(&address, &status, style())) }
}

/// Runs `farpool agents`.
pub(crate) fn agents(address: Option<String>, arguments: ShowArguments) -> Result<(), OperatorError> {
    let status = fetch(address)?.1?;
    if arguments.json { print_json(&json::agents(&status)) } else { print(&tables::agents(&status, style())) }
}

/// Runs `farpool jobs`.
pub(crate) fn jobs(address: Option<String>, arguments: ShowArguments) -> Result<(), OperatorError> {
    let status = fetch(address)?.1?;
    if arguments.json { print_json(&json::jobs(&status)) } else { print(&tables::jobs(&status, style())) }
}

/// Runs `farpool cancel JOB`.
pub(crate) fn cancel(address: Option<String>, arguments: &CancelArguments) -> Result<(), OperatorError> {
    let CancelArguments { job, detached, number } = arguments;
    // A number never falls back on a name: the job with that number may have ended, and the name may be another user's.
    let is_number = *number || !detached && !job.is_empty() && job.bytes().all(|byte| byte.is_ascii_digit());
    with_connection(address, async |mut connection| {
        if !is_number {
            return connection.cancel_detached(job.clone()).await;
        }
        if !number && connection.has_detached(job).await? {
            return Err(OperatorError::ambiguous(job));
        }
        connection.cancel_job(CancelJobRequest { job: job.clone() }).await
    })?;
    print(&format!("job {job} is cancelled\n"))
}

/// Runs `farpool results [NAME]`.
pub(crate) fn results(address: Option<String>, arguments: &ResultsArguments) -> ExitCode {
    let Some(name) = &arguments.name else {
        return match list_detached(address, arguments.json) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // Errors are ignored: there is nowhere to report them.
                let _ = writeln!(io::stderr(), "farpool: {error}");
                ExitCode::from(exit_code::OWN_FAILURE)
            }
        };
    };
    let shown = address.clone().unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
    detached::print(&shown, name, arguments, |id| {
        let name = name.clone();
        let discarded = with_connection(address, async |mut connection| connection.discard_detached(name, id).await);
        discarded.map_err(|error| error.to_string())
    })
}

fn list_detached(address: Option<String>, json: bool) -> Result<(), OperatorError> {
    let jobs = with_connection(address, async |mut connection| connection.detached_jobs().await)?;
    if json { print_json(&json::detached(&jobs)) } else { print(&tables::detached(&jobs, SystemTime::now(), style())) }
}

/// Runs `farpool drain AGENT`.
pub(crate) fn drain(address: Option<String>, arguments: &DrainArguments) -> Result<(), OperatorError> {
    let agent = arguments.agent.clone();
    with_connection(address, async |mut connection| {
        let agent = match may_be_part_of_an_id(&agent) {
            true => resolve_id(agent, &connection.status().await?)?,
            false => agent,
        };
        // When this agent has left, its host's name may mean another one: wait for the id.
        let id = connection.drain_agent(DrainAgentRequest { agent }).await?;
        while arguments.wait && connection.status().await?.agents.iter().any(|agent| agent.agent == id) {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    })?;
    let done = if arguments.wait { "has left" } else { "is draining: it leaves when what it runs is finished" };
    print(&format!("agent {} {done}\n", arguments.agent))
}

fn may_be_part_of_an_id(agent: &str) -> bool {
    agent.len() >= MIN_ID_DIGITS && agent.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// Returns the only agent's id that begins with this. Ids and host names are returned unchanged.
fn resolve_id(agent: String, status: &StatusReply) -> Result<String, OperatorError> {
    if status.agents.iter().any(|known| known.agent == agent || known.host == agent) {
        return Ok(agent);
    }
    let begun = status.agents.iter().map(|known| &known.agent).filter(|id| id.starts_with(&agent)).collect::<Vec<_>>();
    match begun[..] {
        [id] => Ok(id.clone()),
        // The coordinator's answer lists the agents.
        [] => Ok(agent),
        _ => Err(OperatorError::ambiguous_id(&agent, begun.len())),
    }
}

type Fetched = (String, Result<StatusReply, OperatorError>);

fn fetch(address: Option<String>) -> Result<Fetched, OperatorError> {
    let shown = address.clone().unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
    Ok((shown, with_connection(address, async |mut connection| connection.status().await)))
}

fn with_connection<T>(
    address: Option<String>,
    act: impl AsyncFnOnce(Connection) -> Result<T, OperatorError>,
) -> Result<T, OperatorError> {
    let address = address.unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(OperatorError::runtime)?;
    runtime.block_on(async { act(Connection::open(&address).await?).await })
}

/// Returns how to print tables on this stdout.
fn style() -> table::Style {
    const USUAL_WIDTH: usize = 80;
    if !io::stdout().is_terminal() {
        return table::Style::Plain;
    }
    let size = terminal_size::terminal_size_of(io::stdout());
    // A terminal without a valid size gets the usual one.
    let width = size.map(|(width, _)| usize::from(width.0)).filter(|width| *width > 0);
    table::Style::Terminal { width: width.unwrap_or(USUAL_WIDTH) }
}

fn print_json(value: &impl serde::Serialize) -> Result<(), OperatorError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| OperatorError::stdout(error.into()))?;
    print(&format!("{}\n", json_text(&text)))
}

fn print(text: &str) -> Result<(), OperatorError> {
    match streams::stdout().and_then(|mut stdout| stdout.write_all(text.as_bytes())) {
        // The reader has exited, which is no error.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(OperatorError::stdout(error)),
        _ => Ok(()),
    }
}
