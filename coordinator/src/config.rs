//! What can be set.

use std::time::Duration;

/// What can be set.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// How the scheduler works.
    pub core: farpool_core::Config,
    /// Chunks that an agent may hold at once, whatever it asks for.
    pub max_agent_chunks: u32,
    /// Bytes of a job's items, their positions included, that may be here at once; one message, or an explicit chunk,
    /// may go beyond it. At least 1.
    pub window: u64,
    /// Bytes that an item or a result may have, whatever its pool allows.
    pub payload_limit: u64,
    /// What tells this coordinator from one that was here before; none in local mode.
    pub id: Option<[u8; 16]>,
    /// How long those are waited for that know what a former coordinator knew: pools for the agents that they ran at, and
    /// agents for the clients whose pools they hold.
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
