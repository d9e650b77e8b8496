//! How large an item may be.

use crate::error::{Error, ErrorKind, Remedy};

/// The most bytes of an item: the limit of its pool, or that of the pool's coordinator if it is lower.
#[derive(Clone, Copy, Debug)]
pub struct ItemLimit {
    bytes: u64,
    is_coordinators: bool,
}

impl ItemLimit {
    pub(crate) fn new(pools: u64, coordinators: u64) -> Self {
        Self { bytes: pools.min(coordinators), is_coordinators: coordinators < pools }
    }

    /// Checks the size of an encoded item.
    ///
    /// # Errors
    /// If it is too large.
    #[inline]
    pub fn check(self, bytes: usize) -> Result<(), Error> {
        if bytes as u64 <= self.bytes { Ok(()) } else { Err(self.beyond("item", bytes)) }
    }

    /// Checks the size of a function.
    ///
    /// # Errors
    /// If it is too large.
    pub(crate) fn check_function(self, bytes: usize) -> Result<(), Error> {
        if bytes as u64 <= self.bytes { Ok(()) } else { Err(self.beyond("function", bytes)) }
    }

    /// Checks the size of a shared value.
    ///
    /// # Errors
    /// If it is too large.
    pub(crate) fn check_shared(self, bytes: usize) -> Result<(), Error> {
        if bytes as u64 <= self.bytes { Ok(()) } else { Err(self.beyond("shared value", bytes)) }
    }

    #[cold]
    fn beyond(self, what: &str, bytes: usize) -> Error {
        let limit = self.bytes;
        let error = |message| Error::new(ErrorKind::PayloadTooLarge, message);
        if self.is_coordinators {
            let message = format!("the encoded {what} has {bytes} bytes, and the limit of the coordinator is {limit}");
            error(message).with_remedy(Remedy::MoreMemory)
        } else {
            error(format!("the encoded {what} has {bytes} bytes, and the limit is {limit}"))
        }
    }
}

/// The limit of a pool whose coordinator has none. For tests.
impl From<u64> for ItemLimit {
    fn from(pools: u64) -> Self {
        Self::new(pools, u64::MAX)
    }
}
