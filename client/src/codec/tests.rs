mod deep;
mod derives;
mod formats;
mod sealed;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hint::black_box;
use std::time::Instant;

use proptest::prelude::*;
use serde::{Deserialize, Serializer};

use super::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle { radius: f64 },
    Path(Vec<(i32, i32)>),
}

/// Checks the round trip, that every shorter input and an extra byte are rejected, and that both encoders agree.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug + 'static>(value: T) {
    let mut bytes = vec![7, 7];
    encode(&value, &mut bytes).unwrap();
    let bytes = &bytes[2..];
    assert_eq!(decode::<T>(bytes).unwrap(), value);
    for length in 0..bytes.len().min(300) {
        decode::<T>(&bytes[..length]).expect_err("a truncated value was decoded");
    }
    let mut longer = bytes.to_vec();
    longer.push(1);
    assert!(decode::<T>(&longer).unwrap_err().0.contains("bytes left over: 1"));
    assert_eq!(decode_prefix::<T>(&longer).unwrap(), (value, &[1][..]));

    let (value, _) = decode_prefix::<T>(bytes).unwrap();
    let mut room = vec![0; bytes.len() + 3];
    assert_eq!(encode_slice(ReadBy::ThisBuild, &value, &mut room), Ok(bytes.len()));
    assert_eq!(&room[..bytes.len()], bytes);
    if !bytes.is_empty() {
        assert_eq!(encode_slice(ReadBy::ThisBuild, &value, &mut room[..bytes.len() - 1]), Err(EncodeSliceError::Full));
    }
}

#[test]
fn values_of_many_types_round_trip() {
    check(());
    check(true);
    check((1_u8, -5_i64, "x".to_owned()));
    check(vec![1_u8; 1000]);
    check(Vec::<f64>::new());
    check(vec![Some(vec![1_u8]), None]);
    check([0.5_f32; 4]);
    check(vec![u128::MAX, 3]);
    check("ä€😀".repeat(100));
    check(vec![Shape::Point, Shape::Circle { radius: 2.5 }, Shape::Path(vec![(1, -1), (i32::MIN, 0)])]);
    check(BTreeMap::from([("a".to_owned(), 1_u16), ("b".to_owned(), 2)]));
}

#[test]
fn plain_vectors_are_copied_as_bytes() {
    let mut bytes = Vec::new();
    encode(&vec![1.0_f64, -2.0], &mut bytes).unwrap();
    let expected = [&[2_u8][..], &1.0_f64.to_ne_bytes(), &(-2.0_f64).to_ne_bytes()].concat();
    assert_eq!(bytes, expected);
}

#[test]
fn a_wrong_count_is_rejected_without_reserving_memory() {
    for count in [1 << 60, u64::MAX] {
        let mut bytes = [0; varint::MAX_BYTES];
        let length = varint::write(count, &mut bytes);
        decode::<Vec<u64>>(&bytes[..length]).unwrap_err();
        decode::<String>(&bytes[..length]).unwrap_err();
    }
    decode::<Vec<u8>>(&[0xff; 10]).unwrap_err();
    decode::<String>(&[1, 0xff]).unwrap_err();
}

#[derive(Deserialize)]
struct Stubborn;

impl Serialize for Stubborn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let _ = serializer;
        Err(serde::ser::Error::custom("no"))
    }
}

#[test]
fn a_failed_encoding_leaves_the_buffer_unchanged() {
    let mut bytes = vec![1, 2, 3];
    let error = encode(&(5_u64, Stubborn), &mut bytes).unwrap_err();
    assert!(error.0.contains("cannot encode a value of type (u64, "), "{error}");
    assert_eq!(bytes, [1, 2, 3]);
    assert!(matches!(encode_slice(ReadBy::ThisBuild, &Stubborn, &mut [0; 8]), Err(EncodeSliceError::Codec(_))));
}

proptest! {
    #[test]
    fn numbers_round_trip(a: u64, b: i64, c: u128, d: bool, e in any::<f64>().prop_filter("equal to itself", |e| !e.is_nan())) {
        check((a, b, c, d, e));
    }

    #[test]
    fn plain_values_round_trip(bytes: Vec<u8>, words: Vec<i32>, wide: Vec<u64>, text: String) {
        check(bytes);
        check(words);
        check(wide);
        check(text);
    }

    #[test]
    fn nested_values_round_trip(value: Vec<(Option<String>, Vec<u8>, i16)>) {
        check(value);
    }

    #[test]
    fn any_bytes_are_decoded_or_rejected(bytes: Vec<u8>) {
        let _ = decode::<Vec<u32>>(&bytes);
        let _ = decode::<String>(&bytes);
        let _ = decode::<(u8, String)>(&bytes);
    }
}

/// `cargo test -p farpool --release -- --ignored --nocapture measure_codec`
#[test]
#[ignore = "a measurement"]
fn measure_codec() {
    const ITEMS: u64 = 10_000;
    const ROUNDS: u64 = 400;
    let each = |start: Instant| start.elapsed().as_nanos() as f64 / (ITEMS * ROUNDS) as f64;
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    let start = Instant::now();
    for _ in 0..ROUNDS {
        bytes.clear();
        ends.clear();
        for item in 0..ITEMS {
            encode(black_box(&item), &mut bytes).unwrap();
            ends.push(bytes.len());
        }
    }
    println!("encode u64: {:.1} ns", each(start));
    let mut sum = 0;
    let start = Instant::now();
    for _ in 0..ROUNDS {
        let mut from = 0;
        for &end in &ends {
            sum += decode::<u64>(black_box(&bytes[from..end])).unwrap();
            from = end;
        }
    }
    println!("decode u64: {:.1} ns", each(start));
    assert_eq!(sum, ROUNDS * ITEMS * (ITEMS - 1) / 2);

    let big = vec![1_u8; 1 << 20];
    let start = Instant::now();
    for _ in 0..1000 {
        bytes.clear();
        encode(black_box(&big), &mut bytes).unwrap();
    }
    println!("encode 1 MiB: {:.1} GB/s", 1000.0 * big.len() as f64 / start.elapsed().as_nanos() as f64);
    let start = Instant::now();
    for _ in 0..1000 {
        black_box(decode::<Vec<u8>>(black_box(&bytes)).unwrap());
    }
    println!("decode 1 MiB: {:.1} GB/s", 1000.0 * big.len() as f64 / start.elapsed().as_nanos() as f64);
}
