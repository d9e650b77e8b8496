use farpool_proto::v1::{AgentCommand, ClientEvent, agent_command, client_event};

use crate::{AgentId, ClientId};

/// Messages for the caller to send, in order for each peer. Reuse it: drained vectors keep their memory.
#[derive(Debug, Default)]
pub struct Outbox {
    /// For clients.
    pub to_clients: Vec<(ClientId, ClientEvent)>,
    /// For agents.
    pub to_agents: Vec<(AgentId, AgentCommand)>,
}

/// Replaces the number of a client's message that is in the outbox and has no number yet.
pub(crate) const UNNUMBERED: u64 = u64::MAX;

impl Outbox {
    pub(crate) fn client(&mut self, to: ClientId, body: client_event::Body) {
        self.to_clients.push((to, ClientEvent { body: Some(body) }));
    }

    pub(crate) fn agent(&mut self, to: AgentId, body: agent_command::Body) {
        self.to_agents.push((to, AgentCommand { body: Some(body) }));
    }
}
