//! Messages that are not allowed are refused with a reason, and no other session is affected.

use farpool_coordinator::{Principal, RefusedKind};
use farpool_proto::limits;
use farpool_proto::v1::{
    AgentEvent, AgentHello, AgentOutput, Attach, ClientMessage, Credit, Detach, Draining, FailureKind, ItemFault,
    Items, OpenJob, Returned, RunDone,
};
use farpool_testkit::doses;
use proptest::prelude::*;

use crate::fakes::*;

/// A client sends some messages and then one that is refused.
#[track_caller]
fn check_client(before: Vec<Request>, last: Request, expected: RefusedKind, words: &str) {
    let mut wire = Wire::new();
    wire.agent(1, 1);
    wire.client();
    for body in before {
        wire.send(0, body);
    }
    let refused = wire.try_send(0, last).expect_err("the message is refused");
    assert_eq!((refused.kind(), refused.to_string().as_str()), (&expected, words));
}

#[test]
fn clients() {
    use RefusedKind::*;
    let open = || open_pool(0);
    let raw = |data: &'static [u8], ends: &'static [u8]| {
        Request::Items(Items { job: 0, first: 0, data: data.into(), ends: ends.into() })
    };
    let none: &[&str] = &[];
    check_client(vec![], open_job(0, 0, 0), NotFirst("OpenPool"), "a session begins with OpenPool");
    check_client(vec![], close(true), NotFirst("OpenPool"), "a session begins with OpenPool");
    check_client(vec![open()], open(), Repeated("OpenPool"), "second OpenPool in a session");
    check_client(vec![open()], items(3, 0, &["a"]), UnknownJob(3), "job 3 was never opened");
    check_client(vec![open()], end_items(3), UnknownJob(3), "job 3 was never opened");
    check_client(vec![open()], cancel(3), UnknownJob(3), "job 3 was never opened");
    let words = "Detach in a pool's session; it needs one of its own";
    let detach = OpenJob { detach: Some(Detach::default()), ..OpenJob::default() };
    check_client(vec![open()], Request::OpenJob(detach.into()), Elsewhere("Detach"), words);
    let words = "Attach in a pool's session; it needs one of its own";
    check_client(vec![open()], Request::Attach(Attach::default().into()), Elsewhere("Attach"), words);
    let job = || vec![open(), open_job(0, 0, 0)];
    check_client(job(), open_job(0, 0, 0), JobNumberUsed(0), "job number 0 was used before");
    let ended = vec![open(), open_job(0, 0, 0), end_items(0)];
    check_client(ended, open_job(0, 0, 0), JobNumberUsed(0), "job number 0 was used before");
    check_client(job(), items(0, 0, none), NoItems, "message about items without any");
    check_client(job(), raw(b"a", b"abc"), EndsCut(3), "3 bytes of item ends are not a multiple of 4");
    let falls = "the item at position 1 ends before it starts";
    check_client(job(), raw(b"a", &[1, 0, 0, 0, 0, 0, 0, 0]), EndsFall(1), falls);
    let misses = "the last item ends at 2 and the data at 1";
    check_client(job(), raw(b"a", &[2, 0, 0, 0]), EndsMissData { last: 2, len: 1 }, misses);
    let high = "items from 18446744073709551615 on go beyond the highest index";
    check_client(job(), items(0, u64::MAX, &["a"]), IndexTooHigh(u64::MAX), high);
    check_client(vec![open()], open_job(u64::MAX, 0, 0), IndexTooHigh(u64::MAX), high);
    let some = vec![open(), open_job(0, 0, 0), items(0, 5, &["a", "b"])];
    let low = "item 6 came, but 7 is the lowest allowed";
    check_client(some, items(0, 6, &["a"]), IndexTooLow { first: 6, next: 7 }, low);
    let ended = || vec![open(), open_job(0, 0, 0), items(0, 0, &["a"]), end_items(0)];
    let behind = "items for job 0 after the end of its input";
    check_client(ended(), items(0, 1, &["a"]), InputEnded(0), behind);
    check_client(ended(), end_items(0), InputEnded(0), behind);
    let largest = "x".repeat(PAYLOAD_LIMIT as usize);
    let longer = format!("{largest}x");
    let too_large = ItemTooLarge { item: 4, bytes: PAYLOAD_LIMIT + 1, limit: PAYLOAD_LIMIT };
    let some = items(0, 3, &[&*largest, &longer, "a"]);
    check_client(job(), some, too_large, "item 4 has 1001 bytes, and the pool's limit is 1000");
    let many = vec!["a=b"; 65];
    let beyond = |what, found, most| BeyondLimit(limits::BeyondLimit { what, found, most });
    let words = "too many labels: 65, the limit is 64";
    check_client(vec![], open_pool_for(0, &many), beyond("labels", 65, 64), words);
    check_client(vec![open()], open_job_for(0, &many), beyond("labels", 65, 64), words);
    check_client(vec![open()], open_job_for(0, &["=b"]), LabelEmpty, "a label needs a key and a value");
    let long = format!("key={}", "x".repeat(257));
    let words = "too many bytes in a label's key or value: 257, the limit is 256";
    let too_long = beyond("bytes in a label's key or value", 257, 256);
    check_client(vec![], open_pool_for(0, &[&long]), too_long, words);
    let closed = vec![open(), open_job(0, 0, 0), close(false)];
    check_client(closed, open_job(1, 0, 0), PoolClosed, "a job for a pool that was closed");
}

