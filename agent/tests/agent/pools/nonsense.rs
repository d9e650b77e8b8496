//! Random commands from a seed: the agent refuses or executes them, and all processes end.

use std::time::{Duration, Instant};

use farpool_proto::v1::{
    Assign, Chunk, Drain, EndJob, ResizePool, Retract, Segment, StartJob, StartPool, StopPool, WorkerSettings,
};

use crate::pools::host::{Event, Host, program, segment, start};
use crate::pools::protocol::Command;

crate::pools::cases![random_commands_do_no_harm];

/// The number of commands for one seed. A session ends at the first refused command, so there are many sessions.
const COMMANDS: usize = 120;
const SEEDS: u64 = 24;

fn random_commands_do_no_harm() {
    for seed in 0..SEEDS {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut host = Host::new(u32::try_from(random.below(3)).unwrap() + 1);
        let mut refused = 0;
        for _ in 0..COMMANDS {
            if random.below(6) == 0 {
                let pool = random.below(4);
                let does = ["serves", "serves", "complains"][random.index(3)];
                refused += u32::from(host.agent.start_pool(start_pool(&mut random, pool), program(does)).is_err());
            } else {
                let command = command(&mut random);
                refused += u32::from(host.try_send(command).is_err());
            }
            if random.below(4) == 0 {
                let until = Instant::now() + Duration::from_millis(random.below(4));
                host.drive(until, |_, _| None::<()>);
            }
        }
        assert!(refused > 0, "seed {seed}: nothing was nonsense");
        let started = host.events.iter().filter(|event| matches!(event, Event::PoolStarted(_))).count();
        assert!(started > 0 || seed > 0, "seed {seed}: no pool was started");
        host.end();
    }
}

fn command(random: &mut Random) -> Command {
    let (pool, job) = (random.below(5), random.below(8));
    match random.below(16) {
        0 => Command::StartPool(Box::new(start_pool(random, pool))),
        1 => Command::StopPool(StopPool { pool, now: random.below(2) == 0 }),
        2 => Command::EndJob(EndJob { job, kill: random.below(2) == 0 }),
        3 => Command::ResizePool(ResizePool { pool, processes: random.number() }),
        4 => Command::Retract(Retract { chunks: (0..random.below(4)).map(|_| random.below(40)).collect() }),
        5 if random.below(20) == 0 => Command::Drain(Drain {}),
        6..9 => {
            let timeout_ns = [0, 1, 1_000_000, u64::MAX][random.index(4)];
            let whole_chunks = random.below(2) == 0;
            let (function, shared) = (vec![1].into(), random.below(4) == 0);
            Command::StartJob(StartJob { pool, job, function, timeout_ns, whole_chunks, number: job, shared })
        }
        _ => Command::Assign(assign(random)),
    }
}

fn start_pool(random: &mut Random, pool: u64) -> StartPool {
    let settings = WorkerSettings {
        max_tasks_per_child: random.below(4),
        max_chunks_per_child: random.below(4),
        // This program's workers run one item at a time.
        threads: 1,
        initializer_timeout_ns: [0, u64::MAX][random.index(2)],
        ..start().settings.unwrap_or_default()
    };
    let (processes, weight, settings) = (random.number(), random.number(), Some(settings));
    StartPool { pool, processes, weight, settings, ..StartPool::default() }
}

fn assign(random: &mut Random) -> Assign {
    let mut assign = Assign::default();
    for _ in 0..random.below(5) {
        let segments = u32::try_from(random.below(3)).unwrap() + u32::from(random.below(9) > 0);
        let first = if random.below(9) == 0 { u64::MAX - 1 } else { random.below(100) };
        let (chunk, job, attempt) = (random.below(40), random.below(8), random.number());
        assign.chunks.push(Chunk { chunk, job, first, attempt, segments });
        for _ in 0..segments {
            let item = ["echo a", "sleep 1", "sleep 3", "out x", "err y\n", "exit 1", "echo"][random.index(7)];
            assign.segments.push(match random.below(30) {
                0 => Segment { start: random.number(), ..segment(item) },
                1 => Segment { ends: vec![0xff; random.index(9)].into(), ..segment(item) },
                _ => segment(item),
            });
        }
    }
    if random.below(20) == 0 {
        assign.segments.push(segment("echo too many"));
    }
    assign
}

/// xorshift64: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("a small number")
    }

    /// Returns a small number, or one at the end of the range.
    fn number(&mut self) -> u32 {
        [0, 1, 2, 3, u32::MAX][self.index(5)]
    }
}
