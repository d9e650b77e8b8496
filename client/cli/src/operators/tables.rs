//! A coordinator's status as tables.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use farpool_common::units;
use farpool_proto::text::digits_that_differ;
use farpool_proto::v1::{AgentStatus, DetachedJob, JobStatus, JournalStatus, Label, StatusReply};

use super::json;
use super::table::Align::{Left, Right, Whole};
use super::table::{Column, Style, Table, wrapped};
use crate::text::{bytes, counted, printable};

/// Formats the whole status.
pub(super) fn status(address: &str, status: &StatusReply, style: Style) -> String {
    let release = status.version.as_ref().map_or("?", |version| &version.release);
    let slots: u64 = status.agents.iter().map(|agent| u64::from(agent.slots)).sum();
    let busy: u64 = status.agents.iter().map(|agent| u64::from(agent.busy)).sum();
    let rate = status.agents.iter().fold(0.0, |sum, agent| sum + agent.items_per_second);
    let mut text = format!(
        "coordinator {} at {address}, up {}{}\n",
        printable(release.as_bytes()),
        since(status.uptime_ns),
        if status.draining { ", draining" } else { "" }
    );
    let _ = writeln!(
        text,
        "{}, {busy} of {slots} slots busy, {} items/s; {} of {} held; late messages dropped: {}",
        counted(status.agents.len() as u64, "agent"),
        rate_of(rate),
        bytes(status.held_bytes),
        bytes(status.memory),
        status.late_messages
    );
    if let Some(journal) = &status.journal {
        let (used, size) = (bytes(journal.bytes), bytes(journal.size));
        let _ =
            writeln!(text, "journal: {}, {used} of {size}{}", counted(journal.jobs, "detached job"), failing(journal));
        text += &aside(journal);
        text += &damage(journal);
    }
    if let Style::Terminal { width } = style {
        text = wrapped(&text, width);
    }
    let _ = write!(text, "\n{}\n{}\n{}", agents(status, style), pools(status, style), jobs(status, style));
    text
}

fn failing(journal: &JournalStatus) -> String {
    match &*journal.failing {
        "" => String::new(),
        why => format!("; cannot write: {}", printable(why.as_bytes())),
    }
}

/// Describes the damaged files that were set aside: how many, their size, and the first names.
fn aside(journal: &JournalStatus) -> String {
    const SHOWN: usize = 10;
    if journal.aside.is_empty() {
        return String::new();
    }
    let (count, size) =
        (journal.aside.len(), journal.aside.iter().fold(0, |sum: u64, file| sum.saturating_add(file.bytes)));
    let shown: Vec<String> = journal.aside.iter().take(SHOWN).map(|file| printable(file.name.as_bytes())).collect();
    let more = if count > SHOWN { ", ..." } else { "" };
    let files = counted(count as u64, "damaged file");
    format!("kept beside the journal: {files}, {}: {}{more}\n", bytes(size), shown.join(", "))
}

/// Lists what was damaged or missing when the coordinator opened the journal, one per line, and how many more there are.
fn damage(journal: &JournalStatus) -> String {
    const SHOWN: usize = 10;
    let mut text = String::new();
    for damage in journal.damage.iter().take(SHOWN) {
        let _ = writeln!(text, "damage to the journal: {}", printable(damage.as_bytes()));
    }
    let more = journal.damage.len().saturating_sub(SHOWN);
    if more > 0 {
        let _ = writeln!(text, "damage to the journal: {more} more (--json shows all)");
    }
    text
}

pub(super) fn agents(status: &StatusReply, style: Style) -> String {
    let mut table = Table::new(&[
        Column::new("HOST", Left),
        Column::new("SLOTS", Right),
        Column::new("BUSY", Right),
        Column::optional("CHUNKS", Right, 6),
        Column::optional("DONE", Right, 3),
        Column::optional("ITEMS/S", Right, 2),
        Column::optional("CONNECTED", Right, 5),
        Column::new("STATE", Whole),
        Column::optional("AGENT", Whole, 1),
        Column::optional("LABELS", Left, 4),
    ]);
    let digits = digits_that_differ(status.agents.iter().map(|agent| &*agent.agent));
    for agent in &status.agents {
        table.row([
            agent.host.clone(),
            agent.slots.to_string(),
            agent.busy.to_string(),
            agent.chunks.to_string(),
            agent.items_done.to_string(),
            rate_of(agent.items_per_second),
            since(agent.connected_ns),
            state(agent).to_owned(),
            agent.agent.chars().take(digits).collect(),
            labels(&agent.labels),
        ]);
    }
    let reasons: String = status.agents.iter().filter_map(|agent| reason(agent, digits)).collect();
    let reasons = if let Style::Terminal { width } = style { wrapped(&reasons, width) } else { reasons };
    or_none(&table, status.agents.is_empty(), "no agents: jobs wait until one connects", style) + &reasons
}

fn state(agent: &AgentStatus) -> &'static str {
    match agent {
        AgentStatus { away: true, .. } => "away",
        AgentStatus { draining: true, .. } => "draining",
        AgentStatus { unhealthy, .. } if !unhealthy.is_empty() => "unhealthy",
        _ => "serving",
    }
}

