//! Bytes that several processes map: a large function, or a shared value. The agent writes them once for all workers of a pool,
//! and sends each worker the file over its socket. Nobody can change a sealed file, so each process can read it in place.

use std::io::Write;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::fstat;

use crate::descriptors;

/// The byte that comes with a file. All other bytes only wake.
const WITH_FILE: u8 = 1;

/// A file in memory that cannot be changed any more.
#[derive(Debug)]
pub struct Sealed {
    file: OwnedFd,
    length: usize,
}

/// A file in memory that is being written.
#[derive(Debug)]
pub struct Unsealed {
    file: std::fs::File,
    written: usize,
}

/// What a worker reads from its socket.
#[derive(Debug)]
pub enum Received {
    /// Something was written to the ring.
    Wake,
    /// A file; an error if this process has reached its limit on open files.
    File(nix::Result<OwnedFd>),
    /// The agent has closed the connection.
    End,
}

impl Unsealed {
    /// Creates an empty file for this many bytes.
    ///
    /// # Errors
    /// If there are too many open files, and if this process must not write files of that size: writing would kill it.
    pub fn create(bytes: usize) -> nix::Result<Unsealed> {
        let (limit, _) = getrlimit(Resource::RLIMIT_FSIZE)?;
        if limit < bytes as u64 {
            return Err(Errno::EFBIG);
        }
        let file = memfd_create("farpool-shared", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        Ok(Unsealed { file: file.into(), written: 0 })
    }

    /// Returns how many bytes were written.
    pub fn written(&self) -> usize {
        self.written
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// If the memory for shared files is used up.
    pub fn append(&mut self, bytes: &[u8]) -> nix::Result<()> {
        self.file.write_all(bytes).map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
        self.written += bytes.len();
        Ok(())
    }

    /// Seals the file.
    ///
    /// # Errors
    /// None that could be expected.
    pub fn seal(self) -> nix::Result<Sealed> {
        let all = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&self.file, FcntlArg::F_ADD_SEALS(all))?;
        Ok(Sealed { file: self.file.into(), length: self.written })
    }
}

impl Sealed {
    /// Returns its size in bytes.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Sends the file to the worker at the other end, and wakes it.
    ///
    /// # Errors
    /// EAGAIN, if the worker has to read first.
    pub fn send(&self, socket: BorrowedFd<'_>) -> nix::Result<()> {
        let (byte, file) = ([WITH_FILE], [self.file.as_raw_fd()]);
        let (bytes, control) = ([std::io::IoSlice::new(&byte)], [ControlMessage::ScmRights(&file)]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        loop {
            match sendmsg::<()>(socket.as_raw_fd(), &bytes, &control, flags, None) {
                Err(Errno::EINTR) => {}
                sent => return sent.map(drop),
            }
        }
    }
}

/// Waits for the agent: a worker's side of [`Sealed::send`].
///
/// # Errors
/// Those of recvmsg(2); EINTR too.
pub fn receive(socket: BorrowedFd<'_>) -> nix::Result<Received> {
    let mut bytes = [0; 64];
    // The kernel ends a read after a byte that comes with a file. So there is at most one, and it is the last.
    let (length, mut files) = descriptors::receive_few(socket, &mut bytes)?;
    Ok(match bytes[..length.min(64)].last() {
        None => Received::End,
        Some(&WITH_FILE) => Received::File(files.pop().ok_or(Errno::EMFILE)),
        Some(_) => Received::Wake,
    })
}

/// A sealed file, mapped read-only.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone, is not tied to a thread, and its content never changes.
unsafe impl Send for Mapping {}
// SAFETY: as above: `&Mapping` only gives read access.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps a sealed file of this size.
    ///
    /// # Errors
    /// EBADMSG if the file has another size or is not sealed; ENOMEM if this process may not have that much memory.
    pub fn open(file: BorrowedFd<'_>, length: usize) -> nix::Result<Mapping> {
        let needed = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK;
        let seals = SealFlag::from_bits_truncate(fcntl(file, FcntlArg::F_GET_SEALS)?);
        let bytes = usize::try_from(fstat(file)?.st_size).map_err(|_| Errno::EBADMSG)?;
        if !seals.contains(needed) || bytes != length {
            return Err(Errno::EBADMSG);
        }
        let Some(size) = NonZeroUsize::new(length) else { return Ok(Mapping { base: NonNull::dangling(), length }) };
        // Private, since kernels before 6.7 refuse a shared mapping of a sealed file. No page is copied, as nobody writes.
        // SAFETY: a new mapping at an address that the kernel chooses overlaps nothing.
        let base = unsafe { mmap(None, size, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, file, 0)? };
        Ok(Mapping { base: base.cast(), length })
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `length` bytes are mapped for as long as `self` lives. The file is at least as long and sealed, so it can
        // neither shrink nor change.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.length) }
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: exactly the mapping made in `open`; nothing borrowed from `self` outlives it.
            let unmapped = unsafe { munmap(self.base.cast(), self.length) };
            debug_assert!(unmapped.is_ok(), "a mapping of this process can be unmapped");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, send, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).expect("there are sockets")
    }

    fn sealed(bytes: &[u8]) -> Sealed {
        let mut file = Unsealed::create(bytes.len()).expect("there are files");
        bytes.chunks(1000).for_each(|part| file.append(part).expect("there is memory"));
        assert_eq!(file.written(), bytes.len());
        file.seal().expect("a new file can be sealed")
    }

    #[test]
    fn files_arrive_in_order_between_wakes() {
        let (ours, theirs) = pair();
        let wake = || send(ours.as_raw_fd(), &[0], MsgFlags::MSG_DONTWAIT).map(drop).expect("there is room");
        let values: Vec<Vec<u8>> = (0..5_u8).map(|number| vec![number; 1000 * usize::from(number)]).collect();
        for value in &values {
            wake();
            sealed(value).send(ours.as_fd()).expect("there is room");
            wake();
        }
        drop(ours);
        let (mut found, mut wakes) = (Vec::new(), 0);
        loop {
            match receive(theirs.as_fd()).expect("the socket is open") {
                Received::End => break,
                Received::Wake => wakes += 1,
                Received::File(file) => found.push(file.expect("few files are open")),
            }
        }
        assert!(wakes > 0);
        assert_eq!(found.len(), values.len());
        for (file, value) in found.iter().zip(&values) {
            let mapping = Mapping::open(file.as_fd(), value.len()).expect("the file is sealed");
            assert_eq!(*mapping, value[..]);
        }
    }

    #[test]
    fn a_full_socket_is_reported() {
        let ((ours, theirs), file) = (pair(), sealed(b"value"));
        let sent = (0..100_000).find_map(|number| file.send(ours.as_fd()).err().map(|error| (number, error)));
        assert!(matches!(sent, Some((1.., Errno::EAGAIN | Errno::ETOOMANYREFS))), "{sent:?}");
        drop(theirs);
        assert_eq!(file.send(ours.as_fd()), Err(Errno::EPIPE));
    }

    #[test]
    fn other_files_are_not_mapped() {
        let file = sealed(b"value");
        for length in [0, 4, 6, usize::MAX] {
            assert_eq!(Mapping::open(file.file.as_fd(), length).err(), Some(Errno::EBADMSG), "{length}");
        }
        let mut unsealed = Unsealed::create(5).expect("there are files");
        unsealed.append(b"value").expect("there is memory");
        assert_eq!(Mapping::open(unsealed.file.as_fd(), 5).err(), Some(Errno::EBADMSG));
        assert_eq!(*Mapping::open(file.file.as_fd(), 5).expect("the file is sealed"), *b"value");
    }
}
