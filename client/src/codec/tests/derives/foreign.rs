//! Types of other crates, with and without serde support.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::check;

/// A type of another crate without serde support.
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

/// Its fields are private.
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

/// Types that are encoded differently for human readers.
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
    fn types_of_other_crates(value: Remote) {
        check(value);
    }

    #[test]
    fn types_that_differ_for_human_readers(value: Addresses) {
        check(value);
    }
}