/// A number is never used if its job's argument cannot be encoded: here, every other one.
#[test]
fn job_numbers_with_many_gaps() {
    let mut wire = Wire::new();
    wire.client();
    wire.send(0, open_pool(0));
    const LAST: u64 = 40_000;
    for number in (2..=LAST).step_by(2) {
        wire.send(0, open_job(number, 0, 0));
        wire.send(0, end_items(number));
    }
    // An old job may have ended, and late messages for it are dropped.
    wire.send(0, cancel(7));
    assert_eq!(wire.coordinator.late_messages(), 1);
    // The job itself may arrive late, ...
    wire.send(0, open_job(7, 0, 0));
    wire.send(0, end_items(7));
    // ... and nothing certain was forgotten.
    let mut refused = |send| wire.try_send(0, send).expect_err("the message is refused").kind().clone();
    assert_eq!(refused(open_job(LAST, 0, 0)), RefusedKind::JobNumberUsed(LAST));
    assert_eq!(refused(cancel(LAST - 1)), RefusedKind::UnknownJob(LAST - 1));
    assert_eq!(refused(cancel(LAST + 1)), RefusedKind::UnknownJob(LAST + 1));
}

#[test]
fn messages_without_body() {
    let mut wire = Wire::new();
    let (client, agent) = (wire.coordinator.connect_client(Principal::local()), wire.coordinator.connect_agent());
    let mut out = farpool_coordinator::Outbox::default();
    let refused = wire.coordinator.client_message(client, ClientMessage { body: None }, 0, &mut out);
    assert_eq!(refused.map_err(|refused| refused.kind().clone()), Err(RefusedKind::Empty));
    let refused = wire.coordinator.agent_event(agent, AgentEvent { body: None }, 0, &mut out);
    assert_eq!(refused.map_err(|refused| refused.kind().clone()), Err(RefusedKind::Empty));
}

#[test]
fn sessions_that_have_ended() {
    let mut wire = Wire::new();
    wire.agent(1, 1);
    wire.client();
    wire.client_gone(0);
    wire.agent_gone(0);
    // A repeated end has no effect.
    wire.client_gone(0);
    wire.agent_gone(0);
    let refused = wire.try_send(0, open_pool(0)).expect_err("the session is over");
    assert_eq!(refused.kind(), &RefusedKind::NoSession);
    let refused = wire.try_report(0, Report::Credit(Credit { chunks: 1, bytes: 0 })).expect_err("the session is over");
    assert_eq!(refused.kind(), &RefusedKind::NoSession);
    wire.client();
    wire.send(1, open_pool(0));
    wire.send(1, close(false));
    let refused = wire.try_send(1, close(false)).expect_err("the session is over");
    assert_eq!(refused.kind(), &RefusedKind::NoSession);
}

