//! Combinations of serde's attributes, with serde_json's round trip as the oracle.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::{Reader, decode, encode, encode_for};
use serde_json::Value;

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
    encode_for(Reader::AnyBuild, value, &mut bytes).unwrap();
    assert_eq!(decode::<T>(&bytes).unwrap(), here);
    here
}

/// The value arrives as JSON would bring it, alone and as a part of others.
fn check<T: Plain>(value: T) {
    let expected = through_json(&value).unwrap();
    assert_eq!(through(&value), expected);
    let times = |times| vec![expected.clone(); times];
    assert_eq!(through(&vec![value.clone(); 3]), times(3));
    assert_eq!(through(&(7_u8, value.clone(), 300_u64)), (7, expected.clone(), 300));
    assert_eq!(through(&BTreeMap::from([(5_u64, value.clone())])), BTreeMap::from([(5, expected.clone())]));
    assert_eq!(through(&Some(Some(Box::new(value)))), Some(Some(Box::new(expected))));
}

fn yes() -> bool {
    true
}

fn is_five(number: &u32) -> bool {
    *number == 5
}

/// Fields that are there or not, in front of others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Skipping {
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
struct JustOneIf {
    a: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    d: Option<u8>,
    e: u8,
    cents: u64,
}

strategy!(JustOneIf: any::<(u8, Option<u8>, u8, u64)>() => |(a, d, e, cents)| JustOneIf { a, d, e, cents });

/// Not all variants are written, or read, and their numbers are not the same on both sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Letters {
    A,
    #[serde(skip)]
    #[expect(dead_code, reason = "nobody can send it")]
    B,
    C,
    D(u32),
    #[serde(rename = "Z", alias = "Y", alias = "0")]
    E {
        #[serde(skip_serializing_if = "Option::is_none")]
        x: Option<u8>,
        y: u32,
    },
    F(u8, String),
    #[serde(alias = "A0")]
    G,
}

strategy!(Letters: 0..7, any::<(Option<u8>, u32)>(), any::<String>() => |which, (x, y), text| match which {
    0 => Letters::A,
    1 => Letters::C,
    2 => Letters::D(y),
    3 | 4 => Letters::E { x, y },
    5 => Letters::F(x.unwrap_or(3), text),
    _ => Letters::G,
});

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Nothing,
    Number(i64),
    Letter(char),
    Pair(u8, Letters),
    Fields { a: Option<u16>, b: Box<Skipping> },
    Text(String),
    Address(IpAddr),
}

strategy!(Untagged: 0..7, any::<(i64, char)>(), any::<Letters>(), any::<Skipping>(), any::<(Option<u16>, IpAddr)>() =>
|which, (number, letter), letters, fields, (a, address)| match which {
    0 => Untagged::Nothing,
    1 => Untagged::Number(number),
    2 => Untagged::Letter(letter),
    3 => Untagged::Pair(number as u8, letters),
    4 => Untagged::Fields { a, b: Box::new(fields) },
    5 => Untagged::Text(letter.to_string().repeat(2)),
    _ => Untagged::Address(address),
});

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Internal {
    Alone,
    WithFields { text: String, number: Option<i32> },
    Other(Skipping),
    Map(BTreeMap<String, u64>),
}

strategy!(Internal: 0..4, any::<(String, Option<i32>)>(), any::<Skipping>(), any::<BTreeMap<String, u64>>() =>
|which, (text, number), other, mut map| match which {
    0 => Internal::Alone,
    1 => Internal::WithFields { text, number },
    2 => Internal::Other(other),
    _ => {
        map.remove("type");
        Internal::Map(map)
    }
});

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", content = "c")]
enum Adjacent {
    Alone,
    One(u32),
    Two(u32, String),
    Fields { a: u8, b: Option<Box<Adjacent>> },
}

strategy!(Adjacent: 0..5, any::<(u32, String, u8)>() => |which, (number, text, a)| match which {
    0 => Adjacent::Alone,
    1 => Adjacent::One(number),
    2 => Adjacent::Two(number, text),
    3 => Adjacent::Fields { a, b: Some(Box::new(Adjacent::Fields { a: 1, b: Some(Box::new(Adjacent::Alone)) })) },
    _ => Adjacent::Fields { a, b: None },
});

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

/// Different types on the way there and back.
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

/// Writes a number and reads a number or a text; writes an option and reads anything.
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

/// As [`Converted`], without what does not come back in JSON either.
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

/// What another crate has, and serde does not know.
#[derive(Clone, Debug, PartialEq)]
struct Theirs {
    seconds: i64,
    nanos: Option<u32>,
    kind: TheirKind,
}

#[derive(Clone, Debug, PartialEq)]
enum TheirKind {
    Alone,
    Number(u16),
    Fields { a: Option<u8>, b: String },
}

/// Its fields are its own.
#[derive(Clone, Debug, PartialEq)]
struct Hidden(u32, String);

impl Hidden {
    fn number(&self) -> u32 {
        self.0
    }

