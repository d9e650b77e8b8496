//! Learning what a type asks for: a value is written so that it describes itself, and read again, and what is asked for
//! meanwhile is noted.

use std::panic::{self, AssertUnwindSafe};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Known;
use super::notes::Place;
use crate::codec::depth;
use crate::codec::described::{Reader, Writer};
use crate::codec::fault::{Fault, MAX_DEPTH};
use crate::codec::input::Input;
use crate::codec::out::Out;

/// Notes what the parts of this value are asked for. A value that cannot be read here teaches what was asked before.
#[cold]
pub(in crate::codec) fn learn<T: Serialize + DeserializeOwned + 'static>(known: &'static Known, value: &T) {
    // What a Deserialize leaves half-done when it panics, it leaves so where the value arrives too.
    let _ = panic::catch_unwind(AssertUnwindSafe(|| {
        let mut bytes = Vec::new();
        let mut out = Out::new(&mut bytes);
        let written = Writer::new(&mut out, 0).write(value);
        out.conclude(written)?;
        depth::on_deep_stack(|| {
            // With names first, since they are what is right; then without.
            for nameless in [false, true] {
                let mut input = Input { nameless, ..Input::new(&bytes, 2 * MAX_DEPTH) };
                drop(T::deserialize(Reader::new(&mut input, Some(Place::of(known.root))))?);
            }
            Ok::<_, Fault>(())
        })
    }));
}