#[test]
fn agents() {
    use RefusedKind::{IndexTooHigh, Missing, NoItems, NoSlots, NotFirst, PoolRuns, Repeated};
    #[track_caller]
    fn check(hello: bool, last: Report, expected: RefusedKind, words: &str) {
        let mut wire = Wire::new();
        let agent = if hello { wire.agent(1, 1) } else { wire.silent_agent() };
        wire.client();
        wire.send(0, open_pool(0));
        let refused = wire.try_report(agent, last).expect_err("the event is refused");
        assert_eq!((refused.kind(), refused.to_string().as_str()), (&expected, words));
    }
    let hello = |slots| Report::Hello(Box::new(AgentHello { slots, ..AgentHello::default() }));
    check(
        false,
        Report::Credit(Credit { chunks: 1, bytes: 0 }),
        NotFirst("AgentHello"),
        "a session begins with AgentHello",
    );
    check(false, hello(0), NoSlots, "an agent needs at least one slot");
    let with = |hello: AgentHello| Report::Hello(Box::new(AgentHello { slots: 1, ..hello }));
    let short = AgentHello { id: vec![1; 15].into(), ..AgentHello::default() };
    check(false, with(short), RefusedKind::AgentIdLength(15), "an agent's id of 15 bytes instead of 16");
    let empty = AgentHello { labels: labels(&["a="]), ..AgentHello::default() };
    check(false, with(empty), RefusedKind::LabelEmpty, "a label needs a key and a value");
    let output = AgentOutput { pool: 1 << 32, stream: 3, ..AgentOutput::default() };
    check(true, Report::Output(output), RefusedKind::OutputStream(3), "output on the unknown stream 3");
    check(true, hello(1), Repeated("AgentHello"), "second AgentHello in a session");
    check(true, Report::RunDone(RunDone::default()), NoItems, "message about items without any");
    check(true, Report::ItemFault(Box::default()), Missing("failure"), "message without its failure");
    check(true, Report::PoolFault(Box::default()), Missing("failure"), "message without its failure");
    let unknown = "failure of the unknown kind 0";
    check(true, pool_fault(1 << 32, FailureKind::Unspecified), RefusedKind::FailureKind(0), unknown);
    let back = Returned { first: u64::MAX, count: 1, ..Returned::default() };
    let high = "items from 18446744073709551615 on go beyond the highest index";
    check(true, Report::Returned(back), IndexTooHigh(u64::MAX), high);
    let runs = "pool 4294967296 stopped unasked";
    check(true, pool_stopped(1 << 32), PoolRuns(1 << 32), runs);
}

/// Small numbers, like ids that exist, and others.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..4u64, 4 => (0..4u64).prop_map(|at| 1 << 32 | at), 1 => any::<u64>()]
}

fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => Just(vec![1, 0, 0, 0]),
        1 => prop::collection::vec(0..3u8, 0..12),
    ]
}

fn any_request() -> impl Strategy<Value = Request> {
    prop_oneof![
        1 => (0..9u32).prop_map(open_pool),
        3 => (number(), number(), any::<bool>(), any::<bool>()).prop_map(|(job, chunksize, retry_panics, retry_failed)| {
            let retries = (chunksize % 3) as u32;
            Request::OpenJob(Box::new(OpenJob { job, chunksize, retries, retry_panics, retry_failed, ..OpenJob::default() }))
        }),
        6 => (number(), number(), prop_oneof![3 => Just(vec![7]), 1 => some_bytes()], some_bytes())
            .prop_map(|(job, first, data, ends)| Request::Items(Items { job, first, data: data.into(), ends: ends.into() })),
        1 => number().prop_map(end_items),
        1 => number().prop_map(stop_retries),
        1 => number().prop_map(cancel),
        1 => any::<bool>().prop_map(close),
    ]
}

