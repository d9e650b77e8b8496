//! `farpool` on a real cluster: a coordinator and agents as separate processes.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use farpool_testkit::cluster::Cluster;
use farpool_testkit::folder::Folder;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::map_retries::fails_in_two_ways;
use crate::shared::Shared;
use crate::support::{Call, Done, Running, farpool, folder, lines, map_arguments, records};

fn on<'a>(address: &'a str, arguments: &[&'a str]) -> Call {
    farpool(["--address", address].into_iter().chain(arguments.iter().copied()))
}

fn map(address: &str, program: &str, arguments: &[&str]) -> Call {
    on(address, &map_arguments(&["map"], program, arguments))
}

fn status(address: &str) -> Value {
    serde_json::from_slice(&on(address, &["status", "--json"]).run().stdout).unwrap()
}

fn numbers(count: u32) -> String {
    (1..=count).map(|number| format!("{number}\n")).collect()
}

#[test]
fn commands_run_on_all_agents_and_outputs_are_in_order() {
    let cluster = Cluster::of(3, 2);
    map(cluster.address(), "echo {}", &[]).input(numbers(300)).run().assert_prints(&numbers(300));

    let folder = folder();
    let results = folder.file("results");
    let options = ["--keep-going", "--retries", "1", "--timeout", "700ms", "--results", &results];
    let done = map(cluster.address(), "sleep 0.1; case {} in 3) exit 5;; 4) sleep 50;; esac", &options)
        .input(numbers(8))
        .run();
    assert_eq!((done.code, done.stderr().lines().count()), (Some(2), 2), "{done:?}");
    assert!(done.stderr().contains("item 3 \"3\": exit code 5 (host node"), "{done:?}");
    let text = fs::read_to_string(&results).unwrap();
    let mut records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    records.sort_by_key(|record| record["index"].as_u64());
    let attempts: Vec<_> = records.iter().map(|record| record["attempts"].as_u64().unwrap()).collect();
    assert_eq!(attempts, [1, 1, 2, 2, 1, 1, 1, 1]);

    // Eight items that take a while have used every slot of every agent.
    let mut agents: Vec<Value> = status(cluster.address())["agents"].as_array().unwrap().clone();
    agents.retain(|agent| agent["items_done"].as_u64() > Some(0));
    assert_eq!(agents.len(), 3, "{agents:?}");
    cluster.end();
}

#[test]
fn failed_commands_are_retried_on_any_agent() {
    let (cluster, folder) = (Shared::of(2, 1), folder());
    let (log, results) = (folder.file("log"), folder.file("records"));
    let options = ["--retries", "2", "--results", &results];
    map(cluster.address(), &fails_in_two_ways(&log), &options).input("x\n").run().assert_prints("done\n");
    assert_eq!(records(&results)[0]["attempts"], 3);
    // After the first failure, the map stops and retries nothing.
    let log = folder.file("runs");
    let program = format!("echo {{}} >> {log}; test {{}} = a || sleep 2; exit 3");
    let done = map(cluster.address(), &program, &["--retries", "1"]).input("a\nb\n").run();
    assert_eq!((done.code, done.stdout()), (Some(2), String::new()));
    assert!(done.stderr().contains("2 attempts") && done.stderr().contains("1 attempt)"), "{done:?}");
    assert_eq!(fs::read_to_string(&log).unwrap().matches('b').count(), 1, "{done:?}");
}

/// Every slot runs a command that waits for its own commands.
#[test]
fn commands_that_run_farpool_finish() {
    let cluster = Shared::of(1, 2);
    let folder = folder();
    let script = folder.file("nested.sh");
    let binary = env!("CARGO_BIN_EXE_farpool");
    let text = format!(
        "if [ $1 = 0 ]; then echo leaf $2; exit; fi\n\
         {binary} map \"sh {script} $(($1 - 1))\" ::: a b && echo level $1 $2\n"
    );
    fs::write(&script, text).unwrap();
    let done = map(cluster.address(), &format!("sh {script} 2"), &["--", "x", "y"]).run();
    let level_1 = |item: &str| format!("leaf a\nleaf b\nlevel 1 {item}\n");
    let level_2 = |item: &str| format!("{}{}level 2 {item}\n", level_1("a"), level_1("b"));
    let expected = level_2("x") + &level_2("y");
    done.assert_prints(&expected);
}

