//! Adoption of chunks that agents hold from before the scheduler knew of them.

use std::num::{NonZeroU32, NonZeroU64};

use farpool_core::{
    Action, AgentId, Cause, ChunkId, Claim, Config, Core, Event, Fault, Id, JobId, JobPolicy, Labels, PoolId, Run,
};

use crate::world::World;
use crate::world::restart::Fate;

const POOL: u32 = 3;

fn pool() -> PoolId {
    PoolId::new(POOL, 1)
}

fn job() -> JobId {
    JobId::new(0, 1)
}

fn agent(index: u32) -> AgentId {
    AgentId::new(index, 1)
}

fn policy(chunksize: u64, retries: u32) -> JobPolicy {
    JobPolicy { chunksize: NonZeroU64::new(chunksize), retries, ..JobPolicy::default() }
}

/// A restarted scheduler that knows two agents where the pool runs, and a job with the items 0 .. 10.
fn restarted(policy: JobPolicy) -> Core {
    let mut core = Core::new(Config::checked());
    let mut events = vec![];
    for agent in [agent(0), agent(1)] {
        events.push(Event::AgentJoined { agent, slots: 1, labels: Labels::new([0]) });
        events.push(Event::AgentCredit { agent, chunks: 2, bytes: 0 });
    }
    let held = vec![(agent(0), 1), (agent(1), 1)];
    events.push(Event::PoolOpened { pool: pool(), slots: None, weight: 1, require: Labels::default(), held });
    events.extend([agent(0), agent(1)].map(|agent| Event::PlaceStarted { pool: pool(), agent }));
    events.push(Event::JobOpened { job: job(), pool: pool(), policy, require: Labels::default() });
    events.push(Event::ItemsArrived { job: job(), first: 0, count: 10, bytes: 80 });
    events.into_iter().for_each(|event| drop(send(&mut core, event)));
    core
}

fn send(core: &mut Core, event: Event) -> Vec<Action> {
    let mut actions = Vec::new();
    core.handle(event, &mut actions);
    actions
}

fn schedule(core: &mut Core) -> Vec<Action> {
    let mut actions = Vec::new();
    core.schedule(7, &mut actions);
    actions
}

fn held(agent: AgentId, first: u64, attempt: u32, runs: &[(u64, u64)]) -> Claim {
    let runs = runs.iter().map(|&(first, count)| Run { first, count }).collect();
    Claim { agent, job: job(), first, attempt, runs }
}

/// Returns what the agent adopted, and which other actions follow.
fn claim(core: &mut Core, held: Claim) -> (Option<(ChunkId, u32)>, Vec<Action>) {
    let mut actions = Vec::new();
    (core.adopt_chunk(held, 7, &mut actions), actions)
}

/// Returns what the agent adopted; no other action follows.
#[track_caller]
fn adopt(core: &mut Core, held: Claim) -> Option<(ChunkId, u32)> {
    let (adopted, actions) = claim(core, held);
    assert_eq!(actions, []);
    adopted
}

/// Pairs of first index and count.
type Pairs<'a> = &'a [(u64, u64)];

/// One agent holds `before`, and then another one claims `runs`. Expects its attempt, and the runs that are left out.
#[track_caller]
fn check(before: Pairs, (first, attempt): (u64, u32), runs: Pairs, expected: Option<u32>, left_out: Pairs) {
    let mut core = restarted(policy(0, 4));
    if !before.is_empty() {
        assert!(adopt(&mut core, held(agent(0), 0, 1, before)).is_some());
    }
    let stale = core.stale_reports();
    let found = adopt(&mut core, held(agent(1), first, attempt, runs));
    assert_eq!(found.map(|(_, attempt)| attempt), expected, "{runs:?} beside {before:?}");
    let Some((chunk, attempt)) = found else {
        assert_eq!(core.stale_reports(), stale + 1);
        return;
    };
    // Adopted items can be reported once, and no others can.
    for &(first, count) in left_out {
        let done = Event::RunDone { agent: agent(1), chunk, attempt, first, count, busy_ns: 0, failed: false };
        assert_eq!(send(&mut core, done), [], "{first}+{count} was not adopted");
    }
    let mut expected = vec![];
    let mut found = vec![];
    for &(first, count) in runs.iter().filter(|run| !left_out.contains(run)) {
        found.extend(send(
            &mut core,
            Event::RunDone { agent: agent(1), chunk, attempt, first, count, busy_ns: 0, failed: false },
        ));
        let lowest = runs.iter().filter(|run| !left_out.contains(run)).map(|run| run.0).min();
        // The attempt is that of the lowest item.
        let apart = if Some(first) == lowest && attempt > 1 { 1 } else { 0 };
        for (first, count, attempts) in [(first, apart, attempt), (first + apart, count - apart, 1)] {
            expected.extend((count > 0).then_some(Action::Accept { job: job(), first, count, attempts }));
        }
    }
    // The agent still holds the items that were left out, but they are never retracted.
    if !left_out.is_empty() {
        expected.push(Action::CancelChunk { agent: agent(1), chunk });
    }
    assert_eq!(found, expected);
    assert_eq!((core.stale_reports(), core.chunks_at(agent(1))), (stale + left_out.len() as u64, 0));
}

