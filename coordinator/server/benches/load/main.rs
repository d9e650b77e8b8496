//! The coordinator under the load of many agents: chunks per second, how long a free slot waits for its next chunk, and
//! the cost of an agent.
//!
//! `cargo bench -p farpool-coordinator-server --bench load -- [--agents 10,100,1000] [--slots N] [--seconds N] [--rate N] [--quick]`
//!
//! The coordinator is the real one, in its own process. This process acts as its agents and its client, on one thread,
//! over real connections. The client's items are 8 bytes long and each is a chunk. For each number of agents there are
//! two runs. In the first, every chunk is done on arrival, for the highest rate. In the second, the duration of chunks
//! gives `--rate` of them per second, for the waiting times at that load.

mod agent;
mod client;
mod connect;
mod coordinator;
mod figures;
mod options;

use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::sleep;

use coordinator::Coordinator;
use figures::{Figures, Row};
use options::Options;

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{}", options::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("{wrong}\n\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    let descriptors = figures::raise_descriptor_limit();
    println!("{} slots an agent, {} s a run, at most {descriptors} descriptors", options.slots, options.seconds);
    println!("{}", figures::HEAD);
    for &agents in &options.agents {
        let rates = [options.saturated.then_some(None), options.paced.then_some(Some(options.rate))];
        for rate in rates.into_iter().flatten() {
            // All tasks of a run end with its runtime.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("cannot create a runtime");
            let row = runtime.block_on(LocalSet::new().run_until(measure(&options, agents, rate)));
            println!("{row}");
        }
    }
    ExitCode::SUCCESS
}

/// Measures one run, with `rate` chunks per second, or as many as possible.
async fn measure(options: &Options, agents: usize, rate: Option<u64>) -> Row {
    let coordinator = Coordinator::start(&options.coordinator);
    let slots = agents * options.slots as usize;
    let service = rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(slots as f64 / rate as f64));
    let figures = Rc::new(Figures::default());
    // The client's connection is not counted.
    let client = client::Client::open(&coordinator.address).await;
    let alone = coordinator.resident();
    for number in 0..agents {
        let agent = agent::Agent::new(number, options.slots, service, Rc::clone(&figures));
        agent.open(&coordinator.address).await;
    }
    let connected = coordinator.resident();
    tokio::task::spawn_local(client.feed(2 * slots + 20_000, Rc::clone(&figures)));
    sleep(Duration::from_secs(1) + 2 * service).await;
    let before = (coordinator.processor_time(), figures::own_processor_time());
    let rate = figures.measure(Duration::from_secs_f64(options.seconds)).await;
    let used = [coordinator.processor_time() - before.0, figures::own_processor_time() - before.1];
    Row::new(agents, service, &figures, rate, used, [alone, connected, coordinator.resident()])
}
