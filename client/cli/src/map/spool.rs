//! Spool files: unnamed files on this machine for outputs that are too large for memory. Each writer reserves parts of
//! the file, so that one file serves all workers.

use std::env;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, SpliceFFlags, splice};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::unistd::unlink;
use serde::{Deserialize, Serialize};

/// A part of a spool file. It never changes once written: spliced data may not have been read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extent {
    pub(super) at: u64,
    pub(super) length: u64,
}

/// The client's spool files. A large file is followed by a new one, and is deleted when nothing in it is needed.
pub(super) struct Spool {
    folder: PathBuf,
    current: Option<Rc<SpoolFile>>,
}

/// An unnamed file. Other processes of this machine reach it by its [`path`](Self::path) while it is open.
#[derive(Debug)]
pub(super) struct SpoolFile(File);

/// Writes an output into a spool file.
#[derive(Debug)]
pub(super) struct SpoolWriter {
    file: File,
    extents: Vec<Extent>,
    /// Unused bytes of the last reserved part.
    room: u64,
}

/// The first part that a writer reserves, and the largest.
const MIN_RESERVED: u64 = 1 << 20;
const MAX_RESERVED: u64 = 64 << 20;
/// A file of this size is not used for further items.
const LARGE_FILE: u64 = 64 << 20;
/// Bytes moved at once.
const PORTION_BYTES: usize = 1 << 20;

impl Spool {
    /// Creates a spool in the directory for temporary files.
    pub(super) fn new() -> Spool {
        Spool { folder: env::temp_dir(), current: None }
    }

    /// Returns the file for the next item. If file sizes are limited, each item gets its own, so that none uses up
    /// another's room.
    pub(super) fn file(&mut self) -> io::Result<Rc<SpoolFile>> {
        if let Some(file) = &self.current
            && file.0.metadata()?.len() < LARGE_FILE
            && getrlimit(Resource::RLIMIT_FSIZE)?.0 == RLIM_INFINITY
        {
            return Ok(Rc::clone(file));
        }
        let file = Rc::new(SpoolFile(unnamed(&self.folder)?));
        self.current = Some(Rc::clone(&file));
        Ok(file)
    }

    /// Returns the directory, for errors.
    pub(super) fn folder(&self) -> &std::path::Path {
        &self.folder
    }
}

