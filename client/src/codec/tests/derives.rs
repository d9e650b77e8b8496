//! Combinations of serde's attributes, with serde_json's round trip as the oracle.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{ReadBy, decode, encode, encode_for};

/// Makes values of a type out of strategies for its parts.
macro_rules! strategy {
    ($type:ty: $($strategy:expr),+ $(,)? => |$($name:pat_param),+| $value:expr) => {
        impl Arbitrary for $type {
            type Parameters = ();
            type Strategy = BoxedStrategy<Self>;

            fn arbitrary_with((): ()) -> Self::Strategy {
                ($($strategy,)+).prop_map(|($($name,)+)| $value).boxed()
            }
        }
    };
}

mod conversions;
mod enums;
mod fields;
mod flattened;
mod foreign;

trait Plain: Serialize + DeserializeOwned + PartialEq + Debug + Clone + 'static {}

impl<T: Serialize + DeserializeOwned + PartialEq + Debug + Clone + 'static> Plain for T {}

fn through_json<T: Plain>(value: &T) -> Result<T, serde_json::Error> {
    serde_json::from_str(&serde_json::to_string(value)?)
}

fn through<T: Plain>(value: &T) -> T {
    let mut bytes = Vec::new();
    encode(value, &mut bytes).unwrap();
    let here = decode(&bytes).unwrap_or_else(|error| panic!("{value:?}: {error}"));
    bytes.clear();
    encode_for(ReadBy::AnyBuild, value, &mut bytes).unwrap();
    assert_eq!(decode::<T>(&bytes).unwrap(), here);
    here
}

/// Checks that a value arrives as through JSON, alone and as a part of others.
fn check<T: Plain>(value: T) {
    let expected = through_json(&value).unwrap();
    assert_eq!(through(&value), expected);
    let times = |times| vec![expected.clone(); times];
    assert_eq!(through(&vec![value.clone(); 3]), times(3));
    assert_eq!(through(&(7_u8, value.clone(), 300_u64)), (7, expected.clone(), 300));
    assert_eq!(through(&BTreeMap::from([(5_u64, value.clone())])), BTreeMap::from([(5, expected.clone())]));
    assert_eq!(through(&Some(Some(Box::new(value)))), Some(Some(Box::new(expected))));
}
