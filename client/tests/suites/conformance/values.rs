//! Every serde type arrives as after serde's own self-describing round trip, as argument and as result of every verb.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::OnceLock;
use std::sync::mpsc;

use farpool::{Data, ErrorKind, Pool};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::conformance::tasks::identity;
use crate::pools;

crate::runner::cases![
    skipped_fields,
    skipped_variants,
    enums_of_every_kind,
    flattened_structs,
    any_json,
    units_and_options,
    an_initializers_arguments,
    deep_values,
    deeper_values,
];

/// Checks that the values round-trip with every kind of verb.
fn check<T: Data + Clone + PartialEq + Debug>(pool: &Pool, values: Vec<T>) {
    let both = |value: T, text: String| (text, value);
    let expected: Vec<_> = values.iter().map(|value| ("x".to_owned(), value.clone())).collect();
    let pairs = || values.clone().into_iter().map(|value| (value, "x".to_owned()));
    for value in &values {
        assert_eq!(pool.apply(identity::<T>, (value.clone(),)).unwrap(), *value);
        assert_eq!(pool.apply_async(identity::<T>, (value.clone(),)).get().unwrap(), *value);
    }
    assert_eq!(pool.map(identity::<T>, values.clone()).unwrap(), values);
    assert_eq!(pool.map_async(identity::<T>, values.clone()).get().unwrap(), values);
    assert_eq!(pool.imap(identity::<T>, values.clone()).collect::<Result<Vec<_>, _>>().unwrap(), values);
    assert_eq!(pool.imap_unordered(identity::<T>, values.clone()).count(), values.len());
    assert_eq!(pool.starmap(both, pairs()).unwrap(), expected);
    assert_eq!(pool.starmap_async(both, pairs()).get().unwrap(), expected);
    assert_eq!(pool.apply(identity::<Vec<T>>, (values.clone(),)).unwrap(), values);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Payment {
    id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    d: Option<u8>,
    e: u8,
    cents: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

fn payment(d: Option<u8>) -> Payment {
    Payment { id: 1, d, e: 7, cents: 300, notes: vec![] }
}

fn skipped_fields() {
    let noted = Payment { notes: vec!["n".to_owned()], ..payment(Some(1)) };
    check(&pools::of(2), vec![payment(None), payment(Some(5)), noted, payment(None)]);
}

fn skipped_variants() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Letter {
        A,
        #[serde(skip)]
        #[expect(dead_code, reason = "nobody can send it")]
        B,
        C,
        D(u8),
        E,
    }
    check(&pools::of(2), vec![Letter::A, Letter::C, Letter::D(3), Letter::E]);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Nothing,
    Number(u64),
    Text(String),
    Payment { paid: Payment },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Internal {
    Alone,
    Payment(Payment),
    Fields { at: f64, what: Option<Untagged> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", content = "c")]
enum Adjacent {
    Alone,
    One(Internal),
    Two(u8, Untagged),
}

fn enums_of_every_kind() {
    let pool = pools::of(2);
    let untagged = vec![
        Untagged::Nothing,
        Untagged::Number(u64::MAX),
        Untagged::Text("five".to_owned()),
        Untagged::Payment { paid: payment(None) },
    ];
    check(&pool, untagged.clone());
    let mut internal: Vec<_> =
        untagged.iter().map(|what| Internal::Fields { at: 0.1, what: Some(what.clone()) }).collect();
    internal.extend([Internal::Alone, Internal::Payment(payment(Some(2)))]);
    // In an option, serde reads `Nothing` as `None`.
    internal.remove(0);
    check(&pool, internal.clone());
    let mut adjacent: Vec<_> = internal.into_iter().map(Adjacent::One).collect();
    adjacent.extend(untagged.into_iter().map(|what| Adjacent::Two(1, what)));
    adjacent.push(Adjacent::Alone);
    check(&pool, adjacent);
}

fn flattened_structs() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Event {
        name: String,
        #[serde(flatten)]
        payment: Payment,
        #[serde(flatten)]
        rest: BTreeMap<String, Value>,
    }
    let event = |d, rest: Value| Event {
        name: "paid".to_owned(),
        payment: payment(d),
        rest: serde_json::from_value(rest).unwrap(),
    };
    check(&pools::of(2), vec![event(None, json!({})), event(Some(1), json!({"more": {"a": [1, -1, null]}}))]);
}

fn any_json() {
    let values = [json!(null), json!([1, -5, 0.25, "x", true]), json!({"a": {"b": []}}), json!(u64::MAX)];
    check(&pools::of(2), values.to_vec());
}

fn units_and_options() {
    let pool = pools::of(1);
    check(&pool, vec![None, Some(()), None]);
    check(&pool, vec![None, Some(None), Some(Some(()))]);
    check(&pool, vec![(payment(None), None), (payment(None), Some(None)), (payment(Some(1)), Some(Some(())))]);
}

static GIVEN: OnceLock<(Payment, Value)> = OnceLock::new();

fn an_initializers_arguments() {
    let set = |payment: Payment, value: Value| GIVEN.set((payment, value)).unwrap();
    let builder = pools::builder().processes(1).initializer(set, (payment(None), json!({"a": 1})));
    let pool = pools::pool(builder);
    assert_eq!(pool.apply(|| GIVEN.get().unwrap().clone(), ()).unwrap(), (payment(None), json!({"a": 1})));
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct List {
    number: u64,
    next: Option<Box<List>>,
}

fn list(length: u64) -> List {
    (0..length).fold(List { number: 0, next: None }, |next, number| List { number, next: Some(Box::new(next)) })
}

/// Drops the links one by one: the default destructor recurses, and tests build without optimisation.
impl Drop for List {
    fn drop(&mut self) {
        let mut next = self.next.take();
        while let Some(mut list) = next {
            next = list.next.take();
        }
    }
}

fn length(list: &List) -> u64 {
    std::iter::successors(Some(list), |list| list.next.as_deref()).count() as u64
}

/// Also on the small stacks of callbacks and of a worker's threads.
fn deep_values() {
    const LENGTH: u64 = 1500;
    for pool in [pools::of(1), pools::pool(pools::builder().processes(1).threads(2))] {
        assert_eq!(pool.apply(|list: List| length(&list), (list(LENGTH),)).unwrap(), LENGTH + 1);
        assert_eq!(length(&pool.apply(list, (LENGTH,)).unwrap()), LENGTH + 1);
        let (sender, receiver) = mpsc::channel();
        let result = pool.apply_async(list, (LENGTH,)).callback(move |list| sender.send(length(list)).unwrap());
        assert_eq!(receiver.recv().unwrap(), LENGTH + 1);
        result.get().unwrap();
    }
}

fn deeper_values() {
    const LENGTH: u64 = 50_000;
    for pool in [pools::of(1), pools::pool(pools::builder().processes(1).threads(2))] {
        let pid = pool.apply(std::process::id, ()).unwrap();
        let error = pool.apply(|list: List| length(&list), (list(LENGTH),)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Codec, "{error}");
        assert!(error.to_string().contains("List") && error.to_string().contains("levels deep"), "{error}");
        let (sender, receiver) = mpsc::channel();
        let result = pool.apply_async(list, (LENGTH,)).error_callback(move |error| sender.send(error.kind()).unwrap());
        assert_eq!(receiver.recv().unwrap(), ErrorKind::Codec);
        assert!(result.get().unwrap_err().to_string().contains("List"));
        assert_eq!(pool.apply(std::process::id, ()).unwrap(), pid, "the worker was replaced");
    }
}