    fn text(&self) -> &String {
        &self.1
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Theirs")]
struct TheirsHere {
    seconds: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    nanos: Option<u32>,
    #[serde(with = "TheirKindHere")]
    kind: TheirKind,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "TheirKind", rename_all = "UPPERCASE")]
enum TheirKindHere {
    Alone,
    Number(u16),
    Fields {
        #[serde(skip_serializing_if = "Option::is_none")]
        a: Option<u8>,
        b: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Hidden")]
struct HiddenHere {
    #[serde(getter = "Hidden::number")]
    number: u32,
    #[serde(getter = "Hidden::text")]
    text: String,
}

impl From<HiddenHere> for Hidden {
    fn from(HiddenHere { number, text }: HiddenHere) -> Self {
        Hidden(number, text)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Remote {
    before: u8,
    #[serde(with = "TheirsHere")]
    theirs: Theirs,
    #[serde(with = "HiddenHere")]
    hidden: Hidden,
    after: u64,
}

strategy!(Remote: any::<(u8, i64, Option<u32>, u64)>(), 0..3, any::<(u32, Option<u8>, String)>() =>
|(before, seconds, nanos, after), which, (number, a, text)| Remote {
    before,
    theirs: Theirs {
        seconds,
        nanos,
        kind: match which {
            0 => TheirKind::Alone,
            1 => TheirKind::Number(before.into()),
            _ => TheirKind::Fields { a, b: text.clone() },
        },
    },
    hidden: Hidden(number, text),
    after,
});

/// What a newer program writes, an older one takes for something else that it does not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Outside {
    A(u8),
    #[serde(skip_deserializing)]
    New,
    #[serde(other)]
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Inside {
    A {
        a: u8,
    },
    #[serde(skip_deserializing)]
    New {
        fields: Vec<u16>,
        of_it: Option<String>,
    },
    #[serde(other)]
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "of it")]
enum Beside {
    A(u8, u16),
    #[serde(skip_deserializing)]
    New,
    #[serde(other)]
    Unknown,
}

/// One variant goes by what it holds, the others by their names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum OneUntagged {
    A,
    B(u8),
    #[serde(untagged)]
    Rest(BTreeMap<String, i32>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Others {
    outside: Outside,
    inside: Inside,
    beside: Beside,
    untagged: OneUntagged,
    after: u64,
}

strategy!(Others: 0..3_usize, 0..3_usize, any::<(u8, u64)>(), any::<Vec<u16>>(), any::<Option<String>>() =>
|one, other, (a, after), fields, of_it| Others {
    outside: [Outside::A(a), Outside::New, Outside::Unknown][one].clone(),
    inside: [Inside::A { a }, Inside::New { fields, of_it }, Inside::Unknown][other].clone(),
    beside: [Beside::A(a, 300), Beside::New, Beside::Unknown][one].clone(),
    untagged: [OneUntagged::A, OneUntagged::B(a), OneUntagged::Rest(BTreeMap::from([("x".to_owned(), -1)]))][other]
        .clone(),
    after,
});

/// Written as one type and read as another one, which JSON writes alike.
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

/// The same with fields for an element each, and with names.
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

/// Other types for readers than for machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Addresses {
    ip: IpAddr,
    socket: SocketAddr,
    path: PathBuf,
    took: Duration,
    at: SystemTime,
    by_name: HashMap<String, Result<u8, String>>,
}

strategy!(Addresses: any::<(IpAddr, SocketAddr)>(), any::<String>(), any::<(u32, u32)>() =>
|(ip, socket), path, (seconds, rest)| Addresses {
    ip,
    socket,
    by_name: HashMap::from([(path.clone(), Err(path.clone())), ("ok".to_owned(), Ok(1))]),
    path: path.into(),
    took: Duration::new(seconds.into(), rest % 1_000_000_000),
    at: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into()),
});

proptest! {
    #[test]
    fn fields_that_are_left_out(value: Skipping, one: JustOneIf) {
        check(value);
        check(one);
    }

    #[test]
    fn variants_that_are_left_out(value: Letters) {
        check(value);
    }

    #[test]
    fn untagged_enums(value: Untagged) {
        check(value);
    }

    #[test]
    fn tagged_enums(internal: Internal, adjacent: Adjacent) {
        check(internal);
        check(adjacent);
    }

    #[test]
    fn flattened_structs(value: Flat) {
        check(value);
    }

    #[test]
    fn any_json(value in json()) {
        check(value);
    }

    #[test]
    fn conversions(hex: u64, aliased: Aliased, lenient: Lenient) {
        check(Hex(hex));
        check(aliased);
        check(lenient);
    }

    #[test]
    fn types_of_other_crates(value: Remote) {
        check(value);
    }

    #[test]
    fn variants_that_are_not_known(value: Others) {
        check(value);
    }

    #[test]
    fn conversions_of_one_way_only(value: OneWay) {
        check(value);
    }

    #[test]
    fn types_that_differ_for_human_readers(value: Addresses) {
        check(value);
    }
}

#[test]
fn what_json_refuses_is_refused_with_its_reason() {
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
