//! The ends of consecutive payloads: a `u32` each, relative to the start of the first one.

use bytes::Bytes;

/// The end of a single short payload, for each length.
static OF_SINGLE: [[u8; 4]; 256] = {
    let mut ends = [[0; 4]; 256];
    let mut length = 0;
    while length < ends.len() {
        ends[length] = (length as u32).to_le_bytes();
        length += 1;
    }
    ends
};

/// Returns the ends of a single short payload of this length; `None` if there are several, or it is long. The bytes are
/// static, so sharing them needs no reference count. That matters where each payload travels by itself.
#[inline]
pub fn of_single(count: u64, length: usize) -> Option<Bytes> {
    OF_SINGLE.get(length).filter(|_| count == 1).map(|end| Bytes::from_static(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_payload_ends_after_its_length() {
        for length in 0..256 {
            assert_eq!(of_single(1, length).as_deref(), Some(&(length as u32).to_le_bytes()[..]));
        }
        assert_eq!((of_single(1, 256), of_single(0, 0), of_single(2, 8)), (None, None, None));
    }
}
