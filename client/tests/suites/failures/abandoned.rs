//! A client of a cluster is killed: nothing of it is left anywhere.

use farpool_testkit::waiting;
use nix::sys::signal::Signal;

use crate::cluster;
use crate::failures::checks::seconds;
use crate::failures::client::Client;
use crate::failures::operators;
use crate::report_pipe::ReportPipe;

crate::runner::cases![a_killed_client_leaves_nothing_on_its_cluster];

fn a_killed_client_leaves_nothing_on_its_cluster() {
    let mut cluster = cluster::empty();
    cluster.add_agent(2, &[]);
    cluster.add_agent(2, &[]);
    let mut line = ReportPipe::new("pids");
    let mut client = Client::start_at(cluster.address(), "hangs", &[&line.path()]);
    for _ in 0..4 {
        line.next_number();
    }
    operators::until(&cluster, |status| status["jobs"][0]["assigned"] == 4);
    assert!(!cluster.workers().is_empty());
    client.signal(Signal::SIGKILL);
    client.end();
    waiting::until_gone(seconds(5), || [client.processes(), cluster.workers()].concat());
    operators::until(&cluster, operators::nothing_is_left);
    cluster.stop().unwrap();
}
