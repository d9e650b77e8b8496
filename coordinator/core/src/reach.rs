//! The agents that lanes may run on, and which of those have room.

use crate::agent::{AgentOrder, Surplus};
use crate::heap::{Heap, IndexedHeap, Positions};
use crate::ids::{AgentId, Id, LaneId, ReachId};
use crate::lane::LaneOrder;
use crate::memberships::Memberships;
use crate::slab::Slab;

/// A set of lanes and agents in which each lane may run on each agent.
///
/// A change of an agent only marks its keys here as outdated; they are updated before the reach is used.
#[derive(Default)]
pub(crate) struct Reach {
    /// Its lanes that have something to run.
    lanes: Heap<LaneOrder>,
    /// The lane that has it alone; `None`: lanes share it.
    pub(crate) owner: Option<LaneId>,
    members: Vec<Member>,
    vacant: Vec<u32>,
    pub(crate) room: IndexedHeap<AgentOrder>,
    pub(crate) surplus: IndexedHeap<Surplus>,
    outdated: Vec<u32>,
    /// For the reach of one lane: the one that this lane shares with others.
    pub(crate) partner: Option<ReachId>,
    /// Workers that its lanes may use there.
    pub(crate) slots: u64,
    // Whether it is queued to be looked at for chunks to take back.
    to_look: bool,
}

struct Member {
    // None: the number is vacant.
    agent: Option<AgentId>,
    // Its position in the agent's list.
    listed_at: u32,
    // Whether the number is in `outdated`.
    outdated: bool,
}

/// All reaches, and the order of those that have lanes with something to run and may have an agent with room.
#[derive(Default)]
pub(crate) struct Reaches {
    pub(crate) all: Slab<ReachId, Reach>,
    order: IndexedHeap<LaneOrder>,
    // A lane is in at most one own reach and one shared reach.
    own: Positions,
    common: Positions,
    looks: Vec<ReachId>,
}

impl Reaches {
    /// Creates a reach without agents.
    pub(crate) fn open(&mut self, owner: Option<LaneId>) -> ReachId {
        self.all.insert(Reach { owner, ..Reach::default() })
    }

    /// Returns the reach to hand out to next.
    #[inline]
    pub(crate) fn first(&self) -> Option<ReachId> {
        self.order.first().and_then(|(index, _)| self.all.id_at(index))
    }

    /// Returns the next lane of the reach to serve.
    #[inline]
    pub(crate) fn first_lane(&self, id: ReachId) -> Option<u32> {
        self.all.get(id)?.lanes.first().map(|(lane, _)| lane)
    }

    /// Adds a lane, removes it, or changes its turn.
    #[inline]
    pub(crate) fn set_lane(&mut self, id: ReachId, lane: LaneId, turn: Option<LaneOrder>) {
        let reach = self.all.get_mut(id).expect("the lane's reach exists");
        let positions = if reach.owner.is_some() { &mut self.own } else { &mut self.common };
        reach.lanes.set(lane.index(), turn, positions);
        self.reorder(id);
    }

    /// Adds an agent; it is outdated at first.
    pub(crate) fn join(&mut self, id: ReachId, agent: AgentId, slots: u32, of_agent: &mut Memberships) {
        let reach = self.all.get_mut(id).expect("the joined reach exists");
        reach.slots += u64::from(slots);
        let number = reach.vacant.pop().unwrap_or_else(|| {
            reach.members.push(Member { agent: None, listed_at: 0, outdated: false });
            reach.members.len() as u32 - 1
        });
        let member = &mut reach.members[number as usize];
        member.agent = Some(agent);
        if !std::mem::replace(&mut member.outdated, true) {
            reach.outdated.push(number);
        }
        of_agent.all.push((id, number));
        self.swap(of_agent, of_agent.outdated, of_agent.all.len() - 1);
        of_agent.outdated += 1;
        self.reorder(id);
        self.look(id);
    }

