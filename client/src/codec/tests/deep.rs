//! Deeply nested values, on small stacks.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::{Deserialize, Serialize};

use crate::args::Data;
use crate::codec::{ReadBy, decode, encode, encode_slice};
use serde_json::Value;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct List {
    number: u64,
    next: Option<Box<List>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Tagged {
    End,
    Node { children: Vec<Tagged> },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Nest {
    Leaf(u8),
    Inner(BTreeMap<String, Nest>),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Chain(Option<Box<Chain>>);

fn list(length: u64) -> List {
    (0..length).fold(List { number: 0, next: None }, |next, number| List { number, next: Some(Box::new(next)) })
}

fn tagged(depth: usize) -> Tagged {
    (0..depth).fold(Tagged::End, |child, _| Tagged::Node { children: vec![child] })
}

fn nest(depth: usize) -> Nest {
    (0..depth).fold(Nest::Leaf(3), |child, _| Nest::Inner(BTreeMap::from([("k".to_owned(), child)])))
}

fn json(depth: usize) -> Value {
    (0..depth).fold(Value::Null, |child, _| Value::from(vec![child]))
}

fn chain(depth: usize) -> Chain {
    (0..depth).fold(Chain(None), |next, _| Chain(Some(Box::new(next))))
}

/// Runs on a stack of the default size for threads.
fn on_two_mebibytes(run: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

fn arrives<T: Data + Debug + PartialEq>(value: &T) {
    let mut bytes = Vec::new();
    encode(value, &mut bytes).unwrap();
    assert!(decode::<T>(&bytes).unwrap() == *value);
}

fn rejected<T: Data + Debug>(value: T) {
    let mut bytes = vec![1];
    let error = encode(&value, &mut bytes).unwrap_err();
    assert!(error.0.contains(std::any::type_name::<T>()) && error.0.contains("levels deep"), "{error}");
    assert_eq!(bytes, [1]);
    encode_slice(ReadBy::ThisBuild, &value, &mut [0; 1 << 20]).unwrap_err();
    // Dropping it would overflow most stacks.
    std::mem::forget(value);
}

#[test]
fn deep_values_arrive_on_a_small_stack() {
    on_two_mebibytes(|| {
        for _ in 0..2 {
            arrives(&list(10));
            arrives(&list(2000));
            arrives(&json(1000));
            arrives(&chain(4000));
            arrives(&nest(200));
        }
    });
    on_two_mebibytes(|| arrives(&tagged(100)));
}

#[test]
fn deeper_values_are_rejected_with_their_type() {
    on_two_mebibytes(|| {
        rejected(list(100_000));
        rejected(json(5000));
        rejected(chain(100_000));
        rejected(nest(5000));
        rejected(tagged(5000));
    });
}

/// A value that is not marked as deep is not read deeper, whatever it contains.
#[test]
fn bytes_with_a_wrong_depth_mark_are_rejected() {
    on_two_mebibytes(|| {
        let mut bytes = Vec::new();
        encode(&list(2000), &mut bytes).unwrap();
        bytes[0] &= !0x80;
        assert!(decode::<List>(&bytes).unwrap_err().0.contains("damaged"));
        for mark in [0, 1, 2, 0x80, 0x81, 0x82] {
            for filler in [1, 14, 15, 16] {
                let mut bytes = vec![filler; 1 << 20];
                bytes[0] = mark;
                decode::<List>(&bytes).unwrap_err();
                decode::<Chain>(&bytes).unwrap_err();
                decode::<Value>(&bytes).unwrap_err();
            }
        }
    });
}
