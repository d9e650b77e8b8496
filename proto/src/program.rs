//! The program of a pool, in encoded form: the coordinator keeps one copy of it, however many parts it has and however
//! many agents get it.

use bytes::Bytes;
use prost::Message;

use crate::decode::DecodeError;
use crate::parts;
use crate::v1::Program;

impl Program {
    /// Encodes it for `OpenPool` and `StartPool`.
    pub fn packed(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// Decodes a pool's program; `None` if the pool has none. Its fields share the bytes.
    ///
    /// # Errors
    /// If it is not a program, or has too many parts.
    pub fn unpacked(packed: &Bytes) -> Result<Option<Program>, DecodeError> {
        if packed.is_empty() {
            return Ok(None);
        }
        parts::check::<Program>(packed).map_err(DecodeError::Parts)?;
        Program::decode(packed.clone()).map(Some).map_err(DecodeError::Message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Variable;

    #[test]
    fn a_program_round_trips() {
        let variable = Variable { name: "A".into(), value: "b".into() };
        let program = Program { digest: vec![7; 32].into(), environment: vec![variable; 3], ..Program::default() };
        assert_eq!(Program::unpacked(&program.packed()).unwrap(), Some(program));
        assert_eq!(Program::unpacked(&Bytes::new()).unwrap(), None);
    }

    #[test]
    fn invalid_programs_are_refused() {
        assert!(Program::unpacked(&Bytes::from_static(&[0xff; 8])).is_err());
        let parts = Program { arguments: vec![Bytes::new(); 1 << 20], ..Program::default() };
        assert!(matches!(Program::unpacked(&parts.packed()), Err(DecodeError::Parts(_))));
    }
}
