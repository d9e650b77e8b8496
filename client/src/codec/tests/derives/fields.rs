//! Fields that are sometimes left out.

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::check;

/// Fields that are sometimes left out, before others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Skipping {
    first: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    d: Option<u8>,
    e: u8,
    cents: u64,
    #[serde(default, skip_serializing_if = "is_five")]
    five: u32,
    #[serde(default = "yes", skip_serializing)]
    never_written: bool,
    #[serde(skip)]
    never: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    list: Vec<String>,
}

strategy!(Skipping: any::<(u16, Option<u8>, u8, u64)>(), 4..7_u32, any::<(bool, u64)>(), any::<Vec<String>>() =>
    |(first, d, e, cents), five, (never_written, never), list|
    Skipping { first, d, e, cents, five, never_written, never, list });

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JustOneIf {
    a: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    d: Option<u8>,
    e: u8,
    cents: u64,
}

strategy!(JustOneIf: any::<(u8, Option<u8>, u8, u64)>() => |(a, d, e, cents)| JustOneIf { a, d, e, cents });

fn yes() -> bool {
    true
}

fn is_five(number: &u32) -> bool {
    *number == 5
}

proptest! {
    #[test]
    fn skipped_fields(value: Skipping, one: JustOneIf) {
        check(value);
        check(one);
    }
}
