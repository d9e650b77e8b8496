//! Items and results of many types: anything with serde's derives can be sent to a worker and back.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::time::Duration;

use farpool::{Data, Pool};
use serde::{Deserialize, Serialize};

use crate::conformance::tasks::identity;
use crate::pools;

crate::runner::cases![plain_values, text_and_bytes, collections, own_types, empty_values, results_of_every_size];

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Job {
    name: String,
    shape: Shape,
    parts: Vec<Part>,
    by_name: HashMap<String, Option<Box<Job>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Part(u8, f32);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Circle(f64),
    Box { width: u32, height: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

/// Checks that the value round-trips with every kind of verb.
fn check<T: Data + Clone + PartialEq + Debug>(pool: &Pool, value: T) {
    assert_eq!(pool.apply(identity::<T>, (value.clone(),)).unwrap(), value);
    let three = vec![value; 3];
    assert_eq!(pool.map(identity::<T>, three.clone()).unwrap(), three);
    assert_eq!(pool.map_async(identity::<T>, three.clone()).get().unwrap(), three);
    assert_eq!(pool.imap(identity::<T>, three.clone()).collect::<Result<Vec<_>, _>>().unwrap(), three);
}

fn plain_values() {
    let pool = pools::of(1);
    check(&pool, u8::MAX);
    check(&pool, i64::MIN);
    check(&pool, u128::MAX);
    check(&pool, -1.5_f32);
    check(&pool, f64::INFINITY);
    check(&pool, true);
    check(&pool, 'ß');
    check(&pool, Duration::new(3, 5));
    check(&pool, Some(Some(1_u8)));
    check(&pool, None::<String>);
    check(&pool, Err::<u8, String>("no".to_owned()));
}

fn text_and_bytes() {
    let pool = pools::of(1);
    check(&pool, String::new());
    check(&pool, "Zeile\n\0Ende – ✓".to_owned());
    check(&pool, vec![0_u8, 255, 3]);
    check(&pool, std::path::PathBuf::from("/a/b"));
    check(&pool, "x".repeat(3 << 20));
}

fn collections() {
    let pool = pools::of(1);
    check(&pool, vec![1.5_f64; 10_000]);
    check(&pool, vec![vec![String::new(), "a".to_owned()], vec![]]);
    check(&pool, vec![(1_u8, 'x', Some("y".to_owned())); 1000]);
    check(&pool, BTreeMap::from([(1, "one".to_owned()), (2, "two".to_owned())]));
    check(&pool, HashMap::from([(("k".to_owned(), 1), vec![1_u16])]));
    check(&pool, [[1_i32; 3]; 4]);
    check(&pool, (1_u8, 2_u16, (3_u32, "4".to_owned()), [5_u64]));
}

fn own_types() {
    let pool = pools::of(1);
    let shapes = [Shape::Nothing, Shape::Circle(0.1), Shape::Box { width: 1, height: u32::MAX }];
    for shape in shapes {
        check(&pool, shape.clone());
        let inner = Job { name: "inner".to_owned(), shape, parts: vec![], by_name: HashMap::new() };
        let by_name = HashMap::from([("none".to_owned(), None), ("one".to_owned(), Some(Box::new(inner)))]);
        check(&pool, Job { name: "ö".to_owned(), shape: Shape::Nothing, parts: vec![Part(1, 2.0); 5], by_name });
    }
}

/// Items and results of zero bytes.
fn empty_values() {
    let pool = pools::of(2);
    check(&pool, ());
    check(&pool, Unit);
    check(&pool, Vec::<u64>::new());
    check(&pool, [(); 3]);
    assert_eq!(pool.map(|()| (), vec![(); 5000]).unwrap().len(), 5000);
}

/// Sizes around every limit on the path of a payload: a record, a piece, a run, a ring.
fn results_of_every_size() {
    let pool = pools::of(2);
    let borders = [0, 1 << 10, 4 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20];
    let sizes = borders.iter().flat_map(|&border: &usize| {
        [border.saturating_sub(20), border.saturating_sub(1), border, border + 1, border + 20]
    });
    let items: Vec<Vec<u8>> = sizes.enumerate().map(|(at, size)| vec![at as u8; size]).collect();
    assert!(pool.map(identity::<Vec<u8>>, items.iter().cloned()).unwrap() == items);
    assert!(pool.job(identity::<Vec<u8>>).chunksize(7).map(items.iter().cloned()).unwrap() == items);
}
