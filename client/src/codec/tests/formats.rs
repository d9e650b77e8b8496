//! Which format is used for which values.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::{decode, encode, mark};

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug + 'static>(value: T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&value, &mut bytes).unwrap();
    assert_eq!(decode::<T>(&bytes).unwrap(), value);
    bytes
}

fn compact<T: Serialize + DeserializeOwned + PartialEq + Debug + Clone + 'static>(value: T) {
    // While another thread learns about a type, values of new types use the self-describing format.
    let is_compact = |_: &u32| round_trip(value.clone())[0] & !mark::DEEP == mark::COMPACT;
    let found = (0..10_000).find(|attempt| {
        is_compact(attempt) || {
            std::thread::yield_now();
            false
        }
    });
    assert!(found.is_some(), "{value:?} describes itself");
}

fn described<T: Serialize + DeserializeOwned + PartialEq + Debug + 'static>(value: T) {
    assert_eq!(round_trip(value)[0] & !mark::DEEP, mark::DESCRIBED);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u64,
    items: Vec<Item>,
    note: Option<String>,
    state: State,
    extra: serde_json::Value,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Item {
    #[serde(alias = "article")]
    name: String,
    price: Price,
    #[serde(skip)]
    cached: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Price(u32, char);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum State {
    New,
    Paid { at: f64, by: HashMap<String, i8> },
    Sent(u128),
    Back(u8, ()),
}

#[test]
fn types_that_are_read_as_they_are_written_are_compact() {
    let item = Item { name: "book".to_owned(), price: Price(1999, '€'), cached: false };
    for state in [
        State::New,
        State::Paid { at: 0.5, by: HashMap::from([("x".to_owned(), -1)]) },
        State::Sent(1 << 100),
        State::Back(1, ()),
    ] {
        let extra = serde_json::json!({"a": [1, null, {"b": "c"}]});
        let order = Order { id: 300, items: vec![item.clone(); 2], note: Some("n".to_owned()), state, extra };
        compact(order.clone());
        compact(Order { items: vec![], note: None, ..order });
    }
    compact((1_u8, 2_u64));
    compact([[1_i32; 3]; 2]);
    compact(vec![Some("a".to_owned()), None]);
    compact(std::net::IpAddr::from([1, 2, 3, 4]));
    compact(BTreeMap::from([((1_u8, 'x'), vec![1.5_f64])]));
}

#[test]
fn plain_values_have_no_mark() {
    assert_eq!(round_trip(5_u64), [5]);
    assert_eq!(round_trip(300_u16), [0xac, 2]);
    assert_eq!(round_trip(-1_i32), [1]);
    assert_eq!(round_trip('a'), [1, b'a']);
    assert_eq!(round_trip(true), [1]);
    assert_eq!(round_trip("ab".to_owned()), [2, b'a', b'b']);
    assert!(round_trip(()).is_empty());
}

/// The shape of a recursive type is known after few values, however deep the next ones are.
#[test]
fn recursive_types_are_compact() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Term {
        Number(i64),
        Sum(Box<Term>, Box<Term>),
        Call { name: String, arguments: Vec<Term> },
        Maybe(Option<Box<Term>>),
    }
    fn term(depth: u32) -> Term {
        match depth {
            0 => Term::Number(7),
            _ if depth.is_multiple_of(3) => Term::Call { name: "f".to_owned(), arguments: vec![term(depth - 1); 2] },
            _ if depth.is_multiple_of(2) => Term::Maybe(Some(Box::new(term(depth - 1)))),
            _ => Term::Sum(Box::new(term(depth - 1)), Box::new(term(depth - 1))),
        }
    }
    for depth in 0..15 {
        compact(term(depth));
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Sparse {
    #[serde(skip_serializing_if = "Option::is_none")]
    d: Option<u8>,
    e: u8,
    cents: u64,
}

#[test]
fn a_value_with_a_skipped_field_is_self_describing_and_others_of_its_type_are_not() {
    described(Sparse { d: None, e: 1, cents: 300 });
    compact(Sparse { d: Some(1), e: 1, cents: 300 });
    described(Sparse { d: None, e: 1, cents: 300 });
    compact(vec![Sparse { d: Some(1), e: 1, cents: 300 }; 3]);
    described(vec![Sparse { d: Some(1), e: 1, cents: 2 }, Sparse { d: None, e: 2, cents: 3 }]);
}

/// JSON cannot tell these apart.
#[test]
fn values_that_json_cannot_tell_apart() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Unit(()),
        Nested { a: Option<Option<()>>, b: Option<()> },
        Bytes(#[serde(with = "as_bytes")] Vec<u8>),
        Keys(BTreeMap<(i8, u8), f32>),
    }
    let all = [
        Either::Unit(()),
        Either::Nested { a: None, b: None },
        Either::Nested { a: Some(None), b: Some(()) },
        Either::Nested { a: Some(Some(())), b: None },
        Either::Bytes(vec![1, 2, 255]),
        Either::Keys(BTreeMap::from([((-1, 2), f32::INFINITY)])),
    ];
    for value in &all {
        round_trip(value.clone());
        described(FlatKeys { value: value.clone(), skipped: None, wide: u128::MAX, low: i128::MIN });
    }
    round_trip(all.to_vec());
    let mut bytes = Vec::new();
    let nan = f64::from_bits(0x7ff8_0000_0000_1234);
    encode(&(Sparse { d: None, e: 1, cents: 2 }, nan), &mut bytes).unwrap();
    assert_eq!(decode::<(Sparse, f64)>(&bytes).unwrap().1.to_bits(), nan.to_bits());

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct FlatKeys {
        value: Either,
        #[serde(skip_serializing_if = "Option::is_none")]
        skipped: Option<u8>,
        wide: u128,
        low: i128,
    }
}

mod as_bytes {
    use serde::{Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}

/// Manual implementations that positional formats cannot decode.
#[test]
fn asymmetric_implementations_are_self_describing() {
    /// Its visitor accepts only maps.
    #[derive(Debug, PartialEq, Serialize)]
    struct MapOnly {
        a: u8,
        b: u8,
    }
    impl<'de> Deserialize<'de> for MapOnly {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = MapOnly;

                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a map")
                }

                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<MapOnly, A::Error> {
                    let mut value = MapOnly { a: 0, b: 0 };
                    while let Some(key) = map.next_key::<String>()? {
                        match key.as_str() {
                            "a" => value.a = map.next_value()?,
                            _ => value.b = map.next_value()?,
                        }
                    }
                    Ok(value)
                }
            }
            deserializer.deserialize_struct("MapOnly", &["a", "b"], Visitor)
        }
    }
    described(MapOnly { a: 1, b: 2 });

    /// Reads a different kind of number than it writes.
    #[derive(Debug, PartialEq)]
    struct Wider(u8);
    impl Serialize for Wider {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_u8(self.0)
        }
    }
    impl<'de> Deserialize<'de> for Wider {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            Ok(Wider(u64::deserialize(deserializer)? as u8))
        }
    }
    described(Wider(200));
    described(vec![Wider(1), Wider(200)]);

    /// A sequence whose length it does not know.
    #[derive(Debug, PartialEq, Deserialize)]
    struct Even(Vec<u32>);
    impl Serialize for Even {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(self.0.iter().filter(|number| number.is_multiple_of(2)))
        }
    }
    described(Even(vec![2, 4]));
}
