//! Checks which builds may talk to each other.

use farpool_proto::v1::Version;
use farpool_proto::{PROTOCOL, version};
use tonic::Status;

/// Checks that this build, which is `own` ("the coordinator"), understands its peer ("the agent").
///
/// # Errors
/// If the peer speaks another protocol, or does not state one: with both versions and what to do.
pub fn check(own: &str, peer: &str, theirs: Option<&Version>) -> Result<(), Status> {
    let Some(theirs) = theirs else {
        return Err(Status::failed_precondition(format!("{peer} does not say which version it is")));
    };
    if theirs.protocol == PROTOCOL {
        return Ok(());
    }
    let ours = version();
    Err(Status::failed_precondition(format!(
        "{own} is farpool {} (protocol {PROTOCOL}) and {peer} is farpool {} (protocol {}): \
         install the same release on both sides",
        ours.release, theirs.release, theirs.protocol
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_names_both_versions() {
        assert!(check("the coordinator", "the agent", Some(&version())).is_ok());
        let other = Version { release: "9.8.7".into(), protocol: 77 };
        let error = check("the coordinator", "the agent", Some(&other)).expect_err("protocols differ");
        let words = ["the coordinator", "the agent", "9.8.7", "protocol 77", env!("CARGO_PKG_VERSION"), "same release"];
        words.iter().for_each(|words| assert!(error.message().contains(words), "{error}"));
        assert!(check("the coordinator", "the agent", None).is_err());
    }
}
