//! The records that travel through the rings: a header of 16 bytes and a payload.
//!
//! Agent to worker, in the order in which a worker reads them:
//!
//! | kind | `tag` | `position` | payload |
//! |---|---|---|---|
//! | Setup | - | - | `WorkerSettings` (protobuf) |
//! | LargeSetup | - | - | instead of Setup: [`LargeHeader`]; the settings follow as Piece records |
//! | Function | function | - | what the program needs to find it |
//! | LargeFunction | function | - | instead of Function: [`LargeHeader`]; it is in a [sealed](crate::sealed) file |
//! | Shared | shared value | - | [`LargeHeader`]; the value is in a [sealed](crate::sealed) file. Another length: why it is not here |
//! | Run | function | of the first item | [`RunHeader`], `ends` (u32 each), the items |
//! | Large | function | of the item | [`LargeHeader`]; its bytes follow as Piece records |
//! | Piece | - | - | the next bytes of what the last LargeSetup or Large announced |
//! | Resume | - | - | none: all revoked items are before this record |
//! | Forget | function or shared value | - | none: the job is over |
//! | Stop | - | - | none: exit |
//!
//! Worker to agent: Ready (u32: its process id); InitFailed and Failed (`Failure`, protobuf); Ok (the result); Large (u64: its length)
//! with Pieces; RunEnd (u64: nanoseconds since the Run began); Resumed. `position` identifies the item. In Ok and Large, a `tag`
//! of 1 means that the item counts as failed, though it has a result.

/// Bytes of a record's header.
pub const HEADER_BYTES: usize = 16;
/// Largest payload of one record; larger ones travel as Large and Pieces.
pub const MAX_PAYLOAD: usize = super::memory::RING_BYTES / 2 - HEADER_BYTES;
/// Largest payload of a Piece: small enough that writer and reader work at the same time.
pub const PIECE_BYTES: usize = 256 << 10;

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the table above says what each one is")]
pub enum Kind {
    Setup = 1,
    Function = 2,
    Run = 3,
    Large = 4,
    Piece = 5,
    Resume = 6,
    Forget = 7,
    Stop = 8,
    LargeSetup = 9,
    LargeFunction = 10,
    Shared = 11,
    Ready = 16,
    InitFailed = 17,
    Ok = 18,
    Failed = 19,
    RunEnd = 20,
    Resumed = 21,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Setup,
            2 => Kind::Function,
            3 => Kind::Run,
            4 => Kind::Large,
            5 => Kind::Piece,
            6 => Kind::Resume,
            7 => Kind::Forget,
            8 => Kind::Stop,
            9 => Kind::LargeSetup,
            10 => Kind::LargeFunction,
            11 => Kind::Shared,
            16 => Kind::Ready,
            17 => Kind::InitFailed,
            18 => Kind::Ok,
            19 => Kind::Failed,
            20 => Kind::RunEnd,
            21 => Kind::Resumed,
            _ => return None,
        })
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of payload after the header.
    pub length: u32,
    /// The kind of the record.
    pub kind: Kind,
    /// As the table above says: the agent's number of a function or shared value, or 1 for a result that counts as failed.
    pub tag: u32,
    /// The position of the item that it is about, in the worker's stream of items.
    pub position: u32,
}

impl Header {
    /// Writes the header to the front of `bytes`, which must have [`HEADER_BYTES`].
    pub fn write(self, bytes: &mut [u8]) {
        bytes[0..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..8].copy_from_slice(&u32::from(self.kind as u8).to_le_bytes());
        bytes[8..12].copy_from_slice(&self.tag.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.position.to_le_bytes());
    }

    /// Reads a header from the front of `bytes`; `None` if it is malformed or announces too large a payload.
    pub fn read(bytes: &[u8]) -> Option<Header> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let length = word(0)?;
        let kind = Kind::from_byte(u8::try_from(word(4)?).ok()?)?;
        (length as usize <= MAX_PAYLOAD).then_some(Header { length, kind, tag: word(8)?, position: word(12)? })
    }
}

/// The header of a Run, before its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunHeader {
    /// Number of items.
    pub count: u32,
    /// The offset that the ends are relative to.
    pub start: u32,
    /// Whether the items have a timeout, so that the worker records when each begins.
    pub timed: bool,
}

impl RunHeader {
    /// Size of an encoded [`RunHeader`].
    pub const BYTES: usize = 12;

    /// Writes it to the front of `bytes`.
    pub fn write(self, bytes: &mut [u8]) {
        bytes[0..4].copy_from_slice(&self.count.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.start.to_le_bytes());
        bytes[8..12].copy_from_slice(&u32::from(self.timed).to_le_bytes());
    }

    /// Reads a header, and returns the bytes after it.
    pub fn read(bytes: &[u8]) -> Option<(RunHeader, &[u8])> {
        let (head, rest) = bytes.split_at_checked(Self::BYTES)?;
        let word = |at: usize| Some(u32::from_le_bytes(head[at..at + 4].try_into().ok()?));
        Some((RunHeader { count: word(0)?, start: word(4)?, timed: word(8)? != 0 }, rest))
    }
}

/// The header of a large item, before its pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeHeader {
    /// Bytes of the item.
    pub length: u64,
    /// Whether it has a timeout.
    pub timed: bool,
}

impl LargeHeader {
    /// Size of an encoded [`LargeHeader`].
    pub const BYTES: usize = 16;

    /// Encodes the header.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8] = u8::from(self.timed);
        bytes
    }

    /// Decodes a header.
    pub fn read(bytes: &[u8]) -> Option<LargeHeader> {
        let length = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
        Some(LargeHeader { length, timed: *bytes.get(8)? != 0 })
    }
}
