//! A segment: a file with a header, records, and, when it is full, a seal.

use bytes::Bytes;

/// Bytes of a segment's header: a mark, the version of the format, the segment's number, 8 unused bytes, and a checksum
/// of these.
pub(super) const SEGMENT_HEADER: usize = 32;

/// The version of the format. A journal of a later one is refused.
pub(super) const FORMAT: u32 = 1;

/// Length of the end of a sealed segment, which has the position of the seal.
pub(super) const SEAL_END: usize = 12;

const MARK: &[u8; 8] = b"farpoolj";
const SEAL_MARK: &[u8; 8] = b"sealed\r\n";

/// Makes the header of a segment.
pub(super) fn header(segment: u32) -> [u8; SEGMENT_HEADER] {
    let mut header = [0; SEGMENT_HEADER];
    header[..8].copy_from_slice(MARK);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..16].copy_from_slice(&segment.to_le_bytes());
    let checksum = blake3::hash(&header[..24]);
    header[24..].copy_from_slice(&checksum.as_bytes()[..8]);
    header
}

/// The result of checking a segment's header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// The valid header of this segment.
    Sound,
    /// A header of a later format.
    Newer(u32),
    /// The header of the segment with this number: the file has a wrong name.
    Other(u32),
    /// Not a header, and why.
    Bad(&'static str),
}

/// Checks the first bytes of a segment's file.
pub(super) fn check(segment: u32, bytes: &[u8]) -> Header {
    let Ok(bytes) = <&[u8; SEGMENT_HEADER]>::try_from(bytes) else { return Header::Bad("its header is cut off") };
    if bytes[..8] != *MARK {
        return Header::Bad("it does not begin like a segment");
    }
    if blake3::hash(&bytes[..24]).as_bytes()[..8] != bytes[24..] {
        return Header::Bad("its header has a wrong checksum");
    }
    let format = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if format > FORMAT {
        return Header::Newer(format);
    }
    if *bytes != header(segment) {
        return Header::Other(u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]));
    }
    Header::Sound
}

/// Whether a file with these bytes is a segment whose header was being written: it has nothing else.
pub(super) fn is_unfinished(segment: u32, bytes: &[u8]) -> bool {
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    header(segment).starts_with(&bytes[..written])
}

/// Makes the payload of a seal that is `length` bytes long in all.
pub(super) fn seal_end(length: u32) -> Bytes {
    let mut end = Vec::with_capacity(SEAL_END);
    end.extend(length.to_le_bytes());
    end.extend(SEAL_MARK);
    end.into()
}

/// Returns the length of the seal that ends with these bytes, if it is one.
pub(super) fn sealed(end: &[u8; SEAL_END]) -> Option<u32> {
    let length = u32::from_le_bytes([end[0], end[1], end[2], end[3]]);
    (end[4..] == *SEAL_MARK).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_written_header_is_valid() {
        let sound = header(7);
        assert_eq!(check(7, &sound), Header::Sound);
        assert_eq!(check(8, &sound), Header::Other(7));
        for at in 0..SEGMENT_HEADER {
            let mut other = sound;
            other[at] ^= 0x20;
            assert!(matches!(check(7, &other), Header::Bad(_)), "byte {at}");
            assert!(matches!(check(7, &sound[..at]), Header::Bad(_)), "{at} bytes");
        }
    }

    #[test]
    fn unfinished_headers_are_distinguished_from_foreign_files() {
        let sound = header(7);
        for at in 0..SEGMENT_HEADER {
            assert!(is_unfinished(7, &sound[..at]), "{at} bytes");
            assert!(is_unfinished(7, &[&sound[..at], &[0; 99]].concat()), "{at} bytes, and zeros");
            assert!(!is_unfinished(7, &[&sound[..at], b"precious"].concat()), "{at} bytes, and others");
        }
        assert!(!is_unfinished(7, b"precious") && !is_unfinished(8, &sound));
    }

    #[test]
    fn later_formats_are_recognized() {
        let mut later = header(7);
        later[8..12].copy_from_slice(&(FORMAT + 1).to_le_bytes());
        let checksum = blake3::hash(&later[..24]);
        later[24..].copy_from_slice(&checksum.as_bytes()[..8]);
        assert_eq!(check(7, &later), Header::Newer(FORMAT + 1));
    }
}
