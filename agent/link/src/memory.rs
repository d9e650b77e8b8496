//! The memory that an agent and one of its workers share: a status page and two rings.
//!
//! It is one sealed memfd. Each ring is mapped twice in a row, so that every part of it is contiguous in the address
//! space and no code handles a wrap-around:
//!
//! ```text
//! address space  | status | to worker | to worker again | to agent | to agent again |
//! file           | status | to worker |                   to agent |
//! ```

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use nix::sys::resource::{Resource, getrlimit};

use super::status::{STATUS_BYTES, Status};

/// Bytes of one ring. Large enough for a few 1 MiB payloads, small enough to stay near the processor's caches. Unused
/// pages cost nothing.
pub const RING_BYTES: usize = 4 << 20;
const FILE_BYTES: usize = STATUS_BYTES + 2 * RING_BYTES;
const MAPPED_BYTES: usize = STATUS_BYTES + 4 * RING_BYTES;

/// Checks that this process may create a [`Memory`].
///
/// # Errors
/// If the limit on file sizes is lower than the size of the memory.
pub fn check_file_limit() -> Result<(), String> {
    let Some(limit) = too_low_file_limit() else { return Ok(()) };
    Err(format!(
        "files are limited to {limit} bytes (ulimit -f), but the memory that is shared with a worker has {FILE_BYTES}: \
         raise the limit to {} KiB or more",
        FILE_BYTES.div_ceil(1024)
    ))
}

/// Returns the limit on this process's file sizes, if it is too low: exceeding it kills the process (SIGXFSZ).
fn too_low_file_limit() -> Option<u64> {
    // An error would mean that the system has no such limit.
    let (limit, _) = getrlimit(Resource::RLIMIT_FSIZE).ok()?;
    (limit < FILE_BYTES as u64).then_some(limit)
}

/// The direction of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Written by the agent, read by the worker.
    ToWorker,
    /// Written by the worker, read by the agent.
    ToAgent,
}

/// The mapping of a shared memory in this process; unmapped when dropped.
#[derive(Debug)]
pub struct Memory {
    base: NonNull<u8>,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread. Its content is accessed through atomics
// (`Status`) or under the rings' protocol (`ring`), which is sound from any thread.
unsafe impl Send for Memory {}
// SAFETY: as above: `&Memory` only hands out atomics and raw addresses.
unsafe impl Sync for Memory {}

impl Memory {
    /// Creates a shared memory. The descriptor is for the worker, which maps it with [`Memory::open`].
    pub fn create() -> nix::Result<(Memory, OwnedFd)> {
        if too_low_file_limit().is_some() {
            return Err(Errno::EFBIG);
        }
        let file = memfd_create("farpool-worker", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        nix::unistd::ftruncate(&file, i64::try_from(FILE_BYTES).expect("a small constant"))?;
        // If the file could shrink, reading the mapping would raise SIGBUS.
        fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL))?;
        let memory = Memory::open(file.as_fd())?;
        memory.status().initialise();
        Ok((memory, file))
    }

    /// Maps a shared memory that [`Memory::create`] created, perhaps in another process.
    pub fn open(file: BorrowedFd<'_>) -> nix::Result<Memory> {
        let whole = NonZeroUsize::new(MAPPED_BYTES).expect("a positive constant");
        // SAFETY: a fresh anonymous mapping at an address that the kernel chooses overlaps nothing.
        let base = unsafe {
            mmap_anonymous(None, whole, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE)?
        };
        let memory = Memory { base: base.cast() };
        let parts = [
            (0, 0, STATUS_BYTES),
            (STATUS_BYTES, STATUS_BYTES, RING_BYTES),
            (STATUS_BYTES + RING_BYTES, STATUS_BYTES, RING_BYTES),
            (STATUS_BYTES + 2 * RING_BYTES, STATUS_BYTES + RING_BYTES, RING_BYTES),
            (STATUS_BYTES + 3 * RING_BYTES, STATUS_BYTES + RING_BYTES, RING_BYTES),
        ];
        for (at, offset, length) in parts {
            let address = NonZeroUsize::new(memory.base.as_ptr() as usize + at);
            // SAFETY: the address range lies inside the reservation made above, which nothing else uses yet.
            unsafe {
                mmap(
                    address,
                    NonZeroUsize::new(length).expect("a positive constant"),
                    ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                    MapFlags::MAP_SHARED | MapFlags::MAP_FIXED,
                    file,
                    i64::try_from(offset).expect("a small constant"),
                )?;
            }
        }
        Ok(memory)
    }

    /// Returns the status page.
    pub fn status(&self) -> &Status {
        // SAFETY: the status page is mapped for as long as `self` lives, page-aligned, large enough (asserted
        // beside `Status`), and consists of atomics only, for which every bit pattern is a value.
        unsafe { self.base.cast::<Status>().as_ref() }
    }

    /// Returns the start of a ring, from which `2 * RING_BYTES` bytes are mapped.
    pub(super) fn ring(&self, direction: Direction) -> NonNull<u8> {
        let offset = match direction {
            Direction::ToWorker => STATUS_BYTES,
            Direction::ToAgent => STATUS_BYTES + 2 * RING_BYTES,
        };
        // SAFETY: the offset lies inside the mapping.
        unsafe { self.base.add(offset) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: exactly the reservation made in `open`; nothing borrowed from `self` outlives it.
        let unmapped = unsafe { munmap(self.base.cast(), MAPPED_BYTES) };
        debug_assert!(unmapped.is_ok(), "a mapping of this process can be unmapped");
    }
}
