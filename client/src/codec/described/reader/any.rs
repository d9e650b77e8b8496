//! What is there, whatever was asked for.

use serde::de::value::SeqDeserializer;
use serde::de::{Deserializer, Visitor};

use super::Reader;
use super::access::{Elements, Entries, Nameless};
use super::parts::Parts;
use super::skip::skip;
use crate::codec::described::tag;
use crate::codec::fault::Fault;
use crate::codec::input::Input;
use crate::codec::shape::Fields;

/// Whether it is one of serde's own buffers (untagged, flatten, internally tagged), which tell `None` and `Some` from other
/// things. Visitors of other types know of JSON: there `None` is a unit, and `Some` is nothing at all.
fn is_buffer<V>() -> bool {
    std::any::type_name::<V>().contains("ContentVisitor")
}

impl<'de> Reader<'de, '_> {
    /// Shows the visitor what is there.
    pub(super) fn answer<V: Visitor<'de>>(self, visitor: V, parts: Parts<'_>) -> Result<V::Value, Fault> {
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
            // serde's buffers know characters, and what they read them into may not.
            tag::CHAR => visitor.visit_str(input.character()?.encode_utf8(&mut [0; 4])),
            tag::STR => visitor.visit_borrowed_str(input.text()?),
            tag::BYTES => visitor.visit_borrowed_bytes(input.counted()?),
            tag::NONE if is_buffer::<V>() => visitor.visit_none(),
            tag::NONE => visitor.visit_unit(),
            tag::SOME => {
                let depth = input.descend(self.depth)?;
                let ambiguous = matches!(input.bytes.first(), Some(&(tag::UNIT | tag::NONE | tag::SOME)));
                let content = Reader { input, depth, place: None };
                if ambiguous && is_buffer::<V>() { visitor.visit_some(content) } else { content.answer(visitor, parts) }
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

    /// As [`Reader::answer`], where a sequence was asked for: bytes are one.
    pub(super) fn elements<V: Visitor<'de>>(self, visitor: V, parts: Parts<'_>) -> Result<V::Value, Fault> {
        if self.tag()? != tag::BYTES {
            return self.answer(visitor, parts);
        }
        self.input.byte()?;
        let bytes = self.input.counted()?;
        SeqDeserializer::new(bytes.iter().copied()).deserialize_seq(visitor)
    }

    /// As [`Reader::answer`], where fields were asked for.
    pub(super) fn fields<V: Visitor<'de>>(self, visitor: V, parts: Parts<'_>) -> Result<V::Value, Fault> {
        let nameless = |fields: &&Fields| self.input.nameless && keys_are_asked_for(self.input, fields);
        let Some(fields) = parts.struct_fields().filter(nameless) else { return self.answer(visitor, parts) };
        self.input.byte()?;
        let depth = self.input.descend(self.depth)?;
        let input = self.input;
        let mut left = 0;
        let mut nameless = Nameless { input: &mut *input, depth, parts, asked: 0, too_many: false };
        let value = visitor.visit_seq(&mut nameless)?;
        let (asked, too_many) = (nameless.asked, nameless.too_many);
        while input.bytes.first() != Some(&tag::END) {
            skip(input)?;
            left += 1;
        }
        end(input, "entries")?;
        fields.asked((!too_many && left == 0).then_some(asked));
        Ok(value)
    }
}

/// The end of what was asked for must be that of what is there.
fn end(input: &mut Input<'_>, what: &str) -> Result<(), Fault> {
    match input.byte()? {
        tag::END => Ok(()),
        _ => Err(serde::de::Error::custom(format_args!("it has more {what} than its Deserialize asks for"))),
    }
}

/// Whether all fields are there, in the order in which they are asked for; others are not.
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