#[test]
fn queued_runs_are_adopted() {
    check(&[], (0, 1), &[(0, 10)], Some(1), &[]);
    check(&[], (2, 1), &[(2, 3), (7, 2)], Some(1), &[]);
    check(&[], (2, 1), &[(7, 2), (2, 3), (5, 2)], Some(1), &[]);
    check(&[(3, 2)], (0, 1), &[(0, 3), (5, 5)], Some(1), &[]);
    // Each run is adopted entirely or not at all.
    check(&[(3, 2)], (0, 1), &[(0, 4), (5, 1)], Some(1), &[(0, 4)]);
    check(&[(3, 2)], (4, 1), &[(4, 1), (5, 1), (6, 4)], Some(1), &[(4, 1)]);
    check(&[(3, 2)], (3, 1), &[(3, 2)], None, &[]);
    check(&[(0, 10)], (3, 1), &[(3, 2)], None, &[]);
    check(&[], (8, 1), &[(8, 3)], None, &[]);
    check(&[], (11, 1), &[(11, 1)], None, &[]);
}

#[test]
fn reports_may_cover_more_than_was_adopted() {
    let mut core = restarted(policy(0, 4));
    assert!(adopt(&mut core, held(agent(0), 3, 1, &[(3, 2)])).is_some());
    let one_by_one: Vec<_> = (2..8).map(|item| (item, 1)).collect();
    let (chunk, attempt) = adopt(&mut core, held(agent(1), 2, 1, &one_by_one)).expect("2, 5, 6 and 7 are queued");
    let accept = |first, count| Action::Accept { job: job(), first, count, attempts: 1 };
    let mut report = |first, count| {
        send(&mut core, Event::RunDone { agent: agent(1), chunk, attempt, first, count, busy_ns: 9, failed: false })
    };
    assert_eq!(report(2, 4), [accept(2, 1), accept(5, 1)]);
    assert_eq!(report(7, u64::MAX), []);
    assert_eq!(report(5, 4), [accept(6, 2), Action::CancelChunk { agent: agent(1), chunk }]);
}

#[test]
fn a_run_that_is_queued_in_part_does_not_run_again() {
    let mut core = restarted(policy(0, 0));
    assert!(adopt(&mut core, held(agent(0), 3, 1, &[(3, 2)])).is_some());
    // Others have 3 and 4; the items around them will never be reported.
    let (adopted, actions) = claim(&mut core, held(agent(1), 2, 1, &[(2, 4), (8, 1)]));
    let fail = |first| Action::Fail { job: job(), first, count: 1, attempts: 1, cause: Cause::AgentLost };
    assert_eq!((actions, adopted.map(|(_, attempt)| attempt)), (vec![fail(2), fail(5)], Some(1)));
    assert_eq!(core.progress(job()).map(|progress| progress.queued), Some(5));
    // Of 8 and 9, the first is elsewhere.
    assert!(adopt(&mut core, held(agent(1), 0, 1, &[(0, 2), (6, 2)])).is_some());
    send(&mut core, Event::InputEnded { job: job() });
    assert_eq!(claim(&mut core, held(agent(1), 8, 1, &[(8, 2)])), (None, vec![fail(9)]));
}

#[test]
fn the_attempt_is_that_of_the_first_item_if_that_is_adopted() {
    check(&[], (0, 3), &[(0, 2), (3, 1)], Some(3), &[]);
    check(&[], (0, 3), &[(3, 1), (0, 2)], Some(3), &[]);
    check(&[], (0, 3), &[(1, 2)], Some(1), &[]);
    check(&[(0, 1)], (0, 3), &[(0, 1), (1, 2)], Some(1), &[(0, 1)]);
    check(&[], (0, 5), &[(0, 2)], Some(5), &[]);
}

