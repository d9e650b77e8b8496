//! The objects of which this process is made: the program, and the shared objects that it has loaded.
//!
//! The loader places each object at a different address in each process, as a whole. So a place is identified by its object and
//! by its offset in the object.

#![expect(unsafe_code, reason = "what the loader says of its objects; argued at each block")]

use std::ffi::{CStr, c_int, c_void};
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(target_pointer_width = "32")]
use libc::Elf32_Phdr as ProgramHeader;
#[cfg(target_pointer_width = "64")]
use libc::Elf64_Phdr as ProgramHeader;

use super::hash;

/// The identifier of the program itself, whatever its build.
const PROGRAM: u64 = 0;
/// The identifier of no object that the loader knows.
const NONE: u64 = u64::MAX;
const GNU_BUILD_ID: u32 = 3;

/// A place in an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The object, by a hash of its build's id, or of its file's name if the build has none.
    pub(super) object: u64,
    /// The offset in the object, in bytes.
    pub(super) offset: u64,
    /// The object's file name, unless it is the program.
    pub(super) name: Vec<u8>,
}

/// Returns the place of `address`.
pub(super) fn place(address: usize) -> Place {
    let (start, end) = program();
    if (start..end).contains(&address) {
        return Place { object: PROGRAM, offset: (address - start) as u64, name: Vec::new() };
    }
    let found = find(|object| {
        object.has(address, 1).then(|| Place {
            object: object.id(),
            offset: address.wrapping_sub(object.start()) as u64,
            name: object.file_name().to_vec(),
        })
    });
    found.unwrap_or_else(|| Place { object: NONE, offset: 0, name: Vec::new() })
}

/// Returns the address of a place in this process, if this many bytes are loaded and readable there. `None` if its object is not
/// loaded.
pub(super) fn address(object: u64, offset: u64, bytes: usize) -> Option<Option<usize>> {
    find(|loaded| {
        (loaded.id() == object).then(|| {
            let address = loaded.start().checked_add(usize::try_from(offset).ok()?)?;
            loaded.has(address, bytes).then_some(address)
        })
    })
}

/// Returns whether the program was started as an argument of the loader (`ld.so ./program`), which is then what
/// /proc/self/exe is.
pub(crate) fn was_started_by_loader() -> bool {
    // SAFETY: getauxval(3) only looks up a number.
    let interpreter = unsafe { libc::getauxval(libc::AT_BASE) };
    // The kernel has loaded no interpreter, though the program asks for one.
    interpreter == 0
        && find(|object| {
            Some(object.is_program && object.headers.iter().any(|header| header.p_type == libc::PT_INTERP))
        }) == Some(true)
}

/// Returns the program's address range. Determined once, without a lock: a fork of this process could find a lock held.
fn program() -> (usize, usize) {
    static START: AtomicUsize = AtomicUsize::new(0);
    static END: AtomicUsize = AtomicUsize::new(0);
    if END.load(Ordering::Acquire) == 0 {
        let (start, end) = find(|object| Some((object.start(), object.end()))).unwrap_or_default();
        // All threads that get here find the same value.
        START.store(start, Ordering::Relaxed);
        END.store(end, Ordering::Release);
    }
    (START.load(Ordering::Relaxed), END.load(Ordering::Relaxed))
}

/// An object that is loaded.
struct Object<'a> {
    is_program: bool,
    base: usize,
    path: &'a CStr,
    headers: &'a [ProgramHeader],
}

impl Object<'_> {
    fn id(&self) -> u64 {
        if self.is_program {
            return PROGRAM;
        }
        let id = hash(self.build_id().unwrap_or(self.file_name()));
        // These two values are reserved.
        id.clamp(PROGRAM + 1, NONE - 1)
    }

    fn file_name(&self) -> &[u8] {
        self.path.to_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or_default()
    }

    /// Returns the memory segments that were loaded from its file.
    fn segments(&self) -> impl Iterator<Item = (&ProgramHeader, usize, usize)> {
        self.headers.iter().filter(|header| header.p_type == libc::PT_LOAD).map(|header| {
            let start = self.base.wrapping_add(header.p_vaddr as usize);
            (header, start, start.saturating_add(header.p_memsz as usize))
        })
    }

    fn start(&self) -> usize {
        self.segments().map(|(_, start, _)| start).min().unwrap_or_default()
    }

    fn end(&self) -> usize {
        self.segments().map(|(.., end)| end).max().unwrap_or_default()
    }

    /// Returns whether it has this many readable bytes there.
    fn has(&self, address: usize, bytes: usize) -> bool {
        let readable = |header: &ProgramHeader| header.p_flags & libc::PF_R != 0;
        self.segments().any(|(header, start, end)| {
            readable(header) && start <= address && address.checked_add(bytes).is_some_and(|behind| behind <= end)
        })
    }

    /// Returns the build id that the linker has written, if there is one.
    fn build_id(&self) -> Option<&[u8]> {
        self.headers.iter().filter(|header| header.p_type == libc::PT_NOTE).find_map(|header| {
            let (start, bytes) = (self.base.wrapping_add(header.p_vaddr as usize), header.p_memsz as usize);
            if !self.has(start, bytes) {
                return None;
            }
            // SAFETY: the bytes lie in a segment that is loaded and can be read, and nobody writes to notes.
            let notes = unsafe { slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(start), bytes) };
            build_id_of(notes)
        })
    }
}

