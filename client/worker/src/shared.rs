//! The shared values of the worker's pool. A client puts a [header](new_header) with a random [`Key`] before each value, and tasks find
//! it by that key: they need not know which pool they run in.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

pub use farpool_link::sealed::Mapping;

/// What identifies a shared value, in all pools.
pub type Key = [u8; 16];

/// Bytes before the value. The value's first byte has an address that is a multiple of this.
pub const HEADER_BYTES: usize = 64;

static VALUES: Mutex<Values> = Mutex::new(Values { all: BTreeMap::new(), failure: None });

struct Values {
    all: BTreeMap<Key, Arc<Shared>>,
    /// Why the last value that could not be mapped is not here.
    failure: Option<String>,
}

/// A shared value. It stays for as long as somebody has this, even if the client has dropped it.
#[derive(Debug)]
pub struct Shared {
    key: Key,
    mapping: Arc<Mapping>,
    decoded: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// Returns the bytes before a new value, and its key.
pub fn new_header() -> ([u8; HEADER_BYTES], Key) {
    let key = uuid::Uuid::new_v4().into_bytes();
    let mut header = [0; HEADER_BYTES];
    header[..key.len()].copy_from_slice(&key);
    (header, key)
}

/// Returns a shared value of the worker's pool.
///
/// # Errors
/// Why it is not here.
pub fn find(key: Key) -> Result<Arc<Shared>, String> {
    let values = values();
    values.all.get(&key).cloned().ok_or_else(|| match &values.failure {
        Some(failure) => format!(
            "this shared value is not in the task's pool: it belongs to another pool, its handle was dropped before the call, or \
             {failure}"
        ),
        None => "this shared value is not in the task's pool: it belongs to another pool, or its handle was dropped \
                 before the call"
            .to_owned(),
    })
}

impl Shared {
    /// Returns the key of the value.
    pub fn key(&self) -> Key {
        self.key
    }

    /// Returns the encoded value.
    pub fn bytes(&self) -> &[u8] {
        &self.mapping[HEADER_BYTES..]
    }

    /// Returns the header and the encoded value.
    pub fn mapping(&self) -> Arc<Mapping> {
        Arc::clone(&self.mapping)
    }

    /// Returns the decoded value. The first caller decodes it; `None` if that gave a value of another type.
    ///
    /// # Errors
    /// Those of `decode`.
    pub fn decoded<T, E>(&self, decode: impl FnOnce(&[u8]) -> Result<T, E>) -> Result<Option<&T>, E>
    where
        T: Any + Send + Sync,
    {
        if self.decoded.get().is_none() {
            let value = decode(self.bytes())?;
            let _ = self.decoded.set(Box::new(value));
        }
        Ok(self.get())
    }

    /// Returns the decoded value; `None` if it was not decoded yet, or has another type.
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.decoded.get()?.downcast_ref()
    }
}

/// Remembers a value that has arrived, and returns its key. `None`: it could not be mapped, or has no header.
pub(crate) fn remember(bytes: Result<Mapping, String>) -> Option<Key> {
    let mut values = values();
    let bytes = bytes.map_err(|failure| values.failure = Some(failure)).ok()?;
    let key = bytes.get(..HEADER_BYTES)?.first_chunk().copied()?;
    values.all.insert(key, Arc::new(Shared { key, mapping: Arc::new(bytes), decoded: OnceLock::new() }));
    Some(key)
}

/// Forgets a value. Dropping what was decoded may run code of the user, so the caller does that.
pub(crate) fn forget(key: Key) -> Option<Arc<Shared>> {
    values().all.remove(&key)
}

fn values() -> MutexGuard<'static, Values> {
    VALUES.lock().unwrap_or_else(PoisonError::into_inner)
}