#[test]
fn attempts_made_meanwhile_count() {
    let mut core = restarted(policy(0, 4));
    let (chunk, attempt) = adopt(&mut core, held(agent(0), 0, 2, &[(0, 10)])).expect("the items are queued");
    for item in [3, 6] {
        send(&mut core, Event::ItemFaulted { agent: agent(0), chunk, attempt, item, fault: Fault::Died });
    }
    send(&mut core, Event::Returned { agent: agent(0), chunk, attempt, first: 0, count: 3 });
    // Item 0 is at its second attempt, as are 3 and 6. Only the first held item may have been tried.
    assert_eq!(adopt(&mut core, held(agent(1), 2, 1, &[(2, 2)])), None);
    assert_eq!(adopt(&mut core, held(agent(1), 3, 1, &[(3, 1), (6, 1)])).map(|(_, attempt)| attempt), Some(2));
    assert_eq!(adopt(&mut core, held(agent(1), 6, 1, &[(6, 1)])).map(|(_, attempt)| attempt), Some(2));
    assert_eq!(core.progress(job()).map(|job| job.queued), Some(3));
}

#[test]
fn claims_may_contain_anything() {
    let most = u64::MAX;
    check(&[], (0, 1), &[], None, &[]);
    check(&[], (0, 1), &[(0, 0), (5, 0)], None, &[]);
    check(&[], (0, 1), &[(most, most), (5, most), (0, most), (most, 1)], None, &[]);
    check(&[], (0, 1), &[(5, most - 5), (2, 1)], Some(1), &[(5, most - 5)]);
    // Only the first of overlapping runs is adopted.
    let mut core = restarted(policy(0, 4));
    let (chunk, attempt) = adopt(&mut core, held(agent(0), 0, 1, &[(0, 4), (0, 4), (3, 3)])).expect("0 .. 4");
    assert_eq!(core.progress(job()).map(|job| job.queued), Some(6));
    let done = Event::RunDone { agent: agent(0), chunk, attempt, first: 0, count: 4, busy_ns: 1, failed: false };
    let through = [
        Action::Accept { job: job(), first: 0, count: 4, attempts: 1 },
        Action::CancelChunk { agent: agent(0), chunk },
    ];
    assert_eq!(send(&mut core, done), through);
    // Attempts that the job does not have.
    for attempt in [0, 6, u32::MAX] {
        check(&[], (0, attempt), &[(0, 2)], None, &[]);
    }
    // None of this exists.
    for held in [
        held(agent(9), 0, 1, &[(0, 1)]),
        Claim { agent: agent(0), job: JobId::new(5, 1), first: 0, attempt: 1, runs: vec![Run::new(0, 1)] },
    ] {
        let stale = core.stale_reports();
        assert_eq!(adopt(&mut core, held), None);
        assert_eq!(core.stale_reports(), stale + 1);
    }
}

#[test]
fn attempt_numbers_do_not_overflow() {
    let mut core = restarted(policy(0, u32::MAX));
    let (chunk, attempt) = adopt(&mut core, held(agent(0), 0, u32::MAX, &[(0, 1)])).expect("the item is queued");
    let died = Event::ItemFaulted { agent: agent(0), chunk, attempt, item: 0, fault: Fault::Died };
    assert_eq!(send(&mut core, died), [Action::Retrying { job: job(), item: 0, attempt: u32::MAX }]);
}

#[test]
fn chunks_are_adopted_only_where_pool_and_job_may_run() {
    let refused = |core: &mut Core, agent| assert_eq!(adopt(core, held(agent, 0, 1, &[(0, 1)])), None);
    let mut core = restarted(policy(0, 1));
    let late = agent(2);
    send(&mut core, Event::AgentJoined { agent: late, slots: 1, labels: Labels::default() });
    refused(&mut core, late);
    send(&mut core, Event::PlaceUnfit { pool: pool(), agent: agent(0) });
    refused(&mut core, agent(0));
    send(&mut core, Event::PlaceStarted { pool: pool(), agent: late });
    assert!(adopt(&mut core, held(late, 0, 1, &[(0, 1)])).is_some());
    // A job that requires labels that the agent does not have.
    let (other, require) = (JobId::new(1, 1), Labels::new([0]));
    send(&mut core, Event::JobOpened { job: other, pool: pool(), policy: policy(0, 1), require });
    send(&mut core, Event::ItemsArrived { job: other, first: 0, count: 1, bytes: 0 });
    let of_other = |agent| Claim { agent, job: other, first: 0, attempt: 1, runs: vec![Run::new(0, 1)] };
    assert_eq!(adopt(&mut core, of_other(late)), None);
    assert!(adopt(&mut core, of_other(agent(1))).is_some());
}