/// Finds the build id among an object's notes.
fn build_id_of(mut notes: &[u8]) -> Option<&[u8]> {
    loop {
        let (head, rest) = notes.split_at_checked(12)?;
        let number = |at: usize| head[at..at + 4].first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        let (name_bytes, id_bytes, kind) = (number(0)? as usize, number(4)? as usize, number(8)?);
        let (name, rest) = rest.split_at_checked(name_bytes.checked_next_multiple_of(4)?)?;
        if kind == GNU_BUILD_ID && name == b"GNU\0" {
            return rest.get(..id_bytes).filter(|id| !id.is_empty());
        }
        notes = rest.get(id_bytes.checked_next_multiple_of(4)?..)?;
    }
}

/// Calls `look` with each loaded object, the program first, and returns the first answer.
fn find<T>(look: impl FnMut(&Object<'_>) -> Option<T>) -> Option<T> {
    struct Search<L, T> {
        look: L,
        begun: bool,
        found: Option<T>,
    }

    unsafe extern "C" fn visit<T, L: FnMut(&Object<'_>) -> Option<T>>(
        info: *mut libc::dl_phdr_info,
        _: libc::size_t,
        search: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader passes on what it was given below, which nobody else uses meanwhile, ...
        let search = unsafe { &mut *search.cast::<Search<L, T>>() };
        // SAFETY: ... and a description that is valid during this call.
        let info = unsafe { &*info };
        if info.dlpi_phdr.is_null() || info.dlpi_name.is_null() {
            return 0;
        }
        // SAFETY: so many headers lie there, for as long as the object is loaded, which it is during this call.
        let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        // SAFETY: the name is a string of C's, and lives as long.
        let path = unsafe { CStr::from_ptr(info.dlpi_name) };
        let is_program = !std::mem::replace(&mut search.begun, true);
        search.found = (search.look)(&Object { is_program, base: info.dlpi_addr as usize, path, headers });
        c_int::from(search.found.is_some())
    }

    fn visitor<T, L: FnMut(&Object<'_>) -> Option<T>>(
        _: &Search<L, T>,
    ) -> unsafe extern "C" fn(*mut libc::dl_phdr_info, libc::size_t, *mut c_void) -> c_int {
        visit::<T, L>
    }

    let mut search = Search { look, begun: false, found: None };
    let visitor = visitor(&search);
    // SAFETY: `visitor` is made for `search`, which outlives the call; it does not unwind, since what is looked for here does
    // not panic.
    unsafe { libc::dl_iterate_phdr(Some(visitor), (&raw mut search).cast()) };
    search.found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_this_program_is_found_again() {
        static HERE: u64 = 7;
        let at = (&raw const HERE).addr();
        let place = place(at);
        assert_eq!((place.object, &*place.name), (PROGRAM, &b""[..]));
        assert_eq!(address(place.object, place.offset, 8), Some(Some(at)));
        assert_eq!(address(place.object, u64::MAX, 8), Some(None));
        assert_eq!(address(4242, place.offset, 8), None);
        assert!(!was_started_by_loader());
    }

    #[test]
    fn what_lies_in_a_shared_object_is_found_by_the_object() {
        let at = libc::getpid as *const () as usize;
        let place = place(at);
        assert!(place.object != PROGRAM && place.object != NONE, "{place:?}");
        assert!(place.name.starts_with(b"libc"), "{place:?}");
        assert_eq!(address(place.object, place.offset, 1), Some(Some(at)));
    }

    #[test]
    fn what_lies_nowhere_is_in_no_object() {
        let heap = Box::new(7_u64);
        let place = place((&raw const *heap).addr());
        assert_eq!((place.object, place.offset), (NONE, 0));
        assert_eq!(address(place.object, place.offset, 1), None);
    }

    #[test]
    fn a_build_id_is_found_among_other_notes_and_garbage_is_none() {
        let note = |name: &[u8], id: &[u8], kind: u32| {
            let mut note = Vec::new();
            [name.len() as u32, id.len() as u32, kind].iter().for_each(|n| note.extend(n.to_ne_bytes()));
            for part in [name, id] {
                note.extend(part);
                note.resize(note.len().next_multiple_of(4), 0);
            }
            note
        };
        let mut notes = note(b"other\0", b"abcde", 1);
        notes.extend(note(b"GNU\0", b"123456", GNU_BUILD_ID));
        assert_eq!(build_id_of(&notes), Some(&b"123456"[..]));
        for cut in 0..notes.len() {
            assert!(build_id_of(&notes[..cut]).is_none_or(|id| id == b"123456"));
        }
        assert_eq!(build_id_of(&[0xff; 64]), None);
    }
}