    /// Removes an agent; returns false if it was not a member.
    pub(crate) fn leave(&mut self, id: ReachId, slots: u32, of_agent: &mut Memberships) -> bool {
        let Some(mut at) = of_agent.position(id) else { return false };
        let number = of_agent.all[at].1;
        if at < of_agent.outdated {
            of_agent.outdated -= 1;
            self.swap(of_agent, at, of_agent.outdated);
            at = of_agent.outdated;
        }
        self.swap(of_agent, at, of_agent.all.len() - 1);
        of_agent.all.pop();
        let reach = self.all.get_mut(id).expect("the reach being left exists");
        reach.slots -= u64::from(slots);
        reach.members[number as usize].agent = None;
        reach.vacant.push(number);
        reach.room.set(number, None);
        reach.surplus.set(number, None);
        self.reorder(id);
        true
    }

    /// Marks the agent as outdated after its room has changed.
    #[inline]
    pub(crate) fn outdate(&mut self, of_agent: &mut Memberships, spare: bool) {
        for at in of_agent.outdated..of_agent.all.len() {
            let (id, number) = of_agent.all[at];
            let reach = self.all.get_mut(id).expect("the agent's reach exists");
            reach.members[number as usize].outdated = true;
            reach.outdated.push(number);
            // Otherwise it is in the order already.
            if reach.outdated.len() == 1 && reach.room.is_empty() {
                self.reorder(id);
            }
            if spare || self.may_have_surplus(id) {
                self.look(id);
            }
        }
        of_agent.outdated = of_agent.all.len();
    }

    /// Returns an agent whose keys are outdated, with its number. [`update`](Self::update) must be called with it
    /// before this is called for the next one.
    #[inline]
    pub(crate) fn next_outdated(&mut self, id: ReachId) -> Option<(u32, AgentId)> {
        let reach = self.all.get_mut(id)?;
        while let Some(number) = reach.outdated.pop() {
            let member = &mut reach.members[number as usize];
            member.outdated = false;
            if let Some(agent) = member.agent {
                return Some((number, agent));
            }
        }
        None
    }

    #[inline]
    pub(crate) fn update(
        &mut self,
        id: ReachId,
        number: u32,
        of_agent: &mut Memberships,
        (room, surplus): (Option<AgentOrder>, Option<Surplus>),
    ) {
        let reach = self.all.get_mut(id).expect("the reach was just found");
        reach.room.set(number, room);
        reach.surplus.set(number, surplus);
        let at = reach.members[number as usize].listed_at as usize;
        of_agent.outdated -= 1;
        self.swap(of_agent, at, of_agent.outdated);
    }

    /// The agent's spare chunks are not of the reach's lanes. They count again when something about the agent changes.
    pub(crate) fn cannot_spare(&mut self, id: ReachId, number: u32) {
        if let Some(reach) = self.all.get_mut(id) {
            reach.surplus.set(number, None);
        }
    }

    /// Updates the order after the reach changed.
    #[inline]
    pub(crate) fn reorder(&mut self, id: ReachId) {
        let Some(reach) = self.all.get(id) else { return };
        let may_have_room = !reach.room.is_empty() || !reach.outdated.is_empty();
        let turn = reach.lanes.first().filter(|_| may_have_room).map(|(_, turn)| turn);
        self.order.set(id.index(), turn);
    }

    /// Queues the reach to be looked at for chunks to take back.
    pub(crate) fn look(&mut self, id: ReachId) {
        if let Some(reach) = self.all.get_mut(id)
            && !std::mem::replace(&mut reach.to_look, true)
        {
            self.looks.push(id);
        }
    }

    /// Returns the next reach to look at.
    pub(crate) fn next_look(&mut self) -> Option<ReachId> {
        while let Some(id) = self.looks.pop() {
            if let Some(reach) = self.all.get_mut(id) {
                reach.to_look = false;
                return Some(id);
            }
        }
        None
    }

    #[inline]
    fn may_have_surplus(&self, id: ReachId) -> bool {
        let has_surplus = |reach: &Reach| !reach.surplus.is_empty();
        let Some(reach) = self.all.get(id) else { return false };
        has_surplus(reach) || reach.partner.and_then(|partner| self.all.get(partner)).is_some_and(has_surplus)
    }

