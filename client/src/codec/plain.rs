//! Values that are bytes already: strings and vectors of plain numbers.

use std::any::Any;

use bytemuck::Pod;

use super::varint;

/// A value's element count and its memory.
pub(super) struct Plain<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl Plain<'_> {
    pub(super) fn append(&self, out: &mut Vec<u8>) {
        let mut count = [0; varint::MAX_BYTES];
        let length = varint::write(self.count as u64, &mut count);
        out.reserve(length + self.bytes.len());
        out.extend_from_slice(&count[..length]);
        out.extend_from_slice(self.bytes);
    }

    /// How many bytes it took; `None` if there was not enough room.
    pub(super) fn write(&self, out: &mut [u8]) -> Option<usize> {
        let mut count = [0; varint::MAX_BYTES];
        let length = varint::write(self.count as u64, &mut count);
        let end = length + self.bytes.len();
        let out = out.get_mut(..end)?;
        out[..length].copy_from_slice(&count[..length]);
        out[length..].copy_from_slice(self.bytes);
        Some(end)
    }
}

/// Calls the macro with every element type whose vectors are copied whole.
macro_rules! for_each_number {
    ($apply:ident) => {
        $apply!(u8, i8, u16, i16, u32, i32, u64, i64, u128, i128, usize, isize, f32, f64)
    };
}

/// The value as bytes, if it is of a type that can be copied whole.
// The comparisons of types are of constants: what is left after inlining is one branch, or none.
#[inline(always)]
pub(super) fn view<T: 'static>(value: &T) -> Option<Plain<'_>> {
    let value = value as &dyn Any;
    if let Some(text) = value.downcast_ref::<String>() {
        return Some(Plain { count: text.len(), bytes: text.as_bytes() });
    }
    macro_rules! vectors {
        ($($number:ty),*) => {$(
            if let Some(numbers) = value.downcast_ref::<Vec<$number>>() {
                return Some(Plain { count: numbers.len(), bytes: bytemuck::cast_slice(numbers) });
            }
        )*};
    }
    for_each_number!(vectors);
    None
}

/// Reads a value from the start of `bytes`; `None` if it is not of a type that is copied whole.
#[inline(always)]
pub(super) fn read<T: 'static>(bytes: &[u8]) -> Option<Result<(T, &[u8]), &'static str>> {
    // Through an empty slot of the type, so that the type is known before there is a value.
    let mut slot: Option<T> = None;
    let rest = fill(&mut slot, bytes)?;
    Some(rest.and_then(|rest| slot.map(|value| (value, rest)).ok_or("nothing was read")))
}

#[inline(always)]
fn fill<'a>(slot: &mut dyn Any, bytes: &'a [u8]) -> Option<Result<&'a [u8], &'static str>> {
    if let Some(slot) = slot.downcast_mut::<Option<String>>() {
        return Some(read_text(bytes).map(|(text, rest)| {
            *slot = Some(text);
            rest
        }));
    }
    macro_rules! vectors {
        ($($number:ty),*) => {$(
            if let Some(slot) = slot.downcast_mut::<Option<Vec<$number>>>() {
                return Some(read_numbers(bytes).map(|(numbers, rest)| {
                    *slot = Some(numbers);
                    rest
                }));
            }
        )*};
    }
    for_each_number!(vectors);
    None
}

fn read_text(bytes: &[u8]) -> Result<(String, &[u8]), &'static str> {
    let (text, rest) = split::<u8>(bytes)?;
    let text = std::str::from_utf8(text).map_err(|_| "the text is not UTF-8")?;
    Ok((text.to_owned(), rest))
}

fn read_numbers<N: Pod>(bytes: &[u8]) -> Result<(Vec<N>, &[u8]), &'static str> {
    let (memory, rest) = split::<N>(bytes)?;
    Ok((bytemuck::pod_collect_to_vec(memory), rest))
}

/// The memory of the elements, and the bytes behind them. The count is not trusted: nothing is reserved for it.
fn split<N>(bytes: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let (count, rest) = varint::read(bytes).ok_or("the element count is cut short")?;
    usize::try_from(count)
        .ok()
        .and_then(|count| count.checked_mul(size_of::<N>()))
        .and_then(|length| rest.split_at_checked(length))
        .ok_or("there are fewer bytes than the element count says")
}
