//! Peers that cause as much work as they can: the loop does it in turns, and answers others meanwhile.

use std::future::Future;
use std::time::{Duration, Instant};

use farpool_proto::v1::operators_client::OperatorsClient;
use farpool_proto::v1::{AgentHello, Label, OpenPool, RunDone, StatusRequest};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::agent::{Agent, Report, hello};
use crate::client::{Client, open_pool};
use crate::process::{Running, with_programs};
use crate::server::{connect, soon};

/// The limits for the slowest call and for the median: this may be a debug build, and other processes run too. A call
/// that waited for everything that the others send would wait as long as they send.
const SLOWEST: Duration = Duration::from_secs(10);
const MEDIAN: Duration = Duration::from_secs(1);
const CALLS: u64 = 100;

/// Measures the calls of a client during `times` floods.
async fn check<F: Future<Output = ()> + Send + 'static>(
    mut server: Running,
    times: usize,
    flood: impl Fn(Channel, usize) -> F + Send + 'static,
) {
    let label = || vec![Label { key: "honest".to_owned(), value: "yes".to_owned() }];
    let hello = AgentHello { labels: label(), ..hello(250, 1) };
    let agent = tokio::spawn(Agent::joined_over(server.connect().await, hello).await.work());
    let open = OpenPool { require: label(), ..open_pool() };
    let mut client = Client::opened_over(server.connect().await, open).await;
    client.check_works(1).await;
    let address = server.address().await;
    // On a separate thread, so that they do not slow down the measurement.
    let (stop, stopped) = oneshot::channel::<()>();
    let floods = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("cannot create a runtime");
        runtime.block_on(async {
            let mut floods = JoinSet::new();
            for number in 0..times {
                floods.spawn(flood(connect(address).await, number));
            }
            tokio::select! {
                _ = stopped => {}
                _ = floods.join_next() => panic!("a flood has ended"),
            }
        });
    });
    let mut took = Vec::new();
    for job in 2..CALLS + 2 {
        let begun = Instant::now();
        client.open_job(job);
        client.items(job, 0, &[b"item"]);
        client.end_items(job);
        assert_eq!(client.results(job).await, [b"item"]);
        took.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let _ = stop.send(());
    floods.join().expect("a flood panicked");
    agent.abort();
    took.sort_unstable();
    let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
    eprintln!("a call took {median:?} in the middle and {slowest:?} at most");
    assert!(median < MEDIAN && slowest < SLOWEST, "{median:?}, {slowest:?}");
}

fn start() -> Running {
    Running::start(with_programs().args(["--heartbeat-timeout", "60s"]))
}

/// Opens this many pools, which stay open.
async fn pools(server: &mut Running, count: usize) -> Vec<Client> {
    let mut pools = Vec::new();
    while pools.len() < count {
        // The most calls that a connection has at once.
        let channel = server.connect().await;
        for _ in 0..50 {
            pools.push(Client::opened_over(channel.clone(), open_pool()).await);
        }
    }
    pools
}

#[tokio::test]
async fn a_flood_of_hellos() {
    let mut server = start();
    let pools = pools(&mut server, 300).await;
    check(server, 8, |channel, number| async move {
        for at in 0.. {
            let agent = soon("a welcome", Agent::joined_over(channel.clone(), hello((number * 8 + at % 8) as u8, 2)));
            drop(agent.await);
        }
    })
    .await;
    drop(pools);
}

#[tokio::test]
async fn a_flood_of_pools() {
    check(start(), 8, |channel, _| async move {
        loop {
            drop(soon("a welcome", Client::opened_over(channel.clone(), open_pool())).await);
        }
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_reports() {
    check(start(), 4, |channel, number| async move {
        let agent = Agent::joined_over(channel, hello(number as u8, 2)).await;
        for chunk in 0.. {
            agent.send(Report::RunDone(RunDone { chunk, ends: vec![0; 4].into(), ..RunDone::default() }));
            while agent.out.waiting() > 4 << 20 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_status_requests() {
    let mut server = start();
    let pools = pools(&mut server, 1500).await;
    check(server, 50, |channel, _| async move {
        let mut operators = OperatorsClient::new(channel);
        while operators.status(StatusRequest {}).await.is_ok() {}
    })
    .await;
    drop(pools);
}
