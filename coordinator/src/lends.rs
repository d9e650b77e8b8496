//! Slots that are lent to clients which running items have started.
//!
//! A client that a task starts (`farpool map` inside a command, say) waits for items of its own while its item keeps a slot. Its
//! pool carries the item's token, and as long as the client waits for unfinished items, the item's agent is told to lend the slot.
//! The same holds for a client that waits for a detached job: its `Attach` carries the token.
//! Whether the token is good is the agent's to decide: only there is it known what runs.

use std::collections::{BTreeMap, BTreeSet};

use farpool_proto::v1::LendSlot;

use crate::convert::ItemToken;
use crate::ids::Identity;
use crate::{AgentId, ClientId};

/// Who borrows which item's slot.
#[derive(Debug, Default)]
pub(crate) struct Lends {
    borrowers: BTreeMap<ClientId, Borrower>,
    /// The tokens of clients that wait for unfinished detached jobs.
    attached: BTreeSet<ItemToken>,
    /// The tokens that an agent was told to lend for, and which session of it was told.
    lent: BTreeMap<ItemToken, AgentId>,
}

/// A client that an item's task has started.
#[derive(Debug)]
struct Borrower {
    token: ItemToken,
    /// It does nothing but wait for outcomes.
    waits: bool,
}

impl Lends {
    /// The client's pool carries this token.
    pub(crate) fn open(&mut self, client: ClientId, token: ItemToken) {
        self.borrowers.insert(client, Borrower { token, waits: false });
    }

    /// The client has begun or ceased to wait for outcomes. Without a token that means nothing.
    pub(crate) fn note_waiting(&mut self, client: ClientId, waits: bool) {
        if let Some(borrower) = self.borrowers.get_mut(&client) {
            borrower.waits = waits;
        }
    }

    /// Replaces the tokens of all clients that wait for unfinished detached jobs.
    pub(crate) fn set_attached(&mut self, tokens: BTreeSet<ItemToken>) {
        self.attached = tokens;
    }

    /// The client's session has ended.
    pub(crate) fn close(&mut self, client: ClientId) {
        self.borrowers.remove(&client);
    }

    /// What agents must be told since the last call. `unfinished`: whether a client has items without outcomes. `session`: which
    /// session an agent has now.
    pub(crate) fn update(
        &mut self,
        unfinished: impl Fn(ClientId) -> bool,
        session: impl Fn(&Identity) -> Option<AgentId>,
    ) -> Vec<(AgentId, LendSlot)> {
        if self.borrowers.is_empty() && self.attached.is_empty() && self.lent.is_empty() {
            return Vec::new();
        }
        let waiting = self.borrowers.iter().filter(|(client, borrower)| borrower.waits && unfinished(**client));
        let tokens = waiting.map(|(_, borrower)| borrower.token).chain(self.attached.iter().copied());
        let wanted: BTreeMap<ItemToken, AgentId> =
            tokens.filter_map(|token| Some((token, session(&token.agent)?))).collect();
        let ended = self.lent.iter().filter(|(token, agent)| {
            // An agent forgets what an earlier session of it has lent.
            !wanted.contains_key(token) && session(&token.agent) == Some(**agent)
        });
        let begun = wanted.iter().filter(|(token, agent)| self.lent.get(token) != Some(agent));
        let messages = ended
            .map(|(token, agent)| (*agent, token.lend_slot(false)))
            .chain(begun.map(|(token, agent)| (*agent, token.lend_slot(true))))
            .collect();
        self.lent = wanted;
        messages
    }
}

impl ItemToken {
    fn lend_slot(&self, lend: bool) -> LendSlot {
        LendSlot { secret: self.secret.to_vec().into(), position: self.position, lend }
    }
}

#[cfg(test)]
mod tests {
    use farpool_core::Id;

    use super::*;

    const TOKEN: ItemToken = ItemToken { agent: [1; 16], secret: [2; 16], position: 7 };
    const OTHER: ItemToken = ItemToken { position: 8, ..TOKEN };

    fn client(index: u32) -> ClientId {
        ClientId::new(index, 0)
    }

    fn agent(index: u32) -> AgentId {
        AgentId::new(index, 0)
    }

    /// What is said when the token's agent has this session, and these clients have unfinished items.
    fn said(lends: &mut Lends, session: Option<u32>, unfinished: &[u32]) -> Vec<(u32, u32, bool)> {
        let messages = lends.update(|client| unfinished.contains(&client.index()), |_| session.map(agent));
        messages.into_iter().map(|(agent, lend)| (agent.index(), lend.position, lend.lend)).collect()
    }

    #[test]
    fn a_slot_is_lent_while_its_client_waits_for_unfinished_items() {
        let mut lends = Lends::default();
        lends.open(client(1), TOKEN);
        assert_eq!(said(&mut lends, Some(5), &[1]), [], "it does not wait");
        lends.note_waiting(client(1), true);
        assert_eq!(said(&mut lends, Some(5), &[]), [], "nothing of it is unfinished");
        assert_eq!(said(&mut lends, Some(5), &[1]), [(5, 7, true)]);
        assert_eq!(said(&mut lends, Some(5), &[1]), [], "it is said once");
        lends.note_waiting(client(1), false);
        assert_eq!(said(&mut lends, Some(5), &[1]), [(5, 7, false)]);
    }

    #[test]
    fn clients_with_one_token_borrow_one_slot() {
        let mut lends = Lends::default();
        for number in [1, 2] {
            lends.open(client(number), TOKEN);
            lends.note_waiting(client(number), true);
        }
        lends.open(client(3), OTHER);
        assert_eq!(said(&mut lends, Some(5), &[1, 2, 3]), [(5, 7, true)]);
        lends.close(client(1));
        assert_eq!(said(&mut lends, Some(5), &[2, 3]), [], "the other one still waits");
        lends.close(client(2));
        lends.note_waiting(client(3), true);
        assert_eq!(said(&mut lends, Some(5), &[3]), [(5, 7, false), (5, 8, true)]);
    }

    #[test]
    fn clients_that_wait_for_detached_jobs_borrow_slots() {
        let mut lends = Lends::default();
        lends.set_attached([TOKEN].into());
        assert_eq!(said(&mut lends, Some(5), &[]), [(5, 7, true)]);
        // A pool with the same token keeps the slot lent.
        lends.open(client(1), TOKEN);
        lends.note_waiting(client(1), true);
        lends.set_attached(BTreeSet::new());
        assert_eq!(said(&mut lends, Some(5), &[1]), []);
        lends.close(client(1));
        assert_eq!(said(&mut lends, Some(5), &[]), [(5, 7, false)]);
    }

    #[test]
    fn another_session_of_the_agent_is_told_anew() {
        let mut lends = Lends::default();
        lends.open(client(1), TOKEN);
        lends.note_waiting(client(1), true);
        assert_eq!(said(&mut lends, None, &[1]), [], "the agent is not there");
        assert_eq!(said(&mut lends, Some(5), &[1]), [(5, 7, true)]);
        assert_eq!(said(&mut lends, None, &[1]), []);
        assert_eq!(said(&mut lends, Some(6), &[1]), [(6, 7, true)]);
        lends.close(client(1));
        assert_eq!(said(&mut lends, Some(9), &[]), [], "this session was never told");
    }

    #[test]
    fn who_has_no_token_borrows_nothing() {
        let mut lends = Lends::default();
        lends.note_waiting(client(1), true);
        assert_eq!(said(&mut lends, Some(5), &[1]), []);
    }
}
