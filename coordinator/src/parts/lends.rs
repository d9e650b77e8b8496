//! Slots that are lent to clients which running items have started.
//!
//! A task may start a client (such as `farpool map` inside a command). That client waits for its items while the task's
//! item keeps a slot. The client's pool carries a ticket. As long as the client waits for unfinished items, the agent
//! is told to lend the slot of the task's item. The same holds for a client that waits for a detached job: its `Attach`
//! carries the ticket. The agent decides whether the ticket is valid: only the agent knows what runs, and which item
//! started which process.

use std::collections::{BTreeMap, BTreeSet};

use farpool_proto::v1::LendSlot;

use crate::convert::Ticket;
use crate::ids::Identity;
use crate::{AgentId, ClientId};

/// Which clients borrow which items' slots.
#[derive(Debug, Default)]
pub(crate) struct Lends {
    borrowers: BTreeMap<ClientId, Borrower>,
    /// The tickets of clients that wait for unfinished detached jobs.
    attached: BTreeSet<Ticket>,
    /// The tickets for which an agent was told to lend a slot, and the session in which it was told.
    lent: BTreeMap<Ticket, AgentId>,
}

/// A client that an item's task has started.
#[derive(Debug)]
struct Borrower {
    ticket: Ticket,
    /// Whether it does nothing but wait for outcomes.
    waits: bool,
}

impl Lends {
    /// The client's pool carries this ticket.
    pub(crate) fn open(&mut self, client: ClientId, ticket: Ticket) {
        self.borrowers.insert(client, Borrower { ticket, waits: false });
    }

    /// The client has begun or stopped waiting for outcomes. Without a ticket this has no effect.
    pub(crate) fn note_waiting(&mut self, client: ClientId, waits: bool) {
        if let Some(borrower) = self.borrowers.get_mut(&client) {
            borrower.waits = waits;
        }
    }

    /// Replaces the tickets of all clients that wait for unfinished detached jobs.
    pub(crate) fn set_attached(&mut self, tickets: BTreeSet<Ticket>) {
        self.attached = tickets;
    }

    /// The client's session has ended.
    pub(crate) fn close(&mut self, client: ClientId) {
        self.borrowers.remove(&client);
    }

    /// Returns the changes since the last call, for agents. `unfinished`: whether a client has items without outcomes.
    /// `session`: the current session of an agent.
    pub(crate) fn update(
        &mut self,
        unfinished: impl Fn(ClientId) -> bool,
        session: impl Fn(&Identity) -> Option<AgentId>,
    ) -> Vec<(AgentId, LendSlot)> {
        if self.borrowers.is_empty() && self.attached.is_empty() && self.lent.is_empty() {
            return Vec::new();
        }
        let waiting = self.borrowers.iter().filter(|(client, borrower)| borrower.waits && unfinished(**client));
        let tickets = waiting.map(|(_, borrower)| borrower.ticket).chain(self.attached.iter().copied());
        let wanted: BTreeMap<Ticket, AgentId> =
            tickets.filter_map(|ticket| Some((ticket, session(&ticket.agent)?))).collect();
        let ended = self.lent.iter().filter(|(ticket, agent)| {
            // An agent forgets what an earlier session of it has lent.
            !wanted.contains_key(ticket) && session(&ticket.agent) == Some(**agent)
        });
        let begun = wanted.iter().filter(|(ticket, agent)| self.lent.get(ticket) != Some(agent));
        let messages = ended
            .map(|(ticket, agent)| (*agent, ticket.lend_slot(false)))
            .chain(begun.map(|(ticket, agent)| (*agent, ticket.lend_slot(true))))
            .collect();
        self.lent = wanted;
        messages
    }
}

impl Ticket {
    fn lend_slot(&self, lend: bool) -> LendSlot {
        LendSlot { ticket: self.id.to_vec().into(), lend }
    }
}

