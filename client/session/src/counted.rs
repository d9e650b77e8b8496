//! Progress, for progress bars.

/// Work whose progress can be counted.
pub trait Counted: Send + Sync + 'static {
    /// Returns how much is done.
    fn count(&self) -> u64;

    /// Returns whether it has ended.
    fn is_over(&self) -> bool;
}
