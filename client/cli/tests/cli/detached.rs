//! Maps that a real cluster keeps: what `farpool results` prints is what `farpool map` would have printed.

use std::collections::BTreeSet;
use std::fs;

use farpool_testkit::cluster::Cluster;
use serde_json::Value;

use crate::map_retries::fails_in_two_ways;
use crate::support::{Call, Done, farpool, folder, map_arguments, records};

fn on<'a>(cluster: &'a Cluster, arguments: &[&'a str]) -> Call {
    farpool(["--address", cluster.address()].into_iter().chain(arguments.iter().copied()))
}

fn detach(cluster: &Cluster, name: &str, program: &str, options: &[&str], items: &str) {
    let arguments = map_arguments(&["map", "--detach", name], program, options);
    let line = format!("job {name} is detached; farpool results {name} --wait prints its outputs\n");
    on(cluster, &arguments).input(items).run().assert_prints(&line);
}

fn results(cluster: &Cluster, arguments: &[&str]) -> Done {
    on(cluster, &[&["results"], arguments].concat()).run()
}

fn jobs(cluster: &Cluster) -> Vec<Value> {
    let listed: Value = serde_json::from_slice(&results(cluster, &["--json"]).stdout).unwrap();
    listed["results"].as_array().unwrap().clone()
}

#[test]
fn results_are_what_the_map_would_have_printed() {
    let cluster = Cluster::of(2, 2);
    let program = "case {} in 3) echo no >&2; exit 5;; 4) sleep 50;; 5) kill -9 $$;; esac; printf '%s ' {} {#}; echo";
    let options = ["--timeout", "500ms", "--keep-going"];
    let items = "1\n2\n3\n4\n5\na b\n";
    let mapped = on(&cluster, &map_arguments(&["map"], program, &options[..])).input(items).run();
    assert_eq!(mapped.code, Some(3), "{mapped:?}");
    detach(&cluster, "nightly", program, &options, items);
    let done = results(&cluster, &["nightly", "--wait"]);
    assert_eq!((done.code, done.stdout()), (mapped.code, mapped.stdout()));
    let listed = jobs(&cluster);
    assert_eq!((&listed[0]["done"], &listed[0]["failed"]), (&6.into(), &3.into()), "{listed:?}");
    // Which agent ran what, and how long it took, is not the same each time.
    let told = |done: &Done| -> Vec<String> {
        done.stderr()
            .lines()
            .map(|line| line.split(" (").next().unwrap().split(" after ").next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(told(&done), told(&mapped), "{done:?}");
    assert_eq!(told(&done)[0], "no");

    // Again, with tags and records, and then no more.
    let folder = folder();
    let records = folder.file("records");
    let done = results(&cluster, &["nightly", "--tag", "--results", &records, "--discard"]);
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.stdout().starts_with("1\t1 1 \n2\t2 2 \na b\ta b 6 \n"), "{done:?}");
    let text = fs::read_to_string(&records).unwrap();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records[2]["exit_code"], 5);
    assert_eq!(records[5]["item"], "a b");
    assert_eq!(results(&cluster, &["nightly"]).code, Some(125));
    assert_eq!(jobs(&cluster), [Value::Null; 0]);
    cluster.end();
}

#[test]
fn failed_commands_are_retried_and_an_empty_map_is_allowed() {
    let (cluster, folder) = (Cluster::of(1, 2), folder());
    let tries = folder.file("tries");
    detach(
        &cluster,
        "again",
        &format!("echo {{}} >> {tries}; test $(grep -c . {tries}) -ge 3"),
        &["--retries", "5"],
        "x\n",
    );
    let records = folder.file("records");
    results(&cluster, &["again", "--wait", "--results", &records]).assert_prints("");
    let record: Value = serde_json::from_str(&fs::read_to_string(&records).unwrap()).unwrap();
    assert_eq!((&record["attempts"], &record["exit_code"]), (&Value::from(3), &Value::from(0)));
    detach(&cluster, "empty", "echo", &[], "");
    results(&cluster, &["empty", "--wait"]).assert_prints("");
    let states: Vec<_> =
        jobs(&cluster).iter().map(|job| format!("{} {} {}", job["name"], job["state"], job["done"])).collect();
    assert_eq!(states, ["\"again\" \"finished\" 1", "\"empty\" \"finished\" 0"]);
    cluster.end();
}

#[test]
fn the_cluster_retries_commands_of_detached_maps() {
    let (cluster, folder) = (Cluster::of(1, 2), folder());
    let (log, results_file) = (folder.file("log"), folder.file("records"));
    detach(&cluster, "mixed", &fails_in_two_ways(&log), &["--retries", "2"], "x\n");
    results(&cluster, &["mixed", "--wait", "--results", &results_file]).assert_prints("done\n");
    assert_eq!(records(&results_file)[0]["attempts"], 3);
    // An item that still fails at its last attempt counts once as failed, and says how many attempts it took.
    let runs = folder.file("runs");
    detach(&cluster, "bad", &format!("echo {{}} >> {runs}; exit 3"), &["--retries", "2"], "x\n");
    let failed = results(&cluster, &["bad", "--wait"]);
    failed.assert(1, "", "farpool: item 1 \"x\": exit code 3 (host node1, 3 attempts)\n");
    assert_eq!(fs::read_to_string(&runs).unwrap(), "x\nx\nx\n");
    let counts = jobs(&cluster).into_iter().map(|job| format!("{} {} {}", job["name"], job["done"], job["failed"]));
    let counts: BTreeSet<String> = counts.collect();
    assert_eq!(Vec::from_iter(counts), ["\"bad\" 1 1", "\"mixed\" 1 0"]);
    cluster.end();
}

