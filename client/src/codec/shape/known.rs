//! Which types are known, and what of them.

use std::any::TypeId;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Node;

/// What is known of one type.
#[derive(Debug)]
pub(in crate::codec) struct Known {
    pub(in crate::codec) root: &'static Node,
    /// How often nothing was learned of a value that had something unknown.
    fruitless: AtomicU32,
}

/// So often a type may teach nothing before its unknown parts are left alone.
const PATIENCE: u32 = 8;

static TYPES: Mutex<Option<HashMap<TypeId, &'static Known>>> = Mutex::new(None);

/// As many types as a call may well have: its arguments and its result.
const RECENT: usize = 4;

type Recent = Cell<Option<(TypeId, &'static Known)>>;

thread_local! {
    static RECENTLY: [Recent; RECENT] = const { [Cell::new(None), Cell::new(None), Cell::new(None), Cell::new(None)] };
    static OLDEST: Cell<usize> = const { Cell::new(0) };
}

/// What is known of `T`; `None` if that cannot be found out now. Never blocks.
#[inline]
pub(in crate::codec) fn known<T: 'static>() -> Option<&'static Known> {
    let id = TypeId::of::<T>();
    RECENTLY
        .with(|recently| {
            recently.iter().find_map(|recent| recent.get().filter(|(of, _)| *of == id)).map(|(_, known)| known)
        })
        .or_else(|| look_up(id))
}

#[cold]
fn look_up(id: TypeId) -> Option<&'static Known> {
    // In a child that was forked while another thread was here the lock is never free again.
    let mut types = TYPES.try_lock().ok()?;
    let fresh = || &*Box::leak(Box::new(Known { root: Node::fresh(), fruitless: AtomicU32::new(0) }));
    let known = *types.get_or_insert_with(HashMap::new).entry(id).or_insert_with(fresh);
    let place = OLDEST.replace((OLDEST.get() + 1) % RECENT);
    RECENTLY.with(|recently| recently[place].set(Some((id, known))));
    Some(known)
}

impl Known {
    /// Whether it is worth while to learn from a value.
    pub(in crate::codec) fn may_learn(&self) -> bool {
        self.fruitless.load(Ordering::Relaxed) < PATIENCE
    }

    pub(in crate::codec) fn learned_nothing(&self) {
        self.fruitless.fetch_add(1, Ordering::Relaxed);
    }
}
