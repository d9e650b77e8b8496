//! Enums: how variants are distinguished, and variants that are not written or not known.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::check;
use super::fields::Skipping;

/// Some variants are not written or not read, so Serialize and Deserialize number the others differently.
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
pub(super) enum Adjacent {
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

/// An older program reads variants of a newer one as `Unknown`.
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

/// One variant is identified by its content, the others by their names.
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

proptest! {
    #[test]
    fn skipped_variants(value: Letters) {
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
    fn unknown_variants(value: Others) {
        check(value);
    }
}
