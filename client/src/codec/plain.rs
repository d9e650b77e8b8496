//! Values that need no serde: numbers, strings and vectors of numbers. They carry no mark.

use std::any::Any;

use bytemuck::Pod;

use super::fault::Fault;
use super::input::Input;
use super::out::WriteLeaf;
use super::sink::Sink;

/// Calls the macro with every element type whose vectors are copied whole.
macro_rules! for_each_element {
    ($apply:ident) => {
        $apply!(u8, i8, u16, i16, u32, i32, u64, i64, u128, i128, usize, isize, f32, f64)
    };
}

/// Calls the macro with every number: its type, how it is written, and how it is read.
macro_rules! for_each_number {
    ($apply:ident) => {
        $apply! {
            u8: |n, sink| sink.push(n), |input| input.byte(),
            i8: |n, sink| sink.push(n as u8), |input| input.byte().map(|byte| byte as i8),
            u16: |n, sink| sink.unsigned(n.into()), |input| fits(input.unsigned()?.try_into()),
            u32: |n, sink| sink.unsigned(n.into()), |input| fits(input.unsigned()?.try_into()),
            u64: |n, sink| sink.unsigned(n), |input| input.unsigned(),
            usize: |n, sink| sink.unsigned(n as u64), |input| fits(input.unsigned()?.try_into()),
            i16: |n, sink| sink.signed(n.into()), |input| fits(input.signed()?.try_into()),
            i32: |n, sink| sink.signed(n.into()), |input| fits(input.signed()?.try_into()),
            i64: |n, sink| sink.signed(n), |input| input.signed(),
            isize: |n, sink| sink.signed(n as i64), |input| fits(input.signed()?.try_into()),
            f32: |n, sink| sink.extend(&n.to_le_bytes()), |input| input.array().map(f32::from_le_bytes),
            f64: |n, sink| sink.extend(&n.to_le_bytes()), |input| input.array().map(f64::from_le_bytes),
            bool: |n, sink| sink.push(n.into()), |input| input.boolean(),
            char: |n, sink| sink.character(n), |input| input.character(),
            (): |_n, _sink| Ok(()), |_input| Ok(()),
        }
    };
}

/// Returns whether values of the type are plain.
#[inline(always)]
pub(super) fn is_plain<T: 'static>() -> bool {
    let slot: &dyn Any = &None::<T>;
    macro_rules! elements {
        ($($element:ty),*) => { slot.is::<Option<String>>() $(|| slot.is::<Option<Vec<$element>>>())* };
    }
    macro_rules! numbers {
        ($($number:ty: $write:expr, $read:expr,)*) => { false $(|| slot.is::<Option<$number>>())* };
    }
    for_each_element!(elements) || for_each_number!(numbers)
}

/// Writes the value if it is plain.
// The type comparisons are constant: after inlining, one branch or none remains.
#[inline(always)]
pub(super) fn write<T: 'static, S: Sink>(value: &T, sink: &mut S) -> Option<Result<(), Fault>> {
    let value = value as &dyn Any;
    macro_rules! numbers {
        ($($number:ty: |$n:ident, $sink:ident| $write:expr, |$input:ident| $read:expr,)*) => {$(
            if let Some(number) = value.downcast_ref::<$number>() {
                let ($n, $sink) = (*number, sink);
                return Some($write);
            }
        )*};
    }
    macro_rules! vectors {
        ($($element:ty),*) => {$(
            if let Some(elements) = value.downcast_ref::<Vec<$element>>() {
                return Some(memory(elements.len(), bytemuck::cast_slice(elements), sink));
            }
        )*};
    }
    for_each_number!(numbers);
    if let Some(text) = value.downcast_ref::<String>() {
        return Some(memory(text.len(), text.as_bytes(), sink));
    }
    for_each_element!(vectors);
    None
}

fn memory<S: Sink>(count: usize, bytes: &[u8], sink: &mut S) -> Result<(), Fault> {
    sink.reserve(bytes.len() + super::varint::MAX_BYTES);
    sink.varint(count as u64)?;
    sink.extend(bytes)
}

/// Reads a value if its type is plain.
#[inline(always)]
pub(super) fn read<T: 'static>(input: &mut Input<'_>) -> Option<Result<T, Fault>> {
    // Through an empty slot of the type, so that the type can be compared before there is a value.
    let mut slot: Option<T> = None;
    let read = fill(&mut slot, input)?;
    Some(read.and_then(|()| slot.ok_or(Fault::Damaged)))
}

#[inline(always)]
fn fill(slot: &mut dyn Any, input: &mut Input<'_>) -> Option<Result<(), Fault>> {
    macro_rules! numbers {
        ($($number:ty: |$n:ident, $sink:ident| $write:expr, |$input:ident| $read:expr,)*) => {$(
            if let Some(slot) = slot.downcast_mut::<Option<$number>>() {
                #[inline(always)]
                fn number($input: &mut Input<'_>) -> Result<$number, Fault> {
                    $read
                }
                return Some(number(input).map(|number| *slot = Some(number)));
            }
        )*};
    }
    macro_rules! vectors {
        ($($element:ty),*) => {$(
            if let Some(slot) = slot.downcast_mut::<Option<Vec<$element>>>() {
                return Some(read_elements(input).map(|elements| *slot = Some(elements)));
            }
        )*};
    }
    for_each_number!(numbers);
    if let Some(slot) = slot.downcast_mut::<Option<String>>() {
        return Some(input.text().map(|text| *slot = Some(text.to_owned())));
    }
    for_each_element!(vectors);
    None
}

#[inline(always)]
fn fits<N>(number: Result<N, std::num::TryFromIntError>) -> Result<N, Fault> {
    number.map_err(|_| Fault::Damaged)
}

/// Reads a vector. The count is not trusted, so no memory is reserved for it.
fn read_elements<N: Pod>(input: &mut Input<'_>) -> Result<Vec<N>, Fault> {
    let count = input.unsigned()?;
    let bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(size_of::<N>()));
    Ok(bytemuck::pod_collect_to_vec(input.take(bytes.ok_or(Fault::Truncated)?)?))
}
