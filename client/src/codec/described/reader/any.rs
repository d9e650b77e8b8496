//! Reads whatever the input contains, regardless of what the visitor asks for.

use serde::de::value::SeqDeserializer;
use serde::de::{Deserializer, Visitor};

use super::DescribedReader;
use super::access::{Elements, Entries, Positional};
use super::parts::Parts;
use super::skip::skip;
use crate::codec::described::tag;
use crate::codec::fault::Fault;
use crate::codec::input::Input;
use crate::codec::shape::Fields;

/// Returns whether the visitor fills one of serde's own buffers (untagged, flatten, internally tagged), which distinguish `None`
/// and `Some` from other values. Other visitors expect what JSON gives them: `None` is a unit, and `Some(x)` is `x`.
fn is_buffer<V>() -> bool {
    std::any::type_name::<V>().contains("ContentVisitor")
}

impl<'de> DescribedReader<'de, '_> {
    /// Calls the visitor's method for what the input contains.
    pub(super) fn visit_any<V: Visitor<'de>>(self, visitor: V, parts: Parts<'_>) -> Result<V::Value, Fault> {
        let input = self.input;
        match input.byte()? {
            tag::UNIT => visitor.visit_unit(),
            tag::FALSE => visitor.visit_bool(false),
            tag::TRUE => visitor.visit_bool(true),
            tag::UNSIGNED => visitor.visit_u64(input.unsigned()?),
            tag::NEGATIVE => match i64::try_from(input.unsigned()?) {
                Ok(complement) => visitor.visit_i64(!complement),
                Err(_) => Err(Fault::Damaged),
            },
            tag::UNSIGNED_WIDE => visitor.visit_u128(u128::from_le_bytes(input.array()?)),
            tag::NEGATIVE_WIDE => visitor.visit_i128(i128::from_le_bytes(input.array()?)),
            tag::F32 => visitor.visit_f32(f32::from_le_bytes(input.array()?)),
            tag::F64 => visitor.visit_f64(f64::from_le_bytes(input.array()?)),
            // serde's buffers accept characters, but what they are decoded into may not.
            tag::CHAR => visitor.visit_str(input.character()?.encode_utf8(&mut [0; 4])),
            tag::STR => visitor.visit_borrowed_str(input.text()?),
            tag::BYTES => visitor.visit_borrowed_bytes(input.counted()?),
            tag::NONE if is_buffer::<V>() => visitor.visit_none(),
            tag::NONE => visitor.visit_unit(),
            tag::SOME => {
                let depth = input.descend(self.depth)?;
                let ambiguous = matches!(input.bytes.first(), Some(&(tag::UNIT | tag::NONE | tag::SOME)));
                let content = DescribedReader { input, depth, recorder: None };
                if ambiguous && is_buffer::<V>() {
                    visitor.visit_some(content)
                } else {
                    content.visit_any(visitor, parts)
                }
            }
            tag::SEQ => {
                let depth = input.descend(self.depth)?;
                let value = visitor.visit_seq(Elements { input: &mut *input, depth, parts, index: 0 })?;
                end(input, "elements")?;
                Ok(value)
            }
            tag::MAP | tag::STRUCT | tag::WHOLE_STRUCT => {
                let depth = input.descend(self.depth)?;
                let start = input.bytes;
                let value = visitor.visit_map(Entries { input: &mut *input, depth, parts, key: start })?;
                end(input, "entries")?;
                Ok(value)
            }
            small @ tag::SMALL.. => visitor.visit_u64((small - tag::SMALL).into()),
            _ => Err(Fault::Damaged),
        }
    }

    /// Visits a value for a visitor that asked for a sequence: bytes count as a sequence.
    pub(super) fn elements<V: Visitor<'de>>(self, visitor: V, parts: Parts<'_>) -> Result<V::Value, Fault> {
        if self.tag()? != tag::BYTES {
            return self.visit_any(visitor, parts);
        }
        self.input.byte()?;
        let bytes = self.input.counted()?;
        SeqDeserializer::new(bytes.iter().copied()).deserialize_seq(visitor)
    }

    /// Visits a value for a visitor that asked for fields.
    pub(super) fn fields<V: Visitor<'de>>(self, visitor: V, parts: Parts<'_>) -> Result<V::Value, Fault> {
        let positional = |fields: &&Fields| self.input.positional && keys_are_asked_for(self.input, fields);
        let Some(fields) = parts.struct_fields().filter(positional) else { return self.visit_any(visitor, parts) };
        self.input.byte()?;
        let depth = self.input.descend(self.depth)?;
        let input = self.input;
        let mut left = 0;
        let mut positional = Positional { input: &mut *input, depth, parts, asked: 0, too_many: false };
        let value = visitor.visit_seq(&mut positional)?;
        let (asked, too_many) = (positional.asked, positional.too_many);
        while input.bytes.first() != Some(&tag::END) {
            skip(input)?;
            left += 1;
        }
        end(input, "entries")?;
        fields.asked((!too_many && left == 0).then_some(asked));
        Ok(value)
    }
}

/// Checks that nothing is left over.
fn end(input: &mut Input<'_>, what: &str) -> Result<(), Fault> {
    match input.byte()? {
        tag::END => Ok(()),
        _ => Err(serde::de::Error::custom(format_args!("it has more {what} than its Deserialize asks for"))),
    }
}

/// Returns whether the input has exactly the fields that are asked for, in the same order.
fn keys_are_asked_for(input: &Input<'_>, fields: &Fields) -> bool {
    let mut ahead = Input::new(input.bytes, input.levels);
    if !matches!(ahead.byte(), Ok(tag::WHOLE_STRUCT)) {
        return false;
    }
    let mut names = fields.names.iter();
    loop {
        match ahead.byte() {
            Ok(tag::END) => return true,
            Ok(tag::STR) => {}
            _ => return false,
        }
        let Ok(key) = ahead.text() else { return false };
        if !names.any(|name| *name == key) || skip(&mut ahead).is_err() {
            return false;
        }
    }
}
