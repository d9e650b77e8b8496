//! Types that are written or read as other types.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::{check, through_json};
use crate::codec::{decode, encode};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
struct Hex(u64);

impl From<Hex> for String {
    fn from(Hex(number): Hex) -> Self {
        format!("{number:x}")
    }
}

impl TryFrom<String> for Hex {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&text, 16).map(Hex)
    }
}

/// Writes a text or an option, and reads a number or a text.
mod lenient {
    use super::*;

    pub(super) fn serialize<S: serde::Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        if number.is_multiple_of(2) { serializer.collect_str(number) } else { Some(number).serialize(serializer) }
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = u64;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number, or its text")
            }

            fn visit_u64<E>(self, number: u64) -> Result<u64, E> {
                Ok(number)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u64, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all(serialize = "camelCase", deserialize = "camelCase"), deny_unknown_fields)]
struct Converted {
    the_hex: Hex,
    #[serde(with = "lenient")]
    the_number: u64,
    #[serde(rename(serialize = "out", deserialize = "in"), default)]
    renamed: u8,
    #[serde(alias = "aliasOfIt", alias = "aaa")]
    aliased: i16,
    through: Transparent,
    wrapped: Wrapped,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Transparent {
    inner: Vec<Option<u8>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Wrapped(Box<Transparent>);

/// Like [`Converted`], without the parts that JSON does not round-trip either.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Aliased {
    first: Hex,
    #[serde(alias = "0", alias = "zzz")]
    aliased: i16,
    #[serde(alias = "b")]
    other: i16,
    last: u8,
}

impl Default for Aliased {
    fn default() -> Self {
        Self { first: Hex(1), aliased: 2, other: 3, last: 4 }
    }
}

strategy!(Aliased: any::<(u64, i16, i16, u8)>() =>
    |(first, aliased, other, last)| Aliased { first: Hex(first), aliased, other, last });

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Lenient {
    #[serde(with = "lenient")]
    number: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    children: Option<Vec<Lenient>>,
    after: NonZeroU16,
}

strategy!(Lenient: any::<(u64, NonZeroU16)>(), any::<bool>() => |(number, after), parent| Lenient {
    number,
    after,
    children: parent.then(|| vec![Lenient { number: number / 2, after, children: None }; 2]),
});

/// Written as one type and read as another, which look alike in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<u64>", into = "(u8, Option<u32>, u64)")]
struct Longer(Vec<u64>);

impl From<Vec<u64>> for Longer {
    fn from(numbers: Vec<u64>) -> Self {
        Longer(numbers)
    }
}

impl From<Longer> for (u8, Option<u32>, u64) {
    fn from(Longer(numbers): Longer) -> Self {
        (numbers.len() as u8, Some(7), numbers.first().copied().unwrap_or(1))
    }
}

/// Written as a struct with a field for each element, and read as a map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, i64>", into = "NamedNumbers")]
struct ByName(BTreeMap<String, i64>);

#[derive(Serialize)]
struct NamedNumbers {
    small: i8,
    #[serde(skip_serializing_if = "Option::is_none")]
    maybe: Option<u16>,
    large: i64,
}

impl From<BTreeMap<String, i64>> for ByName {
    fn from(numbers: BTreeMap<String, i64>) -> Self {
        ByName(numbers)
    }
}

impl From<ByName> for NamedNumbers {
    fn from(ByName(numbers): ByName) -> Self {
        let number = |name: &str| numbers.get(name).copied();
        let maybe = number("maybe").and_then(|number| u16::try_from(number).ok());
        NamedNumbers { small: number("small").unwrap_or(0) as i8, maybe, large: number("large").unwrap_or(i64::MAX) }
    }
}

fn as_text<S: serde::Serializer>(number: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

fn from_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn as_some<S: serde::Serializer>(number: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_some(number)
}

fn never_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_else(|| "none".to_owned()))
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct OneWay {
    longer: Longer,
    by_name: ByName,
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    text: i64,
    #[serde(serialize_with = "as_some")]
    some: u32,
    #[serde(deserialize_with = "never_empty")]
    name: String,
    after: std::borrow::Cow<'static, str>,
}

strategy!(OneWay: any::<Vec<u64>>(), any::<(i8, Option<u16>, i64)>(), any::<(i64, u32, String)>() =>
|longer, (small, maybe, large), (text, some, name)| OneWay {
    longer: Longer(longer),
    by_name: ByName(
        [("small", Some(small.into())), ("maybe", maybe.map(i64::from)), ("large", Some(large))]
            .into_iter()
            .filter_map(|(name, number)| Some((name.to_owned(), number?)))
            .collect(),
    ),
    text,
    some,
    after: name.clone().into(),
    name,
});

proptest! {
    #[test]
    fn conversions(hex: u64, aliased: Aliased, lenient: Lenient) {
        check(Hex(hex));
        check(aliased);
        check(lenient);
    }

    #[test]
    fn one_way_conversions(value: OneWay) {
        check(value);
    }
}

#[test]
fn values_that_json_rejects_are_rejected_with_the_reason() {
    let value = Converted {
        the_hex: Hex(255),
        the_number: 3,
        renamed: 1,
        aliased: -5,
        through: Transparent { inner: vec![None, Some(1)] },
        wrapped: Wrapped(Box::new(Transparent { inner: vec![] })),
    };
    let expected = through_json(&value).unwrap_err().to_string();
    let mut bytes = Vec::new();
    encode(&value, &mut bytes).unwrap();
    let error = decode::<Converted>(&bytes).unwrap_err().0;
    assert!(expected.contains("unknown field `out`") && error.contains("unknown field `out`"), "{error}");
    assert!(error.contains("Converted"), "{error}");
}
