use std::time::Duration;

/// Settings of the coordinator.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Settings of the scheduler.
    pub core: farpool_core::Config,
    /// The most chunks that an agent may hold at once, whatever credit it asks for.
    pub max_agent_chunks: u32,
    /// The most bytes of a job's items, their positions included, that are held at once. One message, or an explicit
    /// chunk, may exceed it. At least 1.
    pub window: u64,
    /// The most bytes of an item or a result, whatever its pool allows.
    pub payload_limit: u64,
    /// Distinguishes this coordinator from previous ones; none in local mode.
    pub id: Option<[u8; 16]>,
    /// Recovery timeout: how long to wait for the agents and clients of the previous coordinator. Pools wait for the
    /// agents that they ran at, and agents for the clients whose pools they hold.
    pub recovery: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            core: farpool_core::Config::default(),
            max_agent_chunks: 65_536,
            window: 64 << 20,
            payload_limit: farpool_proto::limits::PAYLOAD_BYTES,
            id: None,
            recovery: Duration::from_secs(5),
        }
    }
}