#[test]
fn an_agent_knows_the_job_of_what_it_holds() {
    let mut core = restarted(policy(1, 1));
    let (chunk, attempt) = adopt(&mut core, held(agent(0), 0, 1, &[(0, 1)])).expect("the item is queued");
    let given = schedule(&mut core);
    let told: Vec<_> = given.iter().filter(|action| matches!(action, Action::StartJob { .. })).collect();
    assert_eq!(told, [&Action::StartJob { agent: agent(1), job: job() }]);
    send(&mut core, Event::RunDone { agent: agent(0), chunk, attempt, first: 0, count: 1, busy_ns: 0, failed: false });
    let ended = send(&mut core, Event::JobCancelled { job: job() });
    assert!(ended.contains(&Action::EndJob { agent: agent(0), job: job(), kill: true }), "{ended:?}");
}

#[test]
fn an_agent_may_hold_more_than_it_asks_for_now() {
    let mut core = restarted(policy(1, 1));
    for item in 0..5 {
        assert!(adopt(&mut core, held(agent(0), item, 1, &[(item, 1)])).is_some());
    }
    assert_eq!((core.chunks_at(agent(0)), core.chunks_at(agent(1))), (5, 0));
    let to = |actions: &[Action], agent| {
        let given = |action: &&Action| matches!(action, Action::Assign { agent: to, .. } if *to == agent);
        actions.iter().filter(given).count()
    };
    let given = schedule(&mut core);
    assert_eq!((to(&given, agent(0)), to(&given, agent(1))), (0, 2));
    // When nothing is queued, chunks that have not begun go to idle slots: the newest first.
    send(&mut core, Event::AgentCredit { agent: agent(1), chunks: 5, bytes: 0 });
    schedule(&mut core);
    send(&mut core, Event::AgentJoined { agent: agent(2), slots: 2, labels: Labels::default() });
    send(&mut core, Event::PlaceStarted { pool: pool(), agent: agent(2) });
    send(&mut core, Event::AgentCredit { agent: agent(2), chunks: 2, bytes: 0 });
    let asked = schedule(&mut core);
    assert!(asked.iter().all(|action| matches!(action, Action::Retract { .. })) && asked.len() == 2, "{asked:?}");
}

#[test]
fn the_rest_is_cut_on_the_same_grid() {
    let mut core = restarted(policy(4, 1));
    assert!(adopt(&mut core, held(agent(0), 4, 1, &[(5, 1), (7, 1)])).is_some());
    send(&mut core, Event::AgentCredit { agent: agent(1), chunks: 9, bytes: 0 });
    let given = |core: &mut Core| -> Vec<(u64, u64)> {
        let assigned = |action| match action {
            Action::Assign { first, count, .. } => Some((first, count)),
            _ => None,
        };
        let mut given: Vec<_> = schedule(core).into_iter().filter_map(assigned).collect();
        given.sort_unstable();
        given
    };
    assert_eq!(given(&mut core), [(0, 4), (4, 1), (6, 1)]);
    // More may arrive after 9, unless the resend is complete.
    send(&mut core, Event::ResendComplete { job: job() });
    assert_eq!(given(&mut core), [(8, 2)]);
    send(&mut core, Event::ItemsArrived { job: job(), first: 10, count: 4, bytes: 0 });
    assert_eq!(given(&mut core), [(10, 2)]);
    send(&mut core, Event::ItemsArrived { job: job(), first: 14, count: 2, bytes: 0 });
    assert_eq!(given(&mut core), [(12, 4)]);
}

