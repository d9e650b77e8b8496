//! Placeholders, named as in GNU parallel.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A placeholder of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placeholder {
    /// `{#}`: the item's number.
    Number,
    /// All values, or the one at this position, from 1.
    Value(Option<usize>, ValuePart),
}

/// The part of a value that a placeholder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValuePart {
    Whole,
    WithoutExtension,
    FileName,
    Folder,
    FileNameWithoutExtension,
}

/// The longest suffix first.
const ENDS: [(&[u8], ValuePart); 5] = [
    (b"//}", ValuePart::Folder),
    (b"/.}", ValuePart::FileNameWithoutExtension),
    (b"/}", ValuePart::FileName),
    (b".}", ValuePart::WithoutExtension),
    (b"}", ValuePart::Whole),
];

impl Placeholder {
    /// All values as they are: `{}`.
    pub(super) const ALL: Placeholder = Placeholder::Value(None, ValuePart::Whole);

    /// Returns the placeholder at the start of the text, and its length. `numbered`: it may contain a position, as in
    /// `{2/}`.
    pub(super) fn at(text: &[u8], numbered: bool) -> Option<(Placeholder, usize)> {
        if text.starts_with(b"{#}") {
            return Some((Placeholder::Number, 3));
        }
        let inner = text.strip_prefix(b"{")?;
        let digits = if numbered { inner.iter().take_while(|byte| byte.is_ascii_digit()).count() } else { 0 };
        let position = match std::str::from_utf8(&inner[..digits]).ok()? {
            "" => None,
            digits => Some(digits.parse().ok().filter(|position| *position > 0)?),
        };
        let (end, take) = ENDS.iter().find(|(end, _)| inner[digits..].starts_with(end))?;
        Some((Placeholder::Value(position, *take), 1 + digits + end.len()))
    }
}

impl ValuePart {
    pub(super) fn of(self, value: &[u8]) -> &[u8] {
        let path = Path::new(OsStr::from_bytes(value));
        let taken = match self {
            Self::Whole => None,
            Self::WithoutExtension => path.extension().map(|extension| &value[..value.len() - extension.len() - 1]),
            Self::FileName => path.file_name().map(OsStr::as_bytes),
            Self::FileNameWithoutExtension => path.file_stem().map(OsStr::as_bytes),
            Self::Folder => Some(match path.parent().map(|folder| folder.as_os_str().as_bytes()) {
                Some(b"") => b".",
                Some(folder) => folder,
                // The root or an empty value.
                None if value.is_empty() => b".",
                None => value,
            }),
        };
        taken.unwrap_or(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_recognised() {
        let at = |text: &str| Placeholder::at(text.as_bytes(), true);
        assert_eq!(at("{} x"), Some((Placeholder::ALL, 2)));
        assert_eq!(at("{#}"), Some((Placeholder::Number, 3)));
        assert_eq!(at("{12//}."), Some((Placeholder::Value(Some(12), ValuePart::Folder), 6)));
        assert_eq!(at("{/.}"), Some((Placeholder::Value(None, ValuePart::FileNameWithoutExtension), 4)));
        assert_eq!(at("{1.}"), Some((Placeholder::Value(Some(1), ValuePart::WithoutExtension), 4)));
        for other in ["", "{", "{x}", "{0}", "{1", "{1,2}", "{99999999999999999999}", "{###}", "x{}"] {
            assert_eq!(at(other), None, "{other}");
        }
        assert_eq!(Placeholder::at(b"{1}", false), None);
    }
}