/// Commands in the only slot detach jobs and wait for them, two levels deep.
#[test]
fn commands_that_wait_for_detached_jobs_finish() {
    let cluster = Cluster::of(1, 1);
    let folder = folder();
    let script = folder.file("detaching.sh");
    let binary = env!("CARGO_BIN_EXE_farpool");
    let text = format!(
        "if [ $1 = 0 ]; then echo leaf $2; exit; fi\n\
         {binary} map --detach $1-$2 \"sh {script} $(($1 - 1))\" ::: a$2 b$2 > /dev/null &&\n\
         {binary} results $1-$2 --wait && echo level $1 $2\n"
    );
    fs::write(&script, text).unwrap();
    let done = map(cluster.address(), &format!("sh {script} 2"), &["--", "x", "y"]).run();
    let level_1 = |item: &str| format!("leaf a{item}\nleaf b{item}\nlevel 1 {item}\n");
    let level_2 =
        |item: &str| format!("{}{}level 2 {item}\n", level_1(&format!("a{item}")), level_1(&format!("b{item}")));
    done.assert_prints(&(level_2("x") + &level_2("y")));
    cluster.end();
}

/// An unrelated process with the token of a running item does not get its slot.
#[test]
fn a_copied_token_lends_no_slot() {
    let (cluster, folder) = (Shared::of(1, 1), folder());
    let (token, word, log) = (folder.pipe("token"), folder.pipe("word"), folder.file("log"));
    let outer = map(
        cluster.address(),
        &format!("echo $FARPOOL_ITEM > {token}; read _ < {word}; echo {{}} >> {log}"),
        &["--", "outer"],
    )
    .spawn();
    let copied = fs::read_to_string(&token).unwrap();
    assert!(copied.len() > 64, "{copied}");
    let copy = map(cluster.address(), &format!("echo {{}} >> {log}"), &["--", "copy"])
        .change(|command| {
            command.env("FARPOOL_ITEM", copied.trim());
        })
        .spawn();
    let start = Instant::now();
    while status(cluster.address())["jobs"].as_array().unwrap().len() < 2 {
        assert!(start.elapsed() < Duration::from_secs(20), "the other job does not exist");
    }
    // Long enough for an item to run, if it had a slot.
    std::thread::sleep(Duration::from_millis(300));
    fs::write(&word, "go on\n").unwrap();
    assert_eq!((outer.end().code, copy.end().code), (Some(0), Some(0)));
    assert_eq!(fs::read_to_string(&log).unwrap(), "outer\ncopy\n");
}

#[test]
fn commands_see_only_the_chosen_variables() {
    let cluster = Shared::of(1, 2);
    let call = map(cluster.address(), "env; : {}", &["--env", "CHOSEN", "--env=GIVEN=1 2"]).change(|command| {
        command.env("CHOSEN", "yes").env("OTHER", "no").env("LANG", "C").env("HOME", "/nowhere");
    });
    let done = call.input("x\n").run();
    let text = done.stdout();
    let mut seen: Vec<&str> = text.lines().filter(|line| !line.starts_with("PATH=")).collect();
    seen.sort_unstable();
    // Variables of the shell itself and of farpool.
    seen.retain(|line| !["PWD=", "OLDPWD=", "SHLVL=", "_=", "FARPOOL_"].iter().any(|own| line.starts_with(own)));
    assert_eq!(seen, ["CHOSEN=yes", "GIVEN=1 2", "HOME=/nowhere", "LANG=C"]);
    assert!(text.contains(&format!("FARPOOL_ADDRESS={}\n", cluster.address())) && text.contains("PATH=/"), "{text}");
}

/// Starts a map of four items on two slots, and waits until two of them run.
fn two_that_run(address: &str, folder: &Folder) -> Running {
    let pipe = folder.pipe("begun");
    let program = format!("echo {{}} $$ > {pipe}; sleep 50 & sleep 51");
    let mut running = map(address, &program, &[]).spawn();
    running.child.stdin.take().unwrap().write_all(&numbers(4).into_bytes()).unwrap();
    let mut begun = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let begun = lines(&mut begun, 2);
    let pids = begun.lines().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect::<Vec<_>>().join("\n");
    fs::write(folder.file("pids"), pids).unwrap();
    running
}