#[test]
fn items_that_may_have_run_fail_if_they_run_at_most_once() {
    let mut core = restarted(policy(1, 0));
    send(&mut core, Event::InputEnded { job: job() });
    assert!(adopt(&mut core, held(agent(0), 3, 1, &[(3, 2)])).is_some());
    let lost = send(&mut core, Event::FailQueued { job: job() });
    let fail = |first, count| Action::Fail { job: job(), first, count, attempts: 1, cause: Cause::AgentLost };
    assert_eq!(lost, [fail(0, 3), fail(5, 5)]);
    assert_eq!(schedule(&mut core), []);
    // Nothing is held: the job is over.
    let over = send(&mut core, Event::AgentLost { agent: agent(0) });
    assert!(over.contains(&fail(3, 2)) && over.contains(&Action::JobFinished { job: job(), cancelled: false }));
    let mut core = restarted(policy(1, 0));
    send(&mut core, Event::InputEnded { job: job() });
    let over = send(&mut core, Event::FailQueued { job: job() });
    assert_eq!(over, [fail(0, 10), Action::JobFinished { job: job(), cancelled: false }]);
}

/// Agents with this many slots each, `+100` if leaving; the workers of a pool with a limit that they hold, by their
/// indices; and the workers that they are told to have.
#[track_caller]
fn check_limit(slots: &[u32], limit: u32, held: &[(u32, u32)], expected: &[(u32, u32)]) {
    let mut core = Core::new(Config::checked());
    for (index, &slots) in slots.iter().enumerate() {
        let agent = agent(index as u32);
        send(&mut core, Event::AgentJoined { agent, slots: slots % 100, labels: Labels::default() });
        send(&mut core, Event::AgentCredit { agent, chunks: 9, bytes: 0 });
        if slots > 100 {
            send(&mut core, Event::AgentDraining { agent });
        }
    }
    let held = held.iter().map(|&(index, workers)| (agent(index), workers)).collect();
    let (slots, require) = (NonZeroU32::new(limit), Labels::default());
    let actions = send(&mut core, Event::PoolOpened { pool: pool(), slots, weight: 1, require, held });
    let told = actions.iter().map(|action| match *action {
        Action::StartPool { agent, workers, .. } => (agent.index(), workers.map_or(0, NonZeroU32::get)),
        Action::ResizePool { agent, workers, .. } => (100 + agent.index(), workers.get()),
        _ => panic!("{action:?}"),
    });
    assert_eq!(told.collect::<Vec<_>>(), expected);
}

#[test]
fn workers_stay_where_they_are() {
    check_limit(&[2, 2], 0, &[(1, 1)], &[(1, 0), (0, 0)]);
    check_limit(&[2, 2], 2, &[], &[(0, 1), (1, 1)]);
    check_limit(&[2, 2], 2, &[(1, 2)], &[(1, 2)]);
    check_limit(&[2, 2], 3, &[(1, 2)], &[(1, 2), (0, 1)]);
    check_limit(&[2, 2], 4, &[(1, 1)], &[(1, 1), (0, 2), (101, 2)]);
    // 0: as many as there are slots. Held workers beyond the slots or the limit are cut.
    check_limit(&[2, 3], 4, &[(1, 0)], &[(1, 3), (0, 1)]);
    check_limit(&[2, 3], 3, &[(0, 9), (1, 3)], &[(0, 2), (1, 1)]);
    check_limit(&[2, 3], 2, &[(0, 2), (1, 3)], &[(0, 2)]);
    // A leaving agent continues, and gets no more.
    check_limit(&[102, 2], 3, &[(0, 1)], &[(0, 1), (1, 2)]);
    check_limit(&[102, 2], 0, &[(0, 1)], &[(0, 0), (1, 0)]);
    // Agents that do not exist, or are listed twice.
    check_limit(&[2], 2, &[(7, 1), (0, 1), (0, 1)], &[(0, 1), (100, 2)]);
}

#[test]
fn a_held_pool_runs_only_where_it_may() {
    for slots in [None, NonZeroU32::new(4)] {
        let mut core = Core::new(Config::checked());
        for (index, labels) in [(0, Labels::default()), (1, Labels::new([5]))] {
            send(&mut core, Event::AgentJoined { agent: agent(index), slots: 1, labels });
        }
        let (require, held) = (Labels::new([5]), vec![(agent(0), 1)]);
        let actions = send(&mut core, Event::PoolOpened { pool: pool(), slots, weight: 1, require, held });
        assert!(matches!(actions[..], [Action::StartPool { agent: at, .. }] if at == agent(1)), "{actions:?}");
    }
}