#[cfg(test)]
mod tests {
    use farpool_core::Id;

    use super::*;

    const TICKET: Ticket = Ticket { agent: [1; 16], id: [7; 16] };
    const OTHER: Ticket = Ticket { id: [8; 16], ..TICKET };

    fn client(index: u32) -> ClientId {
        ClientId::new(index, 0)
    }

    fn agent(index: u32) -> AgentId {
        AgentId::new(index, 0)
    }

    /// Returns the changes when the ticket's agent has this session and these clients have unfinished items.
    fn changes(lends: &mut Lends, session: Option<u32>, unfinished: &[u32]) -> Vec<(u32, u8, bool)> {
        let messages = lends.update(|client| unfinished.contains(&client.index()), |_| session.map(agent));
        messages.into_iter().map(|(agent, lend)| (agent.index(), lend.ticket[0], lend.lend)).collect()
    }

    #[test]
    fn a_slot_is_lent_while_its_client_waits_for_unfinished_items() {
        let mut lends = Lends::default();
        lends.open(client(1), TICKET);
        assert_eq!(changes(&mut lends, Some(5), &[1]), [], "the session does not wait");
        lends.note_waiting(client(1), true);
        assert_eq!(changes(&mut lends, Some(5), &[]), [], "the session has no unfinished items");
        assert_eq!(changes(&mut lends, Some(5), &[1]), [(5, 7, true)]);
        assert_eq!(changes(&mut lends, Some(5), &[1]), [], "lending is reported once");
        lends.note_waiting(client(1), false);
        assert_eq!(changes(&mut lends, Some(5), &[1]), [(5, 7, false)]);
    }

    #[test]
    fn clients_with_one_ticket_borrow_one_slot() {
        let mut lends = Lends::default();
        for number in [1, 2] {
            lends.open(client(number), TICKET);
            lends.note_waiting(client(number), true);
        }
        lends.open(client(3), OTHER);
        assert_eq!(changes(&mut lends, Some(5), &[1, 2, 3]), [(5, 7, true)]);
        lends.close(client(1));
        assert_eq!(changes(&mut lends, Some(5), &[2, 3]), [], "client 2 still waits");
        lends.close(client(2));
        lends.note_waiting(client(3), true);
        assert_eq!(changes(&mut lends, Some(5), &[3]), [(5, 7, false), (5, 8, true)]);
    }

    #[test]
    fn clients_that_wait_for_detached_jobs_borrow_slots() {
        let mut lends = Lends::default();
        lends.set_attached([TICKET].into());
        assert_eq!(changes(&mut lends, Some(5), &[]), [(5, 7, true)]);
        // A pool with the same ticket keeps the slot lent.
        lends.open(client(1), TICKET);
        lends.note_waiting(client(1), true);
        lends.set_attached(BTreeSet::new());
        assert_eq!(changes(&mut lends, Some(5), &[1]), []);
        lends.close(client(1));
        assert_eq!(changes(&mut lends, Some(5), &[]), [(5, 7, false)]);
    }

    #[test]
    fn another_session_of_the_agent_is_told_again() {
        let mut lends = Lends::default();
        lends.open(client(1), TICKET);
        lends.note_waiting(client(1), true);
        assert_eq!(changes(&mut lends, None, &[1]), [], "the agent does not exist");
        assert_eq!(changes(&mut lends, Some(5), &[1]), [(5, 7, true)]);
        assert_eq!(changes(&mut lends, None, &[1]), []);
        assert_eq!(changes(&mut lends, Some(6), &[1]), [(6, 7, true)]);
        lends.close(client(1));
        assert_eq!(changes(&mut lends, Some(9), &[]), [], "this session was never told");
    }

    #[test]
    fn a_client_without_ticket_borrows_nothing() {
        let mut lends = Lends::default();
        lends.note_waiting(client(1), true);
        assert_eq!(changes(&mut lends, Some(5), &[1]), []);
    }
}
