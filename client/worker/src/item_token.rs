//! The token of the item that this worker is on, in the environment that its task's processes inherit.
//!
//! The variable's text is written once, and only its last eight bytes change, with one store an item: setting a variable anew would
//! allocate, and would race with tasks that read the environment.

#![expect(unsafe_code, reason = "putenv(3) with text that this module keeps changing; argued at the call")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use farpool_link::Status;
use farpool_link::item_token::{self, ITEM_VARIABLE, ItemToken, NO_ITEM, POSITION_BYTES, PREFIX_BYTES};
use uuid::Uuid;

/// The variable's text in front of the position: `FARPOOL_ITEM=` and the token's prefix.
const HEAD_BYTES: usize = ITEM_VARIABLE.len() + 1 + PREFIX_BYTES;
/// In front of the text, so that the position lies on a word of its own.
const PADDING: usize = HEAD_BYTES.next_multiple_of(8) - HEAD_BYTES;
/// Words of padding, text and the zero byte behind it.
const WORDS: usize = (PADDING + HEAD_BYTES + POSITION_BYTES) / 8 + 1;

/// Set in workers of agents on a cluster.
static OWN: OnceLock<Own> = OnceLock::new();

struct Own {
    /// The process that has the token: what it forks inherits this too.
    pid: u32,
    /// The last eight bytes of the variable.
    position: &'static AtomicU64,
}

/// Gives this worker's items tokens, if an agent on a cluster has started it. To be called while the process has one thread.
pub(crate) fn begin(status: &Status) {
    let text = std::env::var(ITEM_VARIABLE).unwrap_or_default();
    // A whole token is inherited: this worker belongs to a local pool, which that item's task has opened.
    let Some(agent) = item_token::agent_id(&text) else { return };
    let secret = Uuid::new_v4().as_u128();
    status.set_item_secret(secret);
    let token = ItemToken { agent, secret, position: NO_ITEM };
    let position = publish(&token);
    let _ = OWN.set(Own { pid: std::process::id(), position });
}

/// The worker is about to begin the item at `position`.
#[inline]
pub(crate) fn note(position: u32) {
    if let Some(own) = OWN.get() {
        own.position.store(item_token::position_letters(position), Ordering::Relaxed);
    }
}

/// The token that a client in this process shows: that of the item whose task has started the process. A task's own process needs none,
/// as its agent sees for itself that it waits.
pub fn inherited() -> Option<ItemToken> {
    if OWN.get().is_some_and(|own| own.pid == std::process::id()) {
        return None;
    }
    // An initializer has no slot of an item to lend.
    ItemToken::parse(&std::env::var(ITEM_VARIABLE).ok()?).filter(|token| token.position != NO_ITEM)
}

/// Puts the variable into the environment; returns where its position lies.
fn publish(token: &ItemToken) -> &'static AtomicU64 {
    let mut bytes = vec![0; PADDING];
    bytes.extend(format!("{ITEM_VARIABLE}={}", token.prefix()).bytes());
    bytes.extend(item_token::position_letters(token.position).to_ne_bytes());
    bytes.resize(8 * WORDS, 0);
    let words = bytes.chunks_exact(8).map(|word| AtomicU64::new(u64::from_ne_bytes(word.try_into().expect("8 bytes"))));
    let words: &'static [AtomicU64] = Vec::leak(words.collect());
    // SAFETY: the text is NUL-terminated and lives for ever. Nobody else runs yet who could read the environment meanwhile. What is stored
    // into its last word later is eight letters again, so whoever reads it meanwhile finds a whole text with some position.
    let set = unsafe { libc::putenv(words.as_ptr().cast::<libc::c_char>().cast_mut().add(PADDING)) };
    assert_eq!(set, 0, "the environment has room");
    &words[(PADDING + HEAD_BYTES) / 8]
}
