//! Flattened structs, and arbitrary JSON.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::check;
use super::enums::Adjacent;
use super::fields::JustOneIf;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    id: u32,
    #[serde(flatten)]
    letters: JustOneIf,
    #[serde(flatten)]
    maybe: Option<Inner>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Inner {
    inner: String,
    #[serde(rename = "nested-one")]
    nested: Adjacent,
}

strategy!(Inner: any::<String>(), any::<Adjacent>() => |inner, nested| Inner { inner, nested });
strategy!(Flat: any::<u32>(), any::<JustOneIf>(), any::<Option<Inner>>(), json() => |id, letters, maybe, value|
    Flat { id, letters, maybe, rest: BTreeMap::from([("any thing".to_owned(), value)]) });

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn flattened_structs(value: Flat) {
        check(value);
    }

    #[test]
    fn any_json(value in json()) {
        check(value);
    }
}
