//! Values that are shared with the tasks of a pool.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use farpool_session::{Session, SharedValue};
use farpool_worker::shared::{self, Key};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::codec;
use crate::error::{Error, ErrorKind};

/// A value that all workers of a pool share: a big argument that is sent to each host once, and decoded once in each worker.
///
/// [`Pool::share`](crate::Pool::share) makes one. As an argument it takes 16 bytes; tasks use it as `&T`. Clones are the same value. When the last one
/// in the client is dropped, the value is freed once the calls that were begun before have ended. It also ends with its pool: tasks
/// of other pools, and of detached jobs, cannot use it.
pub struct Shared<T> {
    inner: Inner<T>,
}

enum Inner<T> {
    /// In the client.
    Own(Arc<Own<T>>),
    /// In a task.
    Found(Arc<shared::Shared>, PhantomData<fn() -> T>),
}

struct Own<T> {
    value: T,
    handle: SharedValue,
}

thread_local! {
    /// Whether this thread encodes a job that outlives its pool.
    static DETACHES: Cell<bool> = const { Cell::new(false) };
}

impl<T: Serialize + DeserializeOwned + 'static> Shared<T> {
    pub(crate) fn new(session: &Session, value: T) -> Result<Self, Error> {
        let (header, key) = shared::new_header();
        let mut bytes = header.to_vec();
        codec::encode(&value, &mut bytes)
            .map_err(|error| Error::new(ErrorKind::Codec, format!("share: the value {error}")))?;
        let handle = SharedValue::share(session, key, bytes.into())?;
        Ok(Self { inner: Inner::Own(Arc::new(Own { value, handle })) })
    }
}

/// Runs `encode`, in which encoding a shared value is an error: the job outlives its pool.
pub(crate) fn refusing<R>(encode: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            DETACHES.set(self.0);
        }
    }
    let _restore = Restore(DETACHES.replace(true));
    encode()
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        let inner = match &self.inner {
            Inner::Own(own) => Inner::Own(Arc::clone(own)),
            Inner::Found(found, of) => Inner::Found(Arc::clone(found), *of),
        };
        Self { inner }
    }
}

impl<T: Send + Sync + 'static> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.inner {
            Inner::Own(own) => &own.value,
            Inner::Found(found, _) => found.get().expect("it was decoded as this type when it arrived"),
        }
    }
}

impl<T: fmt::Debug + Send + Sync + 'static> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&**self).finish()
    }
}

impl<T> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if DETACHES.get() {
            return Err(ser::Error::custom(
                "a detached job cannot use a shared value, which ends with its pool: pass the value itself",
            ));
        }
        match &self.inner {
            Inner::Own(own) => own.handle.key().serialize(serializer),
            Inner::Found(found, _) => found.key().serialize(serializer),
        }
    }
}

impl<'de, T: DeserializeOwned + Send + Sync + 'static> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = shared::find(Key::deserialize(deserializer)?).map_err(de::Error::custom)?;
        match found.decoded(codec::decode::<T>) {
            Ok(Some(_)) => Ok(Self { inner: Inner::Found(found, PhantomData) }),
            Ok(None) => Err(de::Error::custom("this shared value has another type")),
            Err(error) => Err(de::Error::custom(format_args!("a shared value cannot be decoded: {error}"))),
        }
    }
}
