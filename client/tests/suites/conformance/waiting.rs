//! A client's reports while nothing can run.

use std::io;
use std::time::Duration;

use farpool::ErrorKind;

use crate::cluster;
use crate::conformance::capture::{read, with_stderr};
use crate::conformance::tasks::{nap, square};
use crate::pools;

crate::runner::cases![
    without_an_agent_a_job_waits_and_the_client_reports_it,
    a_changed_reason_is_reported_again,
    a_short_wait_is_not_reported,
];

fn without_an_agent_a_job_waits_and_the_client_reports_it() {
    let mut cluster = cluster::empty();
    let (reader, writer) = io::pipe().unwrap();
    let said = read(reader);
    with_stderr(&writer, || {
        let pool = pools::builder().address(cluster.address()).build().unwrap();
        assert_eq!(pool.processes(), 0);
        let mut waiting = pool.map_async(square, 0..100);
        let error = waiting.get_timeout(Duration::from_millis(1500)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WaitTimedOut);
        assert!(error.to_string().contains("no agent is connected"), "{error}");
        cluster.add_agent(3, &[]);
        assert_eq!(waiting.get_timeout(Duration::from_secs(20)).unwrap().len(), 100);
        assert_eq!(pool.processes(), 3);
        drop(pool);
    });
    drop(writer);
    let said = said.join().unwrap();
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("farpool: ")).collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].starts_with("farpool: waiting: no agent is connected"), "{said}");
    assert!(lines[0].contains(cluster.address()), "{said}");
    assert_eq!(lines[1], "farpool: 3 slots are available; resuming");
    cluster.stop().unwrap();
}

fn a_changed_reason_is_reported_again() {
    let mut cluster = cluster::empty();
    let (reader, writer) = io::pipe().unwrap();
    let said = read(reader);
    with_stderr(&writer, || {
        let pool = pools::builder().address(cluster.address()).require("gpu", "a100").build().unwrap();
        let waiting = pool.apply_async(square, (3,));
        assert!(!waiting.wait(Duration::from_millis(1300)));
        cluster.add_agent(1, &[]);
        assert!(!waiting.wait(Duration::from_millis(1500)));
        cluster.add_agent(1, &["--label", "gpu=a100"]);
        assert_eq!(waiting.get().unwrap(), 9);
        drop(pool);
    });
    drop(writer);
    let said = said.join().unwrap();
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("farpool: ")).collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(lines[0].contains("no agent is connected"), "{said}");
    assert!(lines[1].contains("gpu=a100"), "{said}");
    assert_eq!(lines[2], "farpool: 1 slot is available; resuming");
    cluster.stop().unwrap();
}

fn a_short_wait_is_not_reported() {
    let mut cluster = cluster::empty();
    let (reader, writer) = io::pipe().unwrap();
    let said = read(reader);
    with_stderr(&writer, || {
        let pool = pools::builder().address(cluster.address()).build().unwrap();
        // Without a job, nothing waits.
        nap(1500);
        let soon = pool.map_async(square, 0..10);
        cluster.add_agent(1, &[]);
        assert_eq!(soon.get().unwrap().len(), 10);
    });
    drop(writer);
    assert_eq!(said.join().unwrap(), "");
    cluster.stop().unwrap();
}
