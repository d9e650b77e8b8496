//! Fork servers that are kept for the next pool of this process.

use farpool_agent::Settings;
use farpool_agent::fork_server::Program;
use farpool_proto::v1::StartPool;

use crate::pools::host::{Host, is_alive, program, start};

crate::pools::cases![the_next_pool_gets_the_fork_server];

/// Runs a pool of one worker, and returns its fork server. The agent is that of a client.
fn fork_server_of(program: Program) -> String {
    let mut host = Host::with(Settings::local(1, program.clone()));
    host.pool_of_program(StartPool { pool: 1, ..start() }, program);
    let fork_server = host.run(1, "parent");
    host.end();
    fork_server
}

// One case: this process keeps one fork server.
fn the_next_pool_gets_the_fork_server() {
    let keeps = |does| Program { keep: true, ..program(does) };
    let first = fork_server_of(keeps("serves"));
    assert!(is_alive(&first));
    assert_eq!(fork_server_of(keeps("serves")), first);
    // Others do not get it.
    let others = Program { environment: Some(vec![("A".into(), "1".into())]), ..keeps("serves") };
    assert_ne!(fork_server_of(others), first);
    assert_ne!(fork_server_of(program("serves")), first);
    // One that does not get ready for the next pool is killed.
    let stubborn = fork_server_of(keeps("ignores-clear"));
    assert!(!is_alive(&stubborn));
    assert_ne!(fork_server_of(keeps("ignores-clear")), stubborn);
    // Output of workers on a cluster is captured.
    let mut host = Host::new(1);
    host.pool_of_program(StartPool { pool: 1, ..start() }, keeps("serves"));
    let captured = host.run(1, "parent");
    host.end();
    assert!(!is_alive(&captured));
}
