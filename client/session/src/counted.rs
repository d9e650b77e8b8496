//! What progress bars show.

/// Something that is done bit by bit.
pub trait Counted: Send + Sync + 'static {
    /// How much is done.
    fn count(&self) -> u64;

    /// Whether it will not become more.
    fn is_over(&self) -> bool;
}
