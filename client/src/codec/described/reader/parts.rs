//! Where to note what the parts of a part are asked for.

use crate::codec::shape::notes::{Noted, Place};
use crate::codec::shape::{Ask, Content, Fields};

/// What was noted of a part, for the notes on its parts.
#[derive(Clone, Copy)]
pub(super) struct Parts<'r> {
    noted: Option<&'r Noted<'r>>,
    /// If it is the content of a variant: which.
    content: Option<&'static Content>,
}

impl<'r> Parts<'r> {
    pub(super) fn unnoted() -> Self {
        Self { noted: None, content: None }
    }

    pub(super) fn of(noted: &'r Option<Noted<'r>>) -> Self {
        Self { noted: noted.as_ref(), content: None }
    }

    pub(super) fn of_content(noted: Option<&'r Noted<'r>>, content: Option<&'static Content>) -> Self {
        Self { noted: noted.filter(|_| content.is_some()), content }
    }

    /// The place of the part at this index; of a map, of its values; of a struct, of the field of this name.
    pub(super) fn part(self, index: usize, name: Option<&str>) -> Option<Place<'r>> {
        let noted = self.noted?;
        let node = match (self.content, noted.ask) {
            (None, Ask::Option(node) | Ask::Seq(node) | Ask::Map(_, node)) | (Some(Content::Newtype(node)), _) => *node,
            (None, Ask::Tuple(nodes)) | (Some(Content::Tuple(nodes)), _) => *nodes.get(index)?,
            _ => {
                let fields = self.struct_fields()?;
                let name = name?;
                fields.nodes[fields.names.iter().position(|asked| *asked == name)?]
            }
        };
        Some(Place::inside(node, noted))
    }

    /// The place of a map's keys.
    pub(super) fn key(self) -> Option<Place<'r>> {
        match self.noted?.ask {
            Ask::Map(node, _) if self.content.is_none() => Some(Place::inside(node, self.noted?)),
            _ => None,
        }
    }

    pub(super) fn struct_fields(self) -> Option<&'static Fields> {
        match (self.content, self.noted?.ask) {
            (None, Ask::Struct(fields)) | (Some(Content::Struct(fields)), _) => Some(fields),
            _ => None,
        }
    }
}
