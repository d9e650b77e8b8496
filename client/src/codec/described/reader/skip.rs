use crate::codec::described::tag;
use crate::codec::fault::Fault;
use crate::codec::input::Input;

/// Skips one part, however deeply nested it is.
pub(super) fn skip(input: &mut Input<'_>) -> Result<(), Fault> {
    let mut open = 0_u64;
    loop {
        match input.byte()? {
            tag::END if open == 0 => return Err(Fault::Damaged),
            tag::END => open -= 1,
            tag::UNIT | tag::FALSE | tag::TRUE | tag::NONE | tag::SMALL.. => {}
            tag::UNSIGNED | tag::NEGATIVE => _ = input.unsigned()?,
            tag::UNSIGNED_WIDE | tag::NEGATIVE_WIDE => _ = input.take(16)?,
            tag::F32 => _ = input.take(4)?,
            tag::F64 => _ = input.take(8)?,
            tag::CHAR | tag::STR | tag::BYTES => _ = input.counted()?,
            // What it contains follows.
            tag::SOME => continue,
            tag::SEQ | tag::MAP | tag::STRUCT | tag::WHOLE_STRUCT => open += 1,
            _ => return Err(Fault::Damaged),
        }
        if open == 0 {
            return Ok(());
        }
    }
}