impl SpoolFile {
    /// Returns the path by which workers on this machine open it.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd()).into()
    }

    /// Writes bytes into the file.
    pub(super) fn keep(&self, bytes: &[u8]) -> io::Result<Vec<Extent>> {
        let mut writer = SpoolWriter { file: self.0.try_clone()?, extents: Vec::new(), room: 0 };
        writer.write(bytes)?;
        Ok(writer.extents)
    }

    /// Copies a part of the file to `out`, without passing through memory if the system can.
    pub(super) fn send(&self, extent: Extent, out: &File) -> io::Result<()> {
        let end = extent.at + extent.length;
        let mut at = offset(extent.at)?;
        while (at.cast_unsigned()) < end {
            let most = usize::try_from(end - at.cast_unsigned()).unwrap_or(usize::MAX).min(PORTION_BYTES);
            match splice(&self.0, Some(&mut at), out, None, most, SpliceFFlags::empty()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::EINTR) => {}
                // splice(2) needs a pipe.
                Err(Errno::EINVAL) => {
                    let rest = Extent { at: at.cast_unsigned(), length: end - at.cast_unsigned() };
                    return self.read(rest, |portion| io::Write::write_all(&mut &*out, portion));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads a part of the file.
    pub(super) fn read(&self, extent: Extent, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = vec![0; PORTION_BYTES.min(usize::try_from(extent.length).unwrap_or(PORTION_BYTES))];
        let (mut at, end) = (extent.at, extent.at + extent.length);
        while at < end {
            let most = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            self.0.read_exact_at(&mut buffer[..most], at)?;
            take(&buffer[..most])?;
            at += most as u64;
        }
        Ok(())
    }
}

impl SpoolWriter {
    /// Opens the file with this path.
    pub(super) fn open(path: &std::path::Path) -> io::Result<SpoolWriter> {
        let file = OpenOptions::new().write(true).open(path)?;
        Ok(SpoolWriter { file, extents: Vec::new(), room: 0 })
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let at = self.make_room(bytes.len())?;
            let most = bytes.len().min(usize::try_from(self.room).unwrap_or(usize::MAX));
            self.file.write_all_at(&bytes[..most], at)?;
            self.wrote(most);
            bytes = &bytes[most..];
        }
        Ok(())
    }

    /// Moves data from a pipe. Returns the number of bytes, 0 at the end. WouldBlock if there is nothing now.
    pub(super) fn take_from(&mut self, pipe: &File) -> io::Result<usize> {
        let mut at = offset(self.make_room(1)?)?;
        let most = PORTION_BYTES.min(usize::try_from(self.room).unwrap_or(usize::MAX));
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
        match splice(pipe, None, &self.file, Some(&mut at), most, flags) {
            Ok(moved) => {
                self.wrote(moved);
                Ok(moved)
            }
            // This file system does not support splice(2).
            Err(Errno::EINVAL) => {
                let mut buffer = vec![0; 64 << 10];
                let read = io::Read::read(&mut &*pipe, &mut buffer)?;
                self.write(&buffer[..read])?;
                Ok(read)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn into_extents(self) -> Vec<Extent> {
        self.extents
    }

    /// Returns where to write next, and reserves room if there is none.
    fn make_room(&mut self, wanted: usize) -> io::Result<u64> {
        if self.room == 0 {
            let before = self.extents.last().map_or(0, |extent| extent.length);
            let room = (2 * before).max(wanted as u64).clamp(MIN_RESERVED, MAX_RESERVED);
            let at = reserve(&self.file, room)?;
            self.extents.push(Extent { at, length: 0 });
            self.room = room;
        }
        Ok(self.extents.last().map_or(0, |extent| extent.at + extent.length))
    }

    fn wrote(&mut self, bytes: usize) {
        self.room -= bytes as u64;
        if let Some(extent) = self.extents.last_mut() {
            extent.length += bytes as u64;
        }
    }
}

/// Extends the file, and returns where the new part begins. No other writer gets the same part.
fn reserve(file: &File, bytes: u64) -> io::Result<u64> {
    file.lock()?;
    let reserved = file.metadata().and_then(|metadata| {
        let (at, end) = (metadata.len(), metadata.len() + bytes);
        // Beyond the limit the kernel would kill this process.
        if end > getrlimit(Resource::RLIMIT_FSIZE)?.0 {
            return Err(io::Error::from(Errno::EFBIG));
        }
        file.set_len(end)?;
        Ok(at)
    });
    file.unlock()?;
    reserved
}

fn offset(at: u64) -> io::Result<i64> {
    i64::try_from(at).map_err(|_| Errno::EFBIG.into())
}

fn unnamed(folder: &std::path::Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.clone().custom_flags(OFlag::O_TMPFILE.bits()).open(folder) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) => {}
        made => return made,
    }
    // The file system does not support unnamed files.
    let path = folder.join(format!("farpool-{}-{:x}", process::id(), rand_bits()));
    let file = options.create_new(true).open(&path)?;
    unlink(&path)?;
    Ok(file)
}

fn rand_bits() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_of(file: &SpoolFile, extents: &[Extent]) -> Vec<u8> {
        let mut all = Vec::new();
        for extent in extents {
            file.read(*extent, |bytes| {
                all.extend_from_slice(bytes);
                Ok(())
            })
            .unwrap();
        }
        all
    }

    #[test]
    fn concurrent_writers_do_not_mix() {
        let mut spool = Spool::new();
        let file = spool.file().unwrap();
        let mut writers = [SpoolWriter::open(&file.path()).unwrap(), SpoolWriter::open(&file.path()).unwrap()];
        for round in 0..7 {
            for (byte, writer) in (b'a'..).zip(&mut writers) {
                writer.write(&vec![byte; 700_000 + round]).unwrap();
            }
        }
        for (byte, writer) in (b'a'..).zip(writers) {
            let all = all_of(&file, &writer.into_extents());
            assert_eq!((all.len(), all.iter().all(|other| *other == byte)), (4_900_021, true));
        }
    }

    #[test]
    fn a_large_file_is_followed_by_another() {
        let mut spool = Spool::new();
        let first = spool.file().unwrap();
        assert!(Rc::ptr_eq(&first, &spool.file().unwrap()));
        let extents = first.keep(&vec![7; LARGE_FILE as usize]).unwrap();
        assert!(!Rc::ptr_eq(&first, &spool.file().unwrap()));
        assert_eq!(extents.iter().map(|extent| extent.length).sum::<u64>(), LARGE_FILE);
    }

    #[test]
    fn pipes_are_spooled_and_sent() {
        let file = Spool::new().file().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        io::Write::write_all(&mut writer, &[b'x'; 50_000]).unwrap();
        drop(writer);
        let reader = File::from(std::os::fd::OwnedFd::from(reader));
        let mut into = SpoolWriter::open(&file.path()).unwrap();
        while into.take_from(&reader).unwrap() > 0 {}
        let [extent] = into.into_extents()[..] else { panic!("one part is enough") };
        assert_eq!(extent.length, 50_000);
        let (mut out, pipe) = io::pipe().unwrap();
        file.send(extent, &File::from(std::os::fd::OwnedFd::from(pipe))).unwrap();
        let mut all = Vec::new();
        io::Read::read_to_end(&mut out, &mut all).unwrap();
        assert_eq!(all, [b'x'; 50_000]);
    }
}
