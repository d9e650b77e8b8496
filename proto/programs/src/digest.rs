//! The digest that identifies a program: BLAKE3 of its executable.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::str::FromStr;

/// Large enough that system calls do not matter, small enough for a cache.
const BUFFER_BYTES: usize = 256 << 10;

/// The digest of a program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; Digest::BYTES]);

/// A value that is not a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestError {
    found: String,
}

/// Computes the digest of a whole file, whatever its read position.
///
/// # Errors
/// If the file cannot be read.
pub fn digest_of(file: &File) -> io::Result<Digest> {
    let (mut hasher, mut buffer, mut at) = (blake3::Hasher::new(), vec![0; BUFFER_BYTES], 0);
    loop {
        match file.read_at(&mut buffer, at) {
            Ok(0) => return Ok(Digest::from(hasher.finalize())),
            Ok(bytes) => {
                hasher.update(&buffer[..bytes]);
                at += bytes as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Digest {
    /// The length of a digest.
    pub const BYTES: usize = blake3::OUT_LEN;

    /// Returns the digest as it is sent.
    pub fn as_bytes(&self) -> &[u8; Digest::BYTES] {
        &self.0
    }

    /// Returns the digest as it is sent.
    pub fn to_bytes(self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(&self.0)
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Digest {
        Digest(*hash.as_bytes())
    }
}

impl TryFrom<&[u8]> for Digest {
    type Error = DigestError;

    fn try_from(bytes: &[u8]) -> Result<Digest, DigestError> {
        bytes.try_into().map(Digest).map_err(|_| DigestError { found: format!("{} bytes", bytes.len()) })
    }
}

/// In hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| DigestError { found: format!("{text:?}") })?;
        Ok(hash.into())
    }
}

impl fmt::Display for DigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = 2 * Digest::BYTES;
        write!(f, "a program's digest is {} bytes, or {digits} hexadecimal digits, not {}", Digest::BYTES, self.found)
    }
}

impl std::error::Error for DigestError {}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::scratch::Scratch;
    use super::*;

    #[test]
    fn a_file_is_digested_from_its_start() {
        let scratch = Scratch::new();
        let bytes: Vec<u8> = (0..3 * BUFFER_BYTES + 17).map(|at| (at % 251) as u8).collect();
        let path = scratch.path().join("file");
        let mut file = File::options().create(true).read(true).write(true).truncate(true).open(&path).expect("created");
        file.write_all(&bytes).expect("written");
        assert_eq!(digest_of(&file).expect("read"), Digest::from(blake3::hash(&bytes)));
    }

    #[test]
    fn digests_are_read_as_they_are_shown() {
        let digest = Digest::from(blake3::hash(b"a program"));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(Digest::try_from(&digest.to_bytes()[..]), Ok(digest));
    }

    #[test]
    fn invalid_digests_are_named() {
        let bytes = Digest::try_from(&[1, 2, 3][..]).expect_err("too short");
        assert_eq!(bytes.to_string(), "a program's digest is 32 bytes, or 64 hexadecimal digits, not 3 bytes");
        let text = "abc".parse::<Digest>().expect_err("too short");
        assert_eq!(text.to_string(), "a program's digest is 32 bytes, or 64 hexadecimal digits, not \"abc\"");
        assert!("zz".repeat(32).parse::<Digest>().is_err());
    }
}