fn any_report() -> impl Strategy<Value = Report> {
    let attempt = prop_oneof![4 => Just(1u32), 1 => any::<u32>()];
    prop_oneof![
        1 => any::<u32>().prop_map(|slots| Report::Hello(Box::new(AgentHello { slots, ..AgentHello::default() }))),
        3 => any::<u32>().prop_map(|chunks| Report::Credit(Credit { chunks, bytes: 0 })),
        4 => (number(), attempt.clone(), number(), any::<u64>(), any::<bool>()).prop_map(|(chunk, attempt, first, busy_ns, failed)| {
            let (data, ends) = encode(&["a"]);
            Report::RunDone(RunDone { chunk, attempt, first, data, ends, busy_ns, failed })
        }),
        2 => (number(), attempt.clone(), number(), -1..14i32).prop_map(|(chunk, attempt, item, kind)| {
            let failure = Some(farpool_proto::v1::Failure { kind, ..Default::default() });
            Report::ItemFault(Box::new(ItemFault { chunk, attempt, item, failure }))
        }),
        2 => (number(), attempt, number(), number())
            .prop_map(|(chunk, attempt, first, count)| Report::Returned(Returned { chunk, attempt, first, count })),
        1 => number().prop_map(|pool| pool_fault(pool, FailureKind::Unavailable)),
        3 => number().prop_map(pool_started),
        1 => (number(), 0..4i32)
            .prop_map(|(pool, stream)| Report::Output(AgentOutput { pool, stream, ..AgentOutput::default() })),
        1 => Just(Report::Draining(Draining {})),
        1 => number().prop_map(pool_stopped),
    ]
}

#[derive(Clone, Debug)]
enum Noise {
    Request(Request),
    Report(Report),
    Schedule,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(doses::cases(1500)))]

    /// A client and an agent send arbitrary messages: nothing panics, and another client's map on another agent
    /// completes correctly as soon as the bad agent is gone.
    #[test]
    fn noise_affects_no_other_session(
        noise in prop::collection::vec(
            prop_oneof![3 => any_request().prop_map(Noise::Request), 3 => any_report().prop_map(Noise::Report), 1 => Just(Noise::Schedule)],
            1..60,
        ),
    ) {
        let mut wire = Wire::new();
        wire.starts_at_once = false;
        let (bad_client, good_client) = (wire.client(), wire.client());
        let bad_agent = wire.silent_agent();
        // Most noise is about an open session.
        let _ = wire.try_send(bad_client, open_pool(0));
        let _ = wire.try_report(bad_agent, Report::Hello(Box::new(AgentHello { slots: 2, ..AgentHello::default() })));
        for noise in noise {
            let _ = match noise {
                Noise::Request(send) => wire.try_send(bad_client, send),
                Noise::Report(report) => wire.try_report(bad_agent, report),
                Noise::Schedule => {
                    wire.schedule();
                    Ok(())
                }
            };
        }
        wire.client_gone(bad_client);
        wire.agent_gone(bad_agent);
        wire.to_clients[bad_client].clear();
        wire.to_agents[bad_agent].clear();
        wire.starts_at_once = true;
        let good_agent = wire.agent(1, 1);
        wire.send(good_client, open_pool(0));
        wire.send(good_client, open_job(0, 1, 0));
        wire.send(good_client, items(0, 0, &["a"]));
        wire.send(good_client, end_items(0));
        wire.schedule();
        let Some(farpool_proto::v1::agent_command::Body::Assign(assign)) = wire.to_agents[good_agent].pop_back() else {
            return Err(TestCaseError::fail("the good agent gets the item"));
        };
        wire.report(good_agent, done(&held(&assign)[0], 0, 1));
        wire.send(good_client, close(false));
        let pool = wire.to_agents[good_agent].iter().find_map(|command| match command {
            farpool_proto::v1::agent_command::Body::StopPool(stop) => Some(stop.pool),
            _ => None,
        });
        wire.report(good_agent, pool_stopped(pool.expect("the pool is stopped")));
        wire.to_agents[good_agent].clear();
        wire.expect(&[
            "client1: welcome",
            "client1: opened with 1 slots",
            r#"client1: job 0 done 0: ["A"]"#,
            "client1: job 0 ended",
            "client1: closed",
        ]);
        prop_assert!(wire.coordinator.is_idle());
    }
}