#[test]
fn a_detached_map_is_seen_and_cancelled() {
    let (cluster, folder) = (Cluster::of(1, 2), folder());
    let pipe = folder.pipe("begun");
    detach(
        &cluster,
        "nightly",
        &format!("case {{}} in 1) echo one;; *) echo > {pipe}; sleep 50;; esac"),
        &[],
        "1\n2\n3\n",
    );
    fs::read(&pipe).unwrap();
    let done = results(&cluster, &["nightly"]);
    assert_eq!(done.code, Some(125), "{done:?}");
    assert!(done.stderr().contains("job nightly is still running") && done.stderr().contains("--wait"), "{done:?}");
    let taken = on(&cluster, &["map", "--detach", "nightly", "echo", ":::", "1"]).run();
    assert_eq!(taken.code, Some(125), "{taken:?}");
    assert!(taken.stderr().contains("farpool results nightly --discard"), "{taken:?}");
    // Neither a part of its name, nor the number of another job, nor its name with a space.
    for job in ["night", "99", "nightly "] {
        assert_eq!(on(&cluster, &["cancel", job]).run().code, Some(1), "{job}");
    }
    on(&cluster, &["cancel", "nightly"]).run().assert_prints("job nightly is cancelled\n");
    let again = on(&cluster, &["cancel", "nightly"]).run();
    let message = "farpool: job \"nightly\" was cancelled before: there is nothing left to cancel\n";
    again.assert(1, "", message);
    let done = results(&cluster, &["nightly", "--wait"]);
    assert_eq!(done.code, Some(125), "{done:?}");
    assert!(done.stderr().contains("job nightly was cancelled before all of its 3 items had an outcome"), "{done:?}");
    assert_eq!(jobs(&cluster)[0]["state"], "cancelled");
    cluster.end();
}

#[test]
fn an_incomplete_input_leaves_no_job() {
    let cluster = Cluster::of(1, 2);
    let long = "x".repeat(200 << 10);
    let call = on(&cluster, &["map", "--detach", "nightly", "echo"]).input(format!("1\n2\n{long}\n4\n"));
    let message = "farpool: item 3 is longer than the 131072 bytes that Linux allows\n";
    call.run().assert(125, "", message);
    assert_eq!(jobs(&cluster), [Value::Null; 0]);
    cluster.end();
}

#[test]
fn a_number_does_not_end_a_detached_job_nor_a_name_another_one() {
    let (cluster, folder) = (Cluster::of(1, 2), folder());
    let pipe = folder.pipe("begun");
    let program = format!("echo > {pipe}; sleep 50; : {{}}");
    // A running job, and a detached job whose name is its number.
    let running = on(&cluster, &["map", &program, ":::", "1"]).spawn();
    fs::read(&pipe).unwrap();
    let status: Value = serde_json::from_slice(&on(&cluster, &["jobs", "--json"]).run().stdout).unwrap();
    let number = status["jobs"][0]["job"].as_str().unwrap().to_owned();
    detach(&cluster, &number, &program, &[], "1\n");
    fs::read(&pipe).unwrap();
    let both = on(&cluster, &["cancel", &number]).run();
    assert!(both.code == Some(1) && both.stderr().contains("--number or --detached"), "{both:?}");
    on(&cluster, &["cancel", "--detached", &number]).run().assert_prints(&format!("job {number} is cancelled\n"));
    let status: Value = serde_json::from_slice(&on(&cluster, &["jobs", "--json"]).run().stdout).unwrap();
    assert_eq!(status["jobs"][0]["job"].as_str(), Some(&*number), "{status}");
    on(&cluster, &["cancel", "--number", &number]).run().assert_prints(&format!("job {number} is cancelled\n"));
    assert_eq!(running.end().code, Some(125));
    let ended = on(&cluster, &["cancel", "--number", &number]).run();
    assert!(ended.code == Some(1) && ended.stderr().contains("its job or pool has ended"), "{ended:?}");
    cluster.end();
}

#[test]
fn words_and_blocks_are_detached_too() {
    let cluster = Cluster::of(1, 2);
    let told = |name: &str| format!("job {name} is detached; farpool results {name} --wait prints its outputs\n");
    let words = ["map", "--detach", "words", "printf", "<%s>", "{2}", "{1}", ":::", "a b", "$x", ":::", "it's"];
    on(&cluster, &words).run().assert_prints(&told("words"));
    // Outputs are printed in input order.
    results(&cluster, &["words", "--wait"]).assert_prints("<it's><a b><it's><$x>");
    let blocks = ["map", "--detach", "blocks", "--pipe", "--block", "4", "sed", "s/^/{}:/"];
    on(&cluster, &blocks).input("a\nb\nc\n").run().assert_prints(&told("blocks"));
    results(&cluster, &["blocks", "--wait", "--tag"]).assert_prints("1\t1:a\n1\t1:b\n2\t2:c\n");
    // Jobs that are not detached work, too.
    let text: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    let piped = on(&cluster, &["map", "--pipe", "--block", "100kB", "cat"]).input(text.clone()).run();
    assert!(piped.code == Some(0) && piped.stdout() == text, "{}", piped.stderr());
    let failed = on(&cluster, &["map", "false", "{}", ":::", "a"]).run();
    failed.assert(1, "", "farpool: item 1 \"a\": exit code 1 (host node1, 1 attempt)\n");
    cluster.end();
}
