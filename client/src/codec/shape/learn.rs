//! Learns the shape of a type: encodes a value in the self-describing format, decodes it again, and records what Deserialize asks
//! for.

use std::panic::{self, AssertUnwindSafe};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::KnownType;
use super::recording::Recorder;
use crate::codec::depth;
use crate::codec::described::{DescribedReader, DescribedWriter};
use crate::codec::fault::{Fault, MAX_DEPTH};
use crate::codec::input::Input;
use crate::codec::out::Out;

/// Records what Deserialize asks for while it decodes this value. If decoding fails, what was recorded before counts.
#[cold]
pub(in crate::codec) fn learn<T: Serialize + DeserializeOwned + 'static>(known_type: &'static KnownType, value: &T) {
    // A Deserialize that panics would also panic where the value arrives, and leave the same state behind.
    let _ = panic::catch_unwind(AssertUnwindSafe(|| {
        let mut bytes = Vec::new();
        let mut out = Out::new(&mut bytes);
        let written = DescribedWriter::new(&mut out, 0).write(value);
        out.conclude(written)?;
        depth::on_deep_stack(|| {
            // With names first, which is always correct; then without.
            for positional in [false, true] {
                let mut input = Input { positional, ..Input::new(&bytes, 2 * MAX_DEPTH) };
                drop(T::deserialize(DescribedReader::new(&mut input, Some(Recorder::of(known_type.root))))?);
            }
            Ok::<_, Fault>(())
        })
    }));
}
