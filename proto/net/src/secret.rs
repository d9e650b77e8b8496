//! The secret that resumes a session, and the public id made from it.

use std::fmt;

use bytes::Bytes;
use tonic::Status;
use uuid::Uuid;

/// A secret that only the two ends of a session know. It resumes the session. Others know the session by its
/// [id](session_id), which does not reveal the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Bytes);

/// In bytes.
const SECRET_BYTES: usize = 32;

impl Secret {
    /// Makes a new one of 244 random bits from the system.
    pub fn random() -> Self {
        let halves = [Uuid::new_v4(), Uuid::new_v4()];
        Self(halves.iter().flat_map(|half| *half.as_bytes()).collect())
    }

    /// Makes one from these bytes. Peers refuse it unless there are 32.
    pub fn of(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Returns its bytes, as they are sent.
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// Returns the public id.
    pub fn id(&self) -> [u8; 16] {
        hash(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Returns the public id of the session with this secret.
///
/// # Errors
/// If the secret is not 32 bytes long.
pub fn session_id(secret: &[u8]) -> Result<[u8; 16], Status> {
    if secret.len() != SECRET_BYTES {
        let length = secret.len();
        return Err(Status::invalid_argument(format!("a session's secret of {length} bytes, not {SECRET_BYTES}")));
    }
    Ok(hash(secret))
}

/// Secrets are random, so half of a BLAKE3 hash is enough: finding a secret for an id takes about 2^128 tries.
fn hash(secret: &[u8]) -> [u8; 16] {
    let hash = blake3::derive_key("farpool 2026-12-01 session id", secret);
    hash.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_one_id_and_is_not_printed() {
        let (one, other) = (Secret::random(), Secret::random());
        assert_ne!(one, other);
        assert_ne!(one.id(), other.id());
        assert_eq!(session_id(&one.to_bytes()).unwrap(), one.id());
        assert_eq!(format!("{one:?}"), "Secret(..)");
        for length in [0, 16, 31, 33] {
            let message = session_id(&vec![0; length]).unwrap_err().message().to_owned();
            assert!(message.contains(&format!("{length} bytes")), "{message}");
        }
    }
}
