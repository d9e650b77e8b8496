//! Errors that end a session.

use std::error::Error;
use std::fmt;

use farpool_proto::limits::BeyondLimit;

/// A message that was not allowed. Its session must be ended; nothing of the message was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    kind: RefusedKind,
}

impl Refused {
    /// Returns what was wrong.
    pub fn kind(&self) -> &RefusedKind {
        &self.kind
    }
}

/// What was wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusedKind {
    /// It has no body, or one of a newer version.
    Empty,
    /// A required part is missing.
    Missing(&'static str),
    /// It should have items and has none.
    NoItems,
    /// The length of `ends` is not a whole number of positions.
    EndsCut(usize),
    /// An item ends before it begins.
    EndsFall(u64),
    /// The last item does not end where the data ends.
    EndsMissData {
        /// Where the last item ends.
        last: u64,
        /// How long the data is.
        len: u64,
    },
    /// Indices that do not fit in 64 bits.
    IndexTooHigh(u64),
    /// Items that do not come after the previous ones.
    IndexTooLow {
        /// The index of the first of them.
        first: u64,
        /// The lowest allowed index.
        next: u64,
    },
    /// A pool whose program cannot be decoded, and why.
    Program(String),
    /// An item above the pool's limit.
    ItemTooLarge {
        /// Its index.
        item: u64,
        /// Its number of bytes.
        bytes: u64,
        /// The most bytes it may have.
        limit: u64,
    },
    /// More items than the client was granted room for.
    WindowOverrun {
        /// The client's number of the job.
        job: u64,
        /// How many bytes it may send until it is granted more.
        limit: u64,
    },
    /// A failure of an unknown or unspecified kind.
    FailureKind(i32),
    /// An unknown stream of output.
    OutputStream(i32),
    /// An agent's id that is not 16 bytes long.
    AgentIdLength(usize),
    /// A pool's id that is not 16 bytes long.
    PoolIdLength(usize),
    /// A ticket's id that is not 16 bytes long.
    TicketIdLength(usize),
    /// A pool that an agent holds, under a number that only coordinators use.
    HeldNumber(u64),
    /// A chunk that an agent holds, with runs that are empty or not sorted.
    HeldRuns(u64),
    /// A setting beyond its limit.
    BeyondLimit(BeyondLimit),
    /// A label without a key or a value.
    LabelEmpty,
    /// An agent without slots.
    NoSlots,
    /// The first message of a session must be this one.
    NotFirst(&'static str),
    /// This message is allowed once per session.
    Repeated(&'static str),
    /// No job of that number was opened.
    UnknownJob(u64),
    /// The number was used for a job before.
    JobNumberUsed(u64),
    /// The input of the job has ended.
    InputEnded(u64),
    /// No pool is being opened again, or all of it was resent already.
    NotReopening,
    /// A message that belongs in a session of its own, not in a pool's.
    Elsewhere(&'static str),
    /// The pool takes no more jobs.
    PoolClosed,
    /// The pool was not asked to stop.
    PoolRuns(u64),
    /// There is no such session.
    NoSession,
}

impl From<RefusedKind> for Refused {
    fn from(kind: RefusedKind) -> Self {
        Self { kind }
    }
}

impl From<BeyondLimit> for Refused {
    fn from(beyond: BeyondLimit) -> Self {
        RefusedKind::BeyondLimit(beyond).into()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use RefusedKind::*;
        match &self.kind {
            Empty => write!(f, "a message has no body that this version knows"),
            Missing(part) => write!(f, "message without its {part}"),
            NoItems => write!(f, "message about items without any"),
            EndsCut(len) => write!(f, "{len} bytes of item ends are not a multiple of 4"),
            EndsFall(at) => write!(f, "the item at position {at} ends before it starts"),
            EndsMissData { last, len } => write!(f, "the last item ends at {last} and the data at {len}"),
            IndexTooHigh(first) => write!(f, "items from {first} on go beyond the highest index"),
            IndexTooLow { first, next } => write!(f, "item {first} came, but {next} is the lowest allowed"),
            Program(why) => write!(f, "the pool's program: {why}"),
            ItemTooLarge { item, bytes, limit } => {
                write!(f, "item {item} has {bytes} bytes, and the pool's limit is {limit}")
            }
            WindowOverrun { job, limit } => {
                write!(f, "items for job {job} beyond the {limit} bytes that were granted; wait until its window grows")
            }
            FailureKind(kind) => write!(f, "failure of the unknown kind {kind}"),
            OutputStream(stream) => write!(f, "output on the unknown stream {stream}"),
            AgentIdLength(len) => write!(f, "an agent's id of {len} bytes instead of 16"),
            TicketIdLength(len) => write!(f, "a ticket's id of {len} bytes instead of 16"),
            PoolIdLength(len) => write!(f, "a pool's id of {len} bytes instead of 16"),
            HeldNumber(pool) => write!(f, "held pool {pool}: not a number that an agent may choose"),
            HeldRuns(chunk) => write!(f, "held chunk {chunk}: its runs of items are empty or not sorted"),
            BeyondLimit(beyond) => beyond.fmt(f),
            LabelEmpty => write!(f, "a label needs a key and a value"),
            NoSlots => write!(f, "an agent needs at least one slot"),
            NotFirst(first) => write!(f, "a session begins with {first}"),
            Repeated(what) => write!(f, "second {what} in a session"),
            UnknownJob(job) => write!(f, "job {job} was never opened"),
            JobNumberUsed(job) => write!(f, "job number {job} was used before"),
            InputEnded(job) => write!(f, "items for job {job} after the end of its input"),
            NotReopening => write!(f, "PoolReopened, but no pool is being reopened"),
            Elsewhere(what) => write!(f, "{what} in a pool's session; it needs one of its own"),
            PoolClosed => write!(f, "a job for a pool that was closed"),
            PoolRuns(pool) => write!(f, "pool {pool} stopped unasked"),
            NoSession => write!(f, "message on a session that has ended"),
        }
    }
}

impl Error for Refused {}