/// Returns a line that says why an agent is unhealthy, which is too long for a column.
fn reason(agent: &AgentStatus, digits: usize) -> Option<String> {
    if agent.unhealthy.is_empty() {
        return None;
    }
    let id: String = agent.agent.chars().take(digits).collect();
    let [host, id, why] = [&*agent.host, &*id, &*agent.unhealthy].map(|text| printable(text.as_bytes()));
    Some(format!("agent {id} on {host} is unhealthy: {why}\n"))
}

pub(super) fn jobs(status: &StatusReply, style: Style) -> String {
    let mut table = Table::new(&[
        Column::new("JOB", Whole),
        Column::optional("POOL", Whole, 5),
        Column::optional("LABEL", Left, 2),
        Column::new("DONE", Right),
        Column::new("OF", Right),
        Column::new("FAILED", Right),
        Column::optional("AT AGENTS", Right, 4),
        Column::optional("ITEMS/S", Right, 1),
        Column::optional("OPEN", Right, 3),
        Column::optional("PRIORITY", Right, 6),
        Column::optional("REQUIRES", Left, 7),
    ]);
    for job in &status.jobs {
        table.row([
            job.job.clone(),
            job.pool.clone(),
            job.label.clone(),
            job.done.to_string(),
            total(job),
            job.failed.to_string(),
            job.assigned.to_string(),
            rate_of(job.items_per_second),
            since(job.open_ns),
            job.priority.to_string(),
            labels(&job.require),
        ]);
    }
    or_none(&table, status.jobs.is_empty(), "no jobs", style) + &left_out(status.jobs_left_out)
}

/// Formats detached jobs; times are relative to `now`.
pub(super) fn detached(jobs: &[DetachedJob], now: SystemTime, style: Style) -> String {
    let mut table = Table::new(&[
        Column::new("NAME", Whole),
        Column::new("STATE", Whole),
        Column::optional("ITEMS", Right, 5),
        Column::new("DONE", Right),
        Column::new("FAILED", Right),
        Column::optional("DETACHED", Right, 4),
        Column::optional("ENDED", Right, 3),
        Column::optional("EXPIRES", Right, 2),
        Column::optional("LABEL", Left, 1),
    ]);
    for job in jobs {
        table.row([
            job.name.clone(),
            json::state(job).to_owned(),
            job.items.to_string(),
            job.done.to_string(),
            job.failed.to_string(),
            relative_time(job.detached_ms, now),
            relative_time(job.ended_ms, now),
            relative_time(job.expires_ms, now),
            job.label.clone(),
        ]);
    }
    or_none(&table, jobs.is_empty(), "no detached jobs", style)
}

/// Formats a time in milliseconds since 1970, relative to now.
fn relative_time(ms: u64, now: SystemTime) -> String {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    match Duration::from_millis(ms) {
        Duration::ZERO => String::new(),
        then if then > now => format!("in {}", units::format_rounded(then - now)),
        then => format!("{} ago", units::format_rounded(now - then)),
    }
}

fn pools(status: &StatusReply, style: Style) -> String {
    let mut table = Table::new(&[
        Column::new("POOL", Whole),
        Column::optional("NAME", Left, 3),
        Column::optional("CLIENT", Left, 4),
        Column::new("SLOTS", Right),
        Column::optional("WANTED", Right, 2),
        Column::optional("WEIGHT", Right, 7),
        Column::optional("JOBS", Right, 1),
        Column::optional("OPEN", Right, 5),
        Column::optional("REQUIRES", Left, 6),
        Column::optional("WAITING FOR", Left, 1),
    ]);
    for pool in &status.pools {
        table.row([
            pool.pool.clone(),
            pool.name.clone(),
            pool.client.clone(),
            pool.slots.to_string(),
            if pool.processes == 0 { "all".to_owned() } else { pool.processes.to_string() },
            pool.weight.max(1).to_string(),
            pool.jobs.to_string(),
            since(pool.open_ns),
            labels(&pool.require),
            pool.waiting.clone(),
        ]);
    }
    or_none(&table, status.pools.is_empty(), "no pools", style) + &left_out(status.pools_left_out)
}

/// Says how many are not shown, if the coordinator has very many.
fn left_out(count: u64) -> String {
    if count == 0 { String::new() } else { format!("and {count} more\n") }
}

fn or_none(table: &Table, empty: bool, none: &str, style: Style) -> String {
    if empty { format!("{none}\n") } else { table.render(style) }
}

/// Formats the number of items, with a `+` if more may follow.
fn total(job: &JobStatus) -> String {
    format!("{}{}", job.items, if job.input_ended { "" } else { "+" })
}

fn labels(labels: &[Label]) -> String {
    let texts: Vec<String> = labels.iter().map(|label| format!("{}={}", label.key, label.value)).collect();
    texts.join(" ")
}

fn since(ns: u64) -> String {
    units::format_rounded(Duration::from_nanos(ns))
}

fn rate_of(items_per_second: f64) -> String {
    if items_per_second >= 100.0 { format!("{items_per_second:.0}") } else { format!("{items_per_second:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_relative_to_now() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(
            [0, 939_000, 1_000_000, 1_010_000].map(|ms| relative_time(ms, now)),
            ["", "1m 01s ago", "0ms ago", "in 10s"]
        );
        assert!(relative_time(u64::MAX, now).starts_with("in "));
    }

    #[test]
    fn rates_are_rounded() {
        assert_eq!([0.0, 3.17, 123456.7].map(rate_of), ["0.0", "3.2", "123457"]);
    }
}
