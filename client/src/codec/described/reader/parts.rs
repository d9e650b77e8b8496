//! Finds the recorders for the parts of a part.

use crate::codec::shape::recording::{Recorded, Recorder};
use crate::codec::shape::{Content, Fields, Shape};

/// The recorded shape of a part, which leads to the recorders of its parts.
#[derive(Clone, Copy)]
pub(super) struct Parts<'r> {
    recorded: Option<&'r Recorded<'r>>,
    /// The content of the variant, if the part is a variant.
    content: Option<&'static Content>,
}

impl<'r> Parts<'r> {
    pub(super) fn unrecorded() -> Self {
        Self { recorded: None, content: None }
    }

    pub(super) fn of(recorded: &'r Option<Recorded<'r>>) -> Self {
        Self { recorded: recorded.as_ref(), content: None }
    }

    pub(super) fn of_content(recorded: Option<&'r Recorded<'r>>, content: Option<&'static Content>) -> Self {
        Self { recorded: recorded.filter(|_| content.is_some()), content }
    }

    /// Returns the recorder of the part at this index; for a map, of its values; for a struct, of the field with this name.
    pub(super) fn part(self, index: usize, name: Option<&str>) -> Option<Recorder<'r>> {
        let recorded = self.recorded?;
        let node = match (self.content, recorded.shape) {
            (None, Shape::Option(node) | Shape::Seq(node) | Shape::Map(_, node))
            | (Some(Content::Newtype(node)), _) => *node,
            (None, Shape::Tuple(nodes)) | (Some(Content::Tuple(nodes)), _) => *nodes.get(index)?,
            _ => {
                let fields = self.struct_fields()?;
                let name = name?;
                fields.nodes[fields.names.iter().position(|asked| *asked == name)?]
            }
        };
        Some(Recorder::inside(node, recorded))
    }

    /// Returns the recorder of a map's keys.
    pub(super) fn key(self) -> Option<Recorder<'r>> {
        match self.recorded?.shape {
            Shape::Map(node, _) if self.content.is_none() => Some(Recorder::inside(node, self.recorded?)),
            _ => None,
        }
    }

    pub(super) fn struct_fields(self) -> Option<&'static Fields> {
        match (self.content, self.recorded?.shape) {
            (None, Shape::Struct(fields)) | (Some(Content::Struct(fields)), _) => Some(fields),
            _ => None,
        }
    }
}
