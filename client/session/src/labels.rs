//! Labels: properties of hosts, which pools and jobs can require.

use farpool_proto::limits;
use farpool_proto::v1::Label;

use crate::error::{Error, Remedy};

/// A required label.
pub fn required(key: impl Into<String>, value: impl Into<String>) -> Label {
    Label { key: key.into(), value: value.into() }
}

/// Checks the form of labels.
pub fn check(require: &[Label]) -> Result<(), Error> {
    let unnamed = |label: &&Label| label.key.is_empty() || label.key.contains('=');
    limits::labels(require).map_err(|beyond| Error::invalid(beyond.to_string()))?;
    match require.iter().find(unnamed) {
        None => Ok(()),
        Some(Label { key, .. }) => {
            let words = format!("the key of a required label is {key:?}, but must not be empty or contain '='");
            Err(Error::invalid(words).with_remedy(Remedy::NameLabel))
        }
    }
}

/// Checks that this machine has the required labels. In local mode there are only `host`, `arch` and `os`.
pub fn check_here(require: &[Label]) -> Result<(), Error> {
    check(require)?;
    if require.is_empty() {
        return Ok(());
    }
    let own = labels_of_this_host();
    match require.iter().find(|label| !own.contains(label)) {
        None => Ok(()),
        Some(Label { key, value }) => {
            let has: Vec<_> = own.iter().map(|Label { key, value }| format!("{key}={value}")).collect();
            let has = has.join(", ");
            Err(Error::invalid(format!(
                "this machine has only the labels {has}, but {key}={value} is required: open the pool on a cluster"
            )))
        }
    }
}

/// Returns the labels that every host has, for this one.
fn labels_of_this_host() -> [Label; 3] {
    let host = nix::unistd::gethostname().unwrap_or_default();
    [
        required("host", host.to_string_lossy()),
        required("arch", std::env::consts::ARCH),
        required("os", std::env::consts::OS),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn this_machine_has_its_own_labels_only() {
        check_here(&[]).unwrap();
        check_here(&labels_of_this_host()).unwrap();
        let error = check_here(&[required("os", std::env::consts::OS), required("gpu", "a100")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        for words in ["host=", "arch=", "os=linux", "gpu=a100 is required", "cluster"] {
            assert!(error.to_string().contains(words), "{error} / {words}");
        }
        assert!(check_here(&[required("os", "plan9")]).is_err());
    }

    #[test]
    fn labels_without_a_name_are_refused() {
        assert!(check(&[required("", "x")]).is_err());
        assert!(check(&[required("a=b", "x")]).is_err());
        check(&[required("a", "b=c"), required("b", "")]).unwrap();
    }
}
