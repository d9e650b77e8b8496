/// The longest encoding of a count.
pub(super) const MAX_BYTES: usize = 10;

/// Writes a count, seven bits a byte, the lowest first; returns how many bytes it took.
pub(super) fn write(mut count: u64, out: &mut [u8; MAX_BYTES]) -> usize {
    let mut length = 0;
    loop {
        let low = (count & 0x7f) as u8;
        count >>= 7;
        if count == 0 {
            out[length] = low;
            return length + 1;
        }
        out[length] = low | 0x80;
        length += 1;
    }
}

/// Reads a count and returns the bytes after it; `None` if there is no complete count.
#[inline]
pub(super) fn read(bytes: &[u8]) -> Option<(u64, &[u8])> {
    match bytes {
        [byte, rest @ ..] if *byte < 0x80 => Some(((*byte).into(), rest)),
        _ => read_long(bytes),
    }
}

fn read_long(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut count = 0_u64;
    for (index, &byte) in bytes.iter().take(MAX_BYTES).enumerate() {
        let low = u64::from(byte & 0x7f);
        let shift = 7 * index as u32;
        // The tenth byte holds one bit: more would overflow.
        if index == MAX_BYTES - 1 && low > 1 {
            return None;
        }
        count |= low << shift;
        if byte & 0x80 == 0 {
            return Some((count, &bytes[index + 1..]));
        }
    }
    None
}

/// Maps small numbers of either sign to small counts.
#[inline]
pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

#[inline]
pub(super) fn unzigzag(count: u64) -> i64 {
    (count >> 1) as i64 ^ -((count & 1) as i64)
}