/// Waits until the running commands are gone, for at most a second.
fn wait_until_commands_are_gone(folder: &Folder) {
    let pids = fs::read_to_string(folder.file("pids")).unwrap();
    let start = Instant::now();
    while pids.lines().any(|pid| fs::exists(format!("/proc/{pid}")).unwrap_or(false)) {
        assert!(start.elapsed() < Duration::from_secs(1), "commands still run");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_interrupt_ends_commands_on_other_hosts_within_a_second() {
    let cluster = Shared::of(1, 2);
    let folder = folder();
    let running = two_that_run(cluster.address(), &folder);
    running.signal(Signal::SIGINT);
    wait_until_commands_are_gone(&folder);
    assert_eq!(running.end().code, None);
}

#[test]
fn a_job_is_listed_and_cancelled() {
    let cluster = Shared::of(1, 2);
    let folder = folder();
    let running = two_that_run(cluster.address(), &folder);
    let seen = status(cluster.address());
    let jobs = seen["jobs"].as_array().unwrap();
    assert_eq!((jobs.len(), seen["pools"].as_array().unwrap().len()), (1, 1), "{seen}");
    assert!(jobs[0]["label"].as_str().unwrap().ends_with("sleep 50 & sleep 51"), "{seen}");
    assert_eq!((&jobs[0]["done"], &seen["agents"][0]["busy"]), (&0.into(), &2.into()), "{seen}");

    let name = jobs[0]["job"].as_str().unwrap();
    on(cluster.address(), &["cancel", name]).run().assert_prints(&format!("job {name} is cancelled\n"));
    let done: Done = running.end();
    assert_eq!(done.code, Some(125), "{done:?}");
    assert!(done.stderr().contains("cancelled") && !done.stderr().contains("imap"), "{done:?}");
    wait_until_commands_are_gone(&folder);
    assert_eq!(on(cluster.address(), &["cancel", name]).run().code, Some(1));
}

#[test]
fn an_agent_is_drained_while_a_map_runs() {
    let cluster = Cluster::of(2, 2);
    let mut running = map(cluster.address(), "sleep 0.1; echo {}", &[]).spawn();
    let mut stdin = running.child.stdin.take().unwrap();
    stdin.write_all(numbers(20).as_bytes()).unwrap();
    let stdout = running.child.stdout.as_mut().unwrap();
    let first = lines(stdout, 4);
    on(cluster.address(), &["drain", "--wait", "node1"]).run().assert_prints("agent node1 has left\n");
    let hosts: Vec<String> =
        status(cluster.address())["agents"].as_array().unwrap().iter().map(|agent| agent["host"].to_string()).collect();
    assert_eq!(hosts, ["\"node2\""]);
    drop(stdin);
    let rest = running.end();
    assert_eq!((rest.code, first + &rest.stdout()), (Some(0), numbers(20)));
    assert_eq!(on(cluster.address(), &["drain", "node1"]).run().code, Some(1));
    cluster.end();
}

#[test]
fn commands_that_fail_are_counted() {
    let (cluster, folder) = (Shared::of(1, 2), folder());
    let pipe = folder.pipe("gate");
    let program = format!("case {{}} in 1) read line < {pipe};; 2|5) :;; *) exit 3;; esac");
    let mut running = map(cluster.address(), &program, &["--keep-going"]).spawn();
    running.child.stdin.take().unwrap().write_all(numbers(5).as_bytes()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let failed = |job: &Value| job["failed"].as_u64().unwrap();
    loop {
        let seen = status(cluster.address());
        let jobs = seen["jobs"].as_array().unwrap();
        // The last item may end after those that fail.
        if jobs.iter().map(failed).sum::<u64>() == 2 && jobs[0]["done"] == 4 {
            break;
        }
        assert!(Instant::now() < deadline, "{seen}");
    }
    let table = on(cluster.address(), &["jobs"]).run().stdout();
    assert!(table.contains("FAILED"), "{table}");
    fs::write(&pipe, "go\n").unwrap();
    assert_eq!(running.end().code, Some(2));
}

#[test]
fn large_outputs_of_other_hosts_wait_on_disk() {
    let (cluster, folder) = (Shared::of(1, 2), folder());
    let (pipe, begun) = (folder.pipe("gate"), folder.pipe("begun"));
    let program = format!(
        "head -c 8388608 /dev/zero | tr '\\0' a; case {{}} in 1) read line < {pipe};; *) echo > {begun};; esac"
    );
    let mut running = map(cluster.address(), &program, &[]).spawn();
    running.child.stdin.take().unwrap().write_all(numbers(33).as_bytes()).unwrap();
    let mut ends = fs::OpenOptions::new().read(true).write(true).open(&begun).unwrap();
    let peak = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    };
    lines(&mut ends, 32);
    let pid = running.child.id();
    fs::write(&pipe, "go\n").unwrap();
    let stdout = running.child.stdout.as_mut().unwrap();
    let mut first = vec![0; 8 << 20];
    std::io::Read::read_exact(stdout, &mut first).unwrap();
    // Nearly all outputs arrived before the first was written: 256 MiB.
    let most = peak(pid);
    assert!(most < 128 << 20, "{most}");
    let done = running.end();
    assert_eq!((done.code, done.stdout.len()), (Some(0), 32 * (8 << 20)));
}

#[test]
fn lines_of_other_hosts_are_printed_as_they_are_written() {
    let (cluster, folder) = (Shared::of(2, 1), folder());
    let pipe = folder.pipe("gate");
    let program = format!("echo one; echo error >&2; read line < {pipe}; echo two; : {{}}");
    let mut running = map(cluster.address(), &program, &["--line-buffer", "--tag"]).spawn();
    running.child.stdin.take().unwrap().write_all(b"a\n").unwrap();
    assert_eq!(lines(running.child.stdout.as_mut().unwrap(), 1), "a\tone\n");
    fs::write(&pipe, "go\n").unwrap();
    let done = running.end();
    done.assert(0, "a\ttwo\n", "a\terror\n");
}
