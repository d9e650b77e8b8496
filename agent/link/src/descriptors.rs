//! Receives descriptors: every received one is owned, even if the message is rejected.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::{mem, ptr};

use nix::errno::Errno;
use nix::libc;

/// Most descriptors that a message can carry (SCM_MAX_FD).
const MAX_DESCRIPTORS: usize = 253;

/// A buffer with the alignment of control messages.
#[repr(C)]
struct Control<const BYTES: usize> {
    align: [libc::cmsghdr; 0],
    bytes: [u8; BYTES],
}

/// Returns the size of a control message with this many descriptors.
const fn control_bytes(descriptors: usize) -> usize {
    mem::size_of::<libc::cmsghdr>() + descriptors.next_multiple_of(2) * mem::size_of::<RawFd>()
}

/// Receives one packet. Returns its length and its descriptors: none, if not all of them could be opened in this
/// process.
///
/// # Errors
/// EBADMSG if the packet is longer than the buffer.
pub(super) fn receive(socket: BorrowedFd<'_>, packet: &mut [u8]) -> nix::Result<(usize, Vec<OwnedFd>)> {
    loop {
        match receive_with::<{ control_bytes(MAX_DESCRIPTORS) }>(socket, packet) {
            Err(Errno::EINTR) => {}
            received => return received,
        }
    }
}

/// Like [`receive`], for messages with at most two descriptors. A signal ends the wait (EINTR).
pub(super) fn receive_few(socket: BorrowedFd<'_>, packet: &mut [u8]) -> nix::Result<(usize, Vec<OwnedFd>)> {
    receive_with::<{ control_bytes(2) }>(socket, packet)
}

fn receive_with<const CONTROL_BYTES: usize>(
    socket: BorrowedFd<'_>,
    packet: &mut [u8],
) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut control = Control { align: [], bytes: [0; CONTROL_BYTES] };
    let mut buffer = libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: packet.len() };
    // SAFETY: a msghdr consists of numbers and pointers, for which zero is valid: no name, no buffers.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut buffer;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control.bytes).cast();
    message.msg_controllen = CONTROL_BYTES as _;
    // SAFETY: `message` points to `buffer`, which points to `packet`, and to `control`, each with its length. All of them
    // live, and are not accessed otherwise, until the call returns.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let length = Errno::result(received)?;
    let mut fds = take(&message);
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        fds.clear();
    }
    if message.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(Errno::EBADMSG);
    }
    Ok((usize::try_from(length).map_err(|_| Errno::EBADMSG)?, fds))
}

/// Takes ownership of the descriptors in the control messages of `message`, which the kernel has just written.
fn take(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the kernel has written well-formed control messages into the buffer, with their total length; the macros
    // only step through them. Data of a message may be unaligned. The descriptors were created for this process, so
    // nothing else owns them, and each is taken once.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                for at in 0..bytes / mem::size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(ptr::read_unaligned(data.add(at))));
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    fds
}
