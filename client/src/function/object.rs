//! The objects of this process: the program, and the shared objects that it has loaded.
//!
//! The loader puts each object, as a whole, at a different address in each process. So a location is an object and an offset in
//! it.

#![expect(unsafe_code, reason = "reads what the loader reports about its objects; each block says why it is sound")]

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
/// The identifier for no object.
const NONE: u64 = u64::MAX;
const GNU_BUILD_ID: u32 = 3;

/// A location in an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// The object: a hash of its build id, or of its file name if it has none.
    pub(super) object: u64,
    /// The offset in the object, in bytes.
    pub(super) offset: u64,
    /// The object's file name, unless it is the program.
    pub(super) name: Vec<u8>,
}

/// Returns the location of `address`.
pub(super) fn location(address: usize) -> Location {
    let (start, end) = program();
    if (start..end).contains(&address) {
        return Location { object: PROGRAM, offset: (address - start) as u64, name: Vec::new() };
    }
    let found = find(|object| {
        object.has(address, 1).then(|| Location {
            object: object.id(),
            offset: address.wrapping_sub(object.start()) as u64,
            name: object.file_name().to_vec(),
        })
    });
    found.unwrap_or_else(|| Location { object: NONE, offset: 0, name: Vec::new() })
}

/// Returns the address of a location in this process, if this many bytes are loaded and readable there. `None` if its object is
/// not loaded.
pub(super) fn address(object: u64, offset: u64, bytes: usize) -> Option<Option<usize>> {
    find(|loaded| {
        (loaded.id() == object).then(|| {
            let address = loaded.start().checked_add(usize::try_from(offset).ok()?)?;
            loaded.has(address, bytes).then_some(address)
        })
    })
}

/// Returns whether the program was started as an argument of the loader (`ld.so ./program`): /proc/self/exe is then
/// the loader.
pub(crate) fn was_started_by_loader() -> bool {
    // SAFETY: getauxval(3) only looks up a number.
    let interpreter = unsafe { libc::getauxval(libc::AT_BASE) };
    // The program asks for an interpreter, but the kernel has loaded none.
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

    /// Returns whether it has this many readable bytes at this address.
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
            // SAFETY: the bytes lie in a loaded, readable segment, and nothing writes to notes.
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
        // SAFETY: the loader passes on the pointer that it gets below. Nothing else uses it meanwhile.
        let search = unsafe { &mut *search.cast::<Search<L, T>>() };
        // SAFETY: the loader passes a description that is valid during this call.
        let info = unsafe { &*info };
        if info.dlpi_phdr.is_null() || info.dlpi_name.is_null() {
            return 0;
        }
        // SAFETY: the object has this many headers while it is loaded, and it is loaded during this call.
        let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        // SAFETY: the name is a C string that lives as long.
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
    // SAFETY: `visitor` is made for `search`, which outlives the call. It does not unwind, since no `look` panics.
    unsafe { libc::dl_iterate_phdr(Some(visitor), (&raw mut search).cast()) };
    search.found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_this_program_are_found_again() {
        static HERE: u64 = 7;
        let at = (&raw const HERE).addr();
        let location = location(at);
        assert_eq!((location.object, &*location.name), (PROGRAM, &b""[..]));
        assert_eq!(address(location.object, location.offset, 8), Some(Some(at)));
        assert_eq!(address(location.object, u64::MAX, 8), Some(None));
        assert_eq!(address(4242, location.offset, 8), None);
        assert!(!was_started_by_loader());
    }

    #[test]
    fn addresses_in_a_shared_object_are_found_by_the_object() {
        let at = libc::getpid as *const () as usize;
        let location = location(at);
        assert!(location.object != PROGRAM && location.object != NONE, "{location:?}");
        assert!(location.name.starts_with(b"libc"), "{location:?}");
        assert_eq!(address(location.object, location.offset, 1), Some(Some(at)));
    }

    #[test]
    fn addresses_outside_of_objects_are_not_found() {
        let heap = Box::new(7_u64);
        let location = location((&raw const *heap).addr());
        assert_eq!((location.object, location.offset), (NONE, 0));
        assert_eq!(address(location.object, location.offset, 1), None);
    }

    #[test]
    fn a_build_id_is_found_among_other_notes_but_not_in_garbage() {
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
