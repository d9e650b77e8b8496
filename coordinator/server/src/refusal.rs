//! Errors for peers whose requests are refused.

use tonic::Status;

/// The error for peers that connect during shutdown.
pub(super) fn shutting_down() -> Status {
    Status::unavailable("the coordinator is shutting down")
}