#[test]
fn a_leaving_agent_gives_up_spare_workers_once_its_chunks_are_known() {
    let mut core = Core::new(Config::checked());
    for index in 0..2 {
        send(&mut core, Event::AgentJoined { agent: agent(index), slots: 2, labels: Labels::default() });
    }
    send(&mut core, Event::AgentDraining { agent: agent(0) });
    let (slots, require, held_by) = (NonZeroU32::new(2), Labels::default(), vec![(agent(0), 2)]);
    send(&mut core, Event::PoolOpened { pool: pool(), slots, weight: 1, require, held: held_by });
    send(&mut core, Event::PlaceStarted { pool: pool(), agent: agent(0) });
    let require = Labels::default();
    send(&mut core, Event::JobOpened { job: job(), pool: pool(), policy: policy(1, 1), require });
    send(&mut core, Event::ItemsArrived { job: job(), first: 0, count: 2, bytes: 0 });
    assert!(adopt(&mut core, held(agent(0), 0, 1, &[(0, 1)])).is_some());
    let start = Action::StartPool { agent: agent(1), pool: pool(), workers: NonZeroU32::new(1) };
    assert_eq!(schedule(&mut core), [start]);
}

#[test]
fn no_place_is_given_up_before_its_chunks_are_known() {
    let mut core = Core::new(Config::checked());
    for (index, labels) in [(0, Labels::default()), (1, Labels::new([5]))] {
        send(&mut core, Event::AgentJoined { agent: agent(index), slots: 1, labels });
    }
    let (slots, require, held_by) = (NonZeroU32::new(1), Labels::default(), vec![(agent(0), 1)]);
    send(&mut core, Event::PoolOpened { pool: pool(), slots, weight: 1, require, held: held_by });
    send(&mut core, Event::PlaceStarted { pool: pool(), agent: agent(0) });
    // A job that only the other agent can run needs the worker.
    let (other, require) = (JobId::new(1, 1), Labels::new([5]));
    assert_eq!(send(&mut core, Event::JobOpened { job: other, pool: pool(), policy: policy(1, 1), require }), []);
    let require = Labels::default();
    send(&mut core, Event::JobOpened { job: job(), pool: pool(), policy: policy(1, 0), require });
    send(&mut core, Event::ItemsArrived { job: job(), first: 0, count: 1, bytes: 0 });
    let (chunk, attempt) = adopt(&mut core, held(agent(0), 0, 1, &[(0, 1)])).expect("the item is queued");
    assert_eq!(schedule(&mut core), []);
    let done = Event::RunDone { agent: agent(0), chunk, attempt, first: 0, count: 1, busy_ns: 0, failed: false };
    send(&mut core, Event::InputEnded { job: job() });
    let stop = Action::StopPool { agent: agent(0), pool: pool() };
    assert_eq!(send(&mut core, done).last(), Some(&stop));
}

#[test]
fn a_lost_agent_resumes_chunks_that_no_other_has_begun() {
    let mut world = World::new(Config::default());
    world.join(1, 3);
    world.map(policy(2, 2), 6);
    world.schedule();
    world.give_up(0);
    // Another agent has begun the first chunk, the one that ran at the lost agent, as its second attempt.
    world.join(1, 1);
    world.schedule();
    assert_eq!(world.agents[&0].chunks[0].left, [0, 1]);
    let back = world.reconnect(0);
    let held: Vec<_> = world.agents[&back].chunks.iter().map(|chunk| (chunk.left.clone(), chunk.attempt)).collect();
    // Each of the others was charged an attempt when the agent was lost.
    assert_eq!(held, [(vec![2, 3], 2), (vec![4, 5], 2)]);
    world.drain();
}

#[test]
fn a_restarted_scheduler_finishes_all_jobs() {
    let mut world = World::new(Config::default());
    world.join(1, 2);
    world.join(1, 2);
    world.map(policy(3, 1), 18);
    world.map(policy(3, 0), 6);
    world.schedule();
    world.run(0, 0, world.agents[&0].chunks[0].first, 1, 1000);
    let held: usize = world.agents.values().map(|agent| agent.chunks.len()).sum();
    world.restart(&[Fate::InTime]);
    assert_eq!((world.adopted as usize, world.core.chunks_held()), (held, held));
    world.restart(&[Fate::InTime, Fate::Never]);
    assert_eq!(world.core.chunks_held(), 2);
    // Items that must not run twice may have run at the agent that did not reconnect.
    assert!(world.jobs[&1].items.values().all(|item| item.outcome.is_some() || item.copies == 1));
    assert!(world.jobs[&1].items.values().any(|item| item.outcome.is_some()));
    assert!(world.jobs[&0].items.values().any(|item| item.outcome.is_none()));
    world.drain();
}
