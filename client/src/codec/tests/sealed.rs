//! Results that another build of the program reads.

use std::fmt::Debug;

use serde::{Deserialize, Serialize};

use crate::args::Data;
use crate::codec::shape::known_type;
use crate::codec::{ReadBy, decode, encode_for};

/// Returns the bytes of a value as they are stored.
fn kept<T: Data>(value: &T) -> Vec<u8> {
    // While another test looks up a type, values are self-describing instead. What this thread has looked up, it finds again.
    while known_type::<T>().is_none() {
        std::thread::yield_now();
    }
    let mut bytes = Vec::new();
    encode_for(ReadBy::AnyBuild, value, &mut bytes).unwrap();
    bytes
}

fn rejected<T: Data + Debug>(bytes: &[u8]) {
    let error = decode::<T>(bytes).unwrap_err();
    assert!(error.0.contains("Report") && error.0.contains("another build"), "{error}");
}

macro_rules! builds {
    ($($build:ident { $($item:item)* })*) => {$(
        mod $build {
            use super::*;

            #[derive(Debug, PartialEq, Serialize, Deserialize)]
            $($item)*
        }
    )*};
}

builds! {
    first { pub(super) struct Report { pub(super) a: u32, pub(super) b: u32, pub(super) kind: Option<u8> } }
    swapped { pub(super) struct Report { b: u32, a: u32, kind: Option<u8> } }
    renamed { pub(super) struct Report { a: u32, c: u32, kind: Option<u8> } }
    wider { pub(super) struct Report { a: u32, b: u64, kind: Option<u8> } }
    shorter { pub(super) struct Report { a: u32, b: u32 } }
    longer { pub(super) struct Report { a: u32, b: u32, kind: Option<u8>, #[serde(default)] more: u8 } }
    tuple { pub(super) struct Report(u32, u32, Option<u8>); }
    other { pub(super) enum Report { A, B(u8) } }
}

#[test]
fn a_changed_type_is_rejected() {
    for (a, b, kind) in [(1, 2, None), (300, 300, Some(1)), (0, 0, Some(0))] {
        let report = first::Report { a, b, kind };
        let bytes = kept(&report);
        assert_eq!(decode::<first::Report>(&bytes).unwrap(), report);
        rejected::<swapped::Report>(&bytes);
        rejected::<renamed::Report>(&bytes);
        rejected::<wider::Report>(&bytes);
        rejected::<shorter::Report>(&bytes);
        rejected::<longer::Report>(&bytes);
        rejected::<tuple::Report>(&bytes);
        rejected::<other::Report>(&bytes);
    }
}

builds! {
    states { pub(super) enum Report { New, Done(u8), Lost { at: u32 } } }
    reordered { pub(super) enum Report { Done(u8), New, Lost { at: u32 } } }
    replaced { pub(super) enum Report { New, Gone(u8), Lost { when: u32 } } }
}

#[test]
fn variants_are_identified_by_name() {
    for report in [states::Report::New, states::Report::Done(3), states::Report::Lost { at: 7 }] {
        let bytes = kept(&report);
        assert_eq!(decode::<states::Report>(&bytes).unwrap(), report);
        match report {
            states::Report::New => assert_eq!(decode::<replaced::Report>(&bytes).unwrap(), replaced::Report::New),
            _ => rejected::<replaced::Report>(&bytes),
        }
        if !matches!(report, states::Report::Lost { .. }) {
            rejected::<reordered::Report>(&bytes);
        }
    }
}

#[test]
fn damaged_bytes_are_rejected() {
    let bytes = kept(&first::Report { a: 1, b: 2, kind: None });
    for length in 0..bytes.len() {
        decode::<first::Report>(&bytes[..length]).unwrap_err();
    }
}
