//! Keeps the token of the running item in the environment, which the task's processes inherit.
//!
//! The variable is written once. For each item only its last eight bytes change, with one store: setting the variable
//! again would allocate, and would race with tasks that read the environment.

#![expect(unsafe_code, reason = "putenv(3) with text that this module keeps changing; argued at the call")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use farpool_link::Status;
use farpool_link::item_token::{self, ITEM_VARIABLE, ItemToken, NO_ITEM, POSITION_BYTES, PREFIX_BYTES};
use uuid::Uuid;

/// The variable's text in front of the position: `FARPOOL_ITEM=` and the token's prefix.
const HEAD_BYTES: usize = ITEM_VARIABLE.len() + 1 + PREFIX_BYTES;
/// Bytes before the text, so that the position is aligned to a word.
const PADDING: usize = HEAD_BYTES.next_multiple_of(8) - HEAD_BYTES;
/// Words of padding, text and the final zero byte.
const WORDS: usize = (PADDING + HEAD_BYTES + POSITION_BYTES) / 8 + 1;

/// The token of this worker; only set on a cluster.
static OWN: OnceLock<Own> = OnceLock::new();

struct Own {
    /// The process that owns the token; its forks inherit this variable, too.
    pid: u32,
    /// The last eight bytes of the variable.
    position: &'static AtomicU64,
}

/// Gives tokens to this worker's items, if it runs on a cluster. The process must have only one thread.
pub(crate) fn begin(status: &Status) {
    let text = std::env::var(ITEM_VARIABLE).unwrap_or_default();
    // If the variable is a complete token, this worker belongs to a local pool, opened by that item's task.
    let Some(agent) = item_token::agent_id(&text) else { return };
    let secret = Uuid::new_v4().as_u128();
    status.set_item_secret(secret);
    let token = ItemToken { agent, secret, position: NO_ITEM };
    let position = publish(&token);
    let _ = OWN.set(Own { pid: std::process::id(), position });
}

/// Sets the position of the item that is about to begin.
#[inline]
pub(crate) fn set_position(position: u32) {
    if let Some(own) = OWN.get() {
        own.position.store(item_token::position_letters(position), Ordering::Relaxed);
    }
}

/// Returns the token of the item whose task started this process. A task's own process needs none: its agent sees that
/// it waits.
pub fn inherited() -> Option<ItemToken> {
    if OWN.get().is_some_and(|own| own.pid == std::process::id()) {
        return None;
    }
    // An initializer has no item whose slot it could lend.
    ItemToken::parse(&std::env::var(ITEM_VARIABLE).ok()?).filter(|token| token.position != NO_ITEM)
}

/// Puts the variable into the environment. Returns a reference to its position.
fn publish(token: &ItemToken) -> &'static AtomicU64 {
    let mut bytes = vec![0; PADDING];
    bytes.extend(format!("{ITEM_VARIABLE}={}", token.prefix()).bytes());
    bytes.extend(item_token::position_letters(token.position).to_ne_bytes());
    bytes.resize(8 * WORDS, 0);
    let words =
        bytes.chunks_exact(8).map(|word| AtomicU64::new(u64::from_ne_bytes(word.try_into().expect("not 8 bytes"))));
    let words: &'static [AtomicU64] = Vec::leak(words.collect());
    // SAFETY: the text is NUL-terminated and lives forever. No other thread runs yet that could read the environment.
    // Later stores into the last word are eight letters again, so readers always find a complete text.
    let set = unsafe { libc::putenv(words.as_ptr().cast::<libc::c_char>().cast_mut().add(PADDING)) };
    assert_eq!(set, 0, "cannot set an environment variable");
    &words[(PADDING + HEAD_BYTES) / 8]
}
