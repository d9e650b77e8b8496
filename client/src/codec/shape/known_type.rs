//! The types whose shapes are known, at least in part.

use std::any::TypeId;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Node;

/// A type and what is known of its shape.
#[derive(Debug)]
pub(in crate::codec) struct KnownType {
    pub(in crate::codec) root: &'static Node,
    /// How often a value had an unknown part, and nothing was learned from it.
    failed_attempts: AtomicU32,
}

/// After this many failed attempts, nothing more is learned about a type.
const MAX_FAILED_ATTEMPTS: u32 = 8;

static TYPES: Mutex<Option<HashMap<TypeId, &'static KnownType>>> = Mutex::new(None);

/// Enough for the types of one call: its arguments and its result.
const RECENT: usize = 4;

type Recent = Cell<Option<(TypeId, &'static KnownType)>>;

thread_local! {
    static RECENTLY: [Recent; RECENT] = const { [Cell::new(None), Cell::new(None), Cell::new(None), Cell::new(None)] };
    static OLDEST: Cell<usize> = const { Cell::new(0) };
}

/// Looks up `T`; `None` if the table is locked. Never blocks.
#[inline]
pub(in crate::codec) fn known_type<T: 'static>() -> Option<&'static KnownType> {
    let id = TypeId::of::<T>();
    RECENTLY
        .with(|recently| {
            recently
                .iter()
                .find_map(|recent| recent.get().filter(|(of, _)| *of == id))
                .map(|(_, known_type)| known_type)
        })
        .or_else(|| look_up(id))
}

#[cold]
fn look_up(id: TypeId) -> Option<&'static KnownType> {
    // If another thread held the lock when this process was forked, it stays locked forever.
    let mut types = TYPES.try_lock().ok()?;
    let new = || &*Box::leak(Box::new(KnownType { root: Node::unknown(), failed_attempts: AtomicU32::new(0) }));
    let known_type = *types.get_or_insert_with(HashMap::new).entry(id).or_insert_with(new);
    let slot = OLDEST.replace((OLDEST.get() + 1) % RECENT);
    RECENTLY.with(|recently| recently[slot].set(Some((id, known_type))));
    Some(known_type)
}

impl KnownType {
    /// Returns whether to try to learn from another value.
    pub(in crate::codec) fn may_learn(&self) -> bool {
        self.failed_attempts.load(Ordering::Relaxed) < MAX_FAILED_ATTEMPTS
    }

    pub(in crate::codec) fn note_failed_attempt(&self) {
        self.failed_attempts.fetch_add(1, Ordering::Relaxed);
    }
}
