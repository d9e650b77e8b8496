//! What peers are told whose requests are refused.

use tonic::Status;

/// What everybody is told who comes too late.
pub(super) fn shutting_down() -> Status {
    Status::unavailable("the coordinator is shutting down")
}
