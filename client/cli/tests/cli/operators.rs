//! The operator commands, against a fake service.

use farpool_proto::v1::{AgentStatus, DetachedJob, DetachedState, StatusReply};
use serde_json::{Value, json};

use crate::detached_server::KeptJob;
use crate::service::{Service, busy_cluster};
use crate::support::{Done, farpool};

fn call(service: &Service, arguments: &[&str]) -> Done {
    farpool(["--address", &service.address].into_iter().chain(arguments.iter().copied())).run()
}

fn json_of(service: &Service, command: &str) -> Value {
    let done = call(service, &[command, "--json"]);
    assert_eq!((done.code, done.stderr()), (Some(0), String::new()));
    serde_json::from_slice(&done.stdout).unwrap()
}

#[test]
fn status_shows_everything() {
    let service = Service::start(busy_cluster());
    let done = call(&service, &["status"]);
    let address = &service.address;
    done.assert_prints(&format!(
        "\
coordinator 1.2.3 at {address}, up 1h 01m
4 agents, 12 of 76 slots busy, 1234 items/s; 3.0 MiB of 4.0 GiB held; late messages dropped: 7
journal: 3 detached jobs, 5.0 MiB of 10.0 GiB; cannot write: the disk is full\\u{{1b}}
kept beside the journal: 2 damaged files, 6.0 MiB: 0000000001.farpool-journal.damaged-20261130T021338Z, evil\\u{{1b}}
damage to the journal: 0000000002.farpool-journal is missing, and 5.0 MiB of it were durable\\u{{1b}}

HOST           SLOTS  BUSY  CHUNKS    DONE  ITEMS/S  CONNECTED  STATE      AGENT  LABELS
node1             64    12     140  123456     1234     1m 01s  serving    a1b2   gpu=a100 os=linux
evil\\u{{1b}}[2J      4     0       0       0      0.0        0ms  draining   c3d4
node2              4     0       0       0      0.0        0ms  unhealthy  e5f6
node3              4     0       0       0      0.0        0ms  away       a7b8
agent e5f6 on node2 is unhealthy: killed by SIGKILL

POOL  NAME        CLIENT          SLOTS  WANTED  WEIGHT  JOBS  OPEN  REQUIRES  WAITING FOR
3     thumbnails  10.0.0.7:51000     68     all       2     1  1.5s  os=linux  an agent with gpu=h100

JOB  POOL  LABEL   DONE     OF  FAILED  AT AGENTS  ITEMS/S  OPEN  PRIORITY  REQUIRES
31   3     resize  1200  5000+       3        140     99.5    1s        -1
"
    ));
    assert_eq!(service.take_requests(), ["status"]);
}

#[test]
fn agents_and_jobs_show_their_parts() {
    let service = Service::start(busy_cluster());
    let whole = call(&service, &["status"]).stdout();
    for (command, part) in [("agents", 1), ("jobs", 3)] {
        let shown = call(&service, &[command]).stdout();
        assert_eq!(Some(shown.trim_end()), whole.split("\n\n").nth(part).map(str::trim_end), "{command}");
    }
}

#[test]
fn an_empty_cluster_is_described() {
    let service = Service::start(StatusReply::default());
    let text = call(&service, &["status"]).stdout();
    assert!(text.ends_with("\n\nno agents: jobs wait until one connects\n\nno pools\n\nno jobs\n"), "{text}");
    assert_eq!(json_of(&service, "agents"), json!({ "agents": [] }));
}

#[test]
fn the_keys_of_json_are_stable() {
    let service = Service::start(busy_cluster());
    let status = json_of(&service, "status");
    assert_eq!(
        status,
        json!({
            "release": "1.2.3",
            "protocol": 9,
            "uptime_seconds": 3660.0,
            "draining": false,
            "held_bytes": 3 << 20,
            "memory_bytes": 4_u64 << 30,
            "late_messages": 7,
            "journal": {
                "jobs": 3,
                "bytes": 5 << 20,
                "size_bytes": 10_u64 << 30,
                "failing": "the disk is full\u{1b}",
                "aside": [
                    { "name": "0000000001.farpool-journal.damaged-20261130T021338Z", "bytes": 3 << 20 },
                    { "name": "evil\u{1b}", "bytes": 3 << 20 },
                ],
                "damage": ["0000000002.farpool-journal is missing, and 5.0 MiB of it were durable\u{1b}"],
            },
            "agents": [{
                "agent": "a1b2",
                "host": "node1",
                "release": "1.2.3",
                "labels": { "gpu": "a100", "os": "linux" },
                "slots": 64,
                "busy": 12,
                "chunks": 140,
                "draining": false,
                "connected_seconds": 61.0,
                "items_done": 123_456,
                "items_per_second": 1234.5,
                "unhealthy": "",
                "away": false,
            }, {
                "agent": "c3d4",
                "host": "evil\u{1b}[2J",
                "release": "",
                "labels": {},
                "slots": 4,
                "busy": 0,
                "chunks": 0,
                "draining": true,
                "connected_seconds": 0.0,
                "items_done": 0,
                "items_per_second": 0.0,
                "unhealthy": "",
                "away": false,
            }, {
                "agent": "e5f6",
                "host": "node2",
                "release": "",
                "labels": {},
                "slots": 4,
                "busy": 0,
                "chunks": 0,
                "draining": false,
                "connected_seconds": 0.0,
                "items_done": 0,
                "items_per_second": 0.0,
                "unhealthy": "killed by SIGKILL",
                "away": false,
            }, {
                "agent": "a7b8",
                "host": "node3",
                "release": "",
                "labels": {},
                "slots": 4,
                "busy": 0,
                "chunks": 0,
                "draining": false,
                "connected_seconds": 0.0,
                "items_done": 0,
                "items_per_second": 0.0,
                "unhealthy": "",
                "away": true,
            }],
            "pools": [{
                "pool": "3",
                "name": "thumbnails",
                "client": "10.0.0.7:51000",
                "processes": 0,
                "slots": 68,
                "weight": 2,
                "require": { "os": "linux" },
                "jobs": 1,
                "waiting": "an agent with gpu=h100",
                "open_seconds": 1.5,
            }],
            "jobs": [{
                "job": "31",
                "pool": "3",
                "label": "resize",
                "priority": -1,
                "require": {},
                "items": 5000,
                "input_ended": false,
                "done": 1200,
                "failed": 3,
                "assigned": 140,
                "open_seconds": 1.0,
                "items_per_second": 99.5,
            }],
            "pools_left_out": 0,
            "jobs_left_out": 0,
        })
    );
    assert_eq!(json_of(&service, "agents"), json!({ "agents": status["agents"] }));
    assert_eq!(json_of(&service, "jobs"), json!({ "jobs": status["jobs"] }));
}

#[test]
fn a_job_is_cancelled_by_its_name() {
    let service = Service::start(busy_cluster());
    call(&service, &["cancel", "31"]).assert_prints("job 31 is cancelled\n");
    assert_eq!(service.take_requests(), ["list", "cancel 31"]);
}

#[test]
fn numbers_and_names_are_not_confused() {
    let detached = |name: &str| KeptJob {
        job: DetachedJob { name: name.to_owned(), state: DetachedState::Running.into(), ..DetachedJob::default() },
        outcomes: Vec::new(),
    };
    let service = Service::keeping(busy_cluster(), vec![detached("31"), detached("7"), detached("nightly")]);
    // A number that is also a name; a name that may have been a number; and parts or other spellings of names.
    let asks = "is the name of a detached job, but could also be a job's number: choose with --number or --detached";
    for job in ["31", "7"] {
        call(&service, &["cancel", job]).assert(1, "", &format!("farpool: {job} {asks}\n"));
        assert_eq!(service.take_requests(), ["list"], "{job}");
    }
    for job in ["night", "nightly2", "+31", "031", "3"] {
        assert_eq!(call(&service, &["cancel", job]).code, Some(1), "{job}");
    }
    service.take_requests();
    call(&service, &["cancel", "--number", "31"]).assert_prints("job 31 is cancelled\n");
    call(&service, &["cancel", "--detached", "31"]).assert_prints("job 31 is cancelled\n");
    assert_eq!(service.take_requests(), ["cancel 31", "cancel detached 31"]);
    assert_eq!(call(&service, &["cancel", "--number", "--detached", "31"]).code, Some(2));
}

#[test]
fn unknown_names_are_reported_with_advice() {
    let service = Service::start(busy_cluster());
    let expected = "farpool: there is no job \"9\"; give a detached job's name with --detached\n";
    call(&service, &["cancel", "9"]).assert(1, "", expected);
    let expected = "farpool: there is no agent \"x\"; `farpool agents` shows more\n";
    call(&service, &["drain", "--wait", "x"]).assert(1, "", expected);
}

#[test]
fn a_refusal_has_the_coordinators_message() {
    let service = Service::start(busy_cluster());
    let expected =
        format!("farpool: the coordinator at {} refused: only its owner may (PermissionDenied)\n", service.address);
    call(&service, &["cancel", "--number", "403"]).assert(1, "", &expected);
}

#[test]
fn draining_returns_at_once_or_when_the_agent_has_left() {
    let service = Service::start(busy_cluster());
    let done = call(&service, &["drain", "node1"]);
    done.assert_prints("agent node1 is draining: it leaves when what it runs is finished\n");
    assert_eq!(service.take_requests(), ["drain node1"]);

    let service = Service::start(busy_cluster());
    call(&service, &["drain", "--wait", "node1"]).assert_prints("agent node1 has left\n");
    assert_eq!(service.take_requests(), ["drain node1", "status", "status", "status"]);
}

#[test]
fn a_short_address_is_accepted() {
    let service = Service::start(busy_cluster());
    let short = service.address.strip_prefix("http://").unwrap().to_owned();
    assert_eq!(farpool(["jobs", "--address", &short]).run().code, Some(0));
}

#[test]
fn a_word_is_not_a_job_number() {
    let service = Service::start(busy_cluster());
    for word in ["nightly", "+31", "3 1", ""] {
        let done = call(&service, &["cancel", "--number", word]);
        assert_eq!((done.code, done.stdout()), (Some(2), String::new()), "{done:?}");
        let part = format!("--number takes a job's number, as `farpool jobs` shows it, but '{word}' is not a number");
        assert!(done.stderr().contains(&part), "{done:?}");
    }
    assert_eq!(service.take_requests(), [""; 0]);
}

/// Realistic ids: those of agents that start together have the same beginning.
fn three_on_a_host() -> StatusReply {
    let ids = [
        "0193f2a4-0001-7000-8000-000000000001",
        "0193f2a4-0001-7000-9000-000000000002",
        "0293f2a4-0001-7000-9000-000000000003",
    ];
    let agent =
        |id: &str| AgentStatus { agent: id.to_owned(), host: "0193f2a4-0001".to_owned(), ..AgentStatus::default() };
    StatusReply { agents: ids.map(agent).into(), ..StatusReply::default() }
}

#[test]
fn an_agent_is_drained_by_the_beginning_of_its_id() {
    let service = Service::start(three_on_a_host());
    let shown = call(&service, &["agents"]).stdout();
    assert!(shown.contains("  0193f2a4-0001-7000-8\n") && shown.contains("  0293f2a4-0001-7000-9\n"), "{shown}");
    service.take_requests();
    call(&service, &["drain", "0293f2a4"])
        .assert_prints("agent 0293f2a4 is draining: it leaves when what it runs is finished\n");
    assert_eq!(service.take_requests(), ["status", "drain 0293f2a4-0001-7000-9000-000000000003"]);
    let service = Service::start(three_on_a_host());
    let done = call(&service, &["drain", "0193f2a4"]);
    let message =
        "farpool: the ids of 2 agents begin with 0193f2a4; give more of the id, as `farpool agents` shows it\n";
    done.assert(1, "", message);
    assert_eq!(service.take_requests(), ["status"]);
    // Host names have precedence, and fewer digits than shown are not accepted.
    assert_eq!(call(&service, &["drain", "0193f2a4-0001"]).code, Some(0));
    assert_eq!(service.take_requests(), ["status", "drain 0193f2a4-0001"]);
    assert_eq!(call(&service, &["drain", "0293"]).code, Some(1));
    assert_eq!(service.take_requests(), ["drain 0293"]);
}

#[test]
fn tables_fit_the_terminal() {
    let service = Service::start(busy_cluster());
    for (columns, command) in
        [(80, "agents"), (60, "agents"), (60, "jobs"), (60, "status"), (40, "agents"), (40, "jobs")]
    {
        // script(1) provides a terminal.
        let farpool = env!("CARGO_BIN_EXE_farpool");
        let line = format!("stty rows 24 cols {columns}; {farpool} --address {} {command}", service.address);
        let mut script = std::process::Command::new("script");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env_remove("FARPOOL_ADDRESS");
        let Ok(output) = script.stdin(std::process::Stdio::null()).output() else {
            eprintln!("skipped: there is no script(1) here");
            return;
        };
        let shown = String::from_utf8_lossy(&output.stdout).replace("\x1b[1m", "").replace("\x1b[0m", "");
        assert!(shown.contains("node1 ") || command == "jobs", "{shown}");
        // A word that is longer than a line is not broken.
        let fits = |line: &str| line.trim_end().chars().count() <= columns || !line.trim().contains(' ');
        assert!(shown.lines().all(fits), "{columns} columns, {command}:\n{shown}");
        assert!(columns == 80 || shown.replace("\r\n  ", " ").contains("(no room for "), "{shown}");
    }
}