    /// Returns the agent with this number.
    #[inline]
    pub(crate) fn agent(&self, id: ReachId, number: u32) -> Option<AgentId> {
        self.all.get(id)?.members.get(number as usize)?.agent
    }

    /// Returns how many agents are in a reach.
    pub(crate) fn len(&self, id: ReachId) -> usize {
        self.all.get(id).map_or(0, |reach| reach.members.len() - reach.vacant.len())
    }

    /// Returns the agents in a reach.
    pub(crate) fn agents(&self, id: ReachId) -> impl Iterator<Item = AgentId> {
        self.all.get(id).into_iter().flat_map(|reach| reach.members.iter().filter_map(|member| member.agent))
    }

    /// Removes a reach that no agent and no lane is in.
    pub(crate) fn close(&mut self, id: ReachId) {
        self.order.set(id.index(), None);
        let reach = self.all.remove(id).expect("the closed reach existed");
        debug_assert!(reach.lanes.is_empty() && reach.members.iter().all(|member| member.agent.is_none()));
    }

    /// Swaps two entries of an agent's list.
    #[inline]
    fn swap(&mut self, of_agent: &mut Memberships, a: usize, b: usize) {
        if a != b {
            of_agent.all.swap(a, b);
            self.set_listed_at(of_agent, a);
        }
        self.set_listed_at(of_agent, b);
    }

    #[inline]
    fn set_listed_at(&mut self, of_agent: &Memberships, at: usize) {
        let (id, number) = of_agent.all[at];
        self.all.get_mut(id).expect("the agent's reach exists").members[number as usize].listed_at = at as u32;
    }
}

/// For checks.
impl Reaches {
    /// Returns the turn of a lane, if it has something to run.
    pub(crate) fn turn(&self, id: ReachId, lane: LaneId) -> Option<LaneOrder> {
        let reach = self.all.get(id)?;
        reach.lanes.key(lane.index(), if reach.owner.is_some() { &self.own } else { &self.common })
    }

    /// Checks that the heaps are heaps, and that exactly the right reaches are in the order.
    pub(crate) fn check(&self) {
        self.order.check();
        for (id, reach) in self.all.iter() {
            reach.lanes.check(if reach.owner.is_some() { &self.own } else { &self.common });
            reach.room.check();
            reach.surplus.check();
            let may_have_room = !reach.room.is_empty() || !reach.outdated.is_empty();
            let turn = reach.lanes.first().filter(|_| may_have_room).map(|(_, turn)| turn);
            assert_eq!(self.order.key(id.index()), turn, "{id:?} is misplaced");
            assert_eq!(self.looks.contains(&id), reach.to_look);
            for (number, member) in reach.members.iter().enumerate() {
                assert_eq!(reach.outdated.contains(&(number as u32)), member.outdated);
                assert_eq!(reach.vacant.contains(&(number as u32)), member.agent.is_none());
            }
        }
    }

    /// Checks that an agent is listed right, and its keys are right unless they are marked as outdated.
    pub(crate) fn check_member(
        &self,
        id: ReachId,
        agent: AgentId,
        of_agent: &Memberships,
        (room, surplus): (Option<AgentOrder>, Option<Surplus>),
    ) {
        let reach = self.all.get(id).expect("the reach was just found");
        let at = of_agent.all.iter().position(|&(reach, _)| reach == id).expect("the agent lists its reaches");
        let number = of_agent.all[at].1;
        let member = &reach.members[number as usize];
        assert_eq!((member.agent, member.listed_at as usize), (Some(agent), at));
        assert_eq!(member.outdated, at < of_agent.outdated);
        if !member.outdated {
            assert_eq!(reach.room.key(number), room, "{agent:?} is misplaced in {id:?}");
            let found = reach.surplus.key(number);
            assert!(found == surplus || found.is_none(), "{agent:?} is misplaced in {id:?}");
        }
    }
}
