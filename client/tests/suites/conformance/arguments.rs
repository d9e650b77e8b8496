//! Functions with zero to eight arguments, and what may be a function.

use crate::conformance::tasks::identity;
use crate::pools;

crate::runner::cases![
    apply_takes_up_to_eight_arguments,
    apply_async_and_starmap_take_tuples,
    arguments_of_different_types_keep_their_order,
    functions_without_captures_can_be_called,
    instances_of_a_generic_function_are_distinguished,
];

type Eight = (u8, u16, u32, u64, i8, i16, i32, i64);

#[expect(clippy::too_many_arguments, reason = "as many as there may be")]
fn eight(a: u8, b: u16, c: u32, d: u64, e: i8, f: i16, g: i32, h: i64) -> Eight {
    (a, b, c, d, e, f, g, h)
}

fn apply_takes_up_to_eight_arguments() {
    let pool = pools::of(1);
    assert_eq!(pool.apply(|| 0, ()).unwrap(), 0);
    assert_eq!(pool.apply(|a: u8| a, (1,)).unwrap(), 1);
    assert_eq!(pool.apply(|a: u8, b: u8| (a, b), (1, 2)).unwrap(), (1, 2));
    assert_eq!(pool.apply(|a: u8, b: u8, c: u8| (a, b, c), (1, 2, 3)).unwrap(), (1, 2, 3));
    assert_eq!(pool.apply(|a: u8, b: u8, c: u8, d: u8| [a, b, c, d], (1, 2, 3, 4)).unwrap(), [1, 2, 3, 4]);
    let five = |a: u8, b: u8, c: u8, d: u8, e: u8| [a, b, c, d, e];
    assert_eq!(pool.apply(five, (1, 2, 3, 4, 5)).unwrap(), [1, 2, 3, 4, 5]);
    let six = |a: u8, b: u8, c: u8, d: u8, e: u8, f: u8| [a, b, c, d, e, f];
    assert_eq!(pool.apply(six, (1, 2, 3, 4, 5, 6)).unwrap(), [1, 2, 3, 4, 5, 6]);
    let seven = |a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8| [a, b, c, d, e, f, g];
    assert_eq!(pool.apply(seven, (1, 2, 3, 4, 5, 6, 7)).unwrap(), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(pool.apply(eight, (1, 2, 3, 4, -5, -6, -7, -8)).unwrap(), (1, 2, 3, 4, -5, -6, -7, -8));
}

fn apply_async_and_starmap_take_tuples() {
    let pool = pools::of(2);
    let args = |n: u8| (n, 2, 3, 4, -5, -6, -7, -8);
    assert_eq!(pool.apply_async(eight, args(9)).get().unwrap(), args(9));
    assert_eq!(pool.starmap(eight, (0..20).map(args)).unwrap(), (0..20).map(args).collect::<Vec<_>>());
    assert_eq!(pool.starmap_async(eight, (0..20).map(args)).get().unwrap(), (0..20).map(args).collect::<Vec<_>>());
    assert_eq!(pool.starmap(|| 1, [(), (), ()]).unwrap(), [1, 1, 1]);
    assert_eq!(pool.starmap(|n: u64| n, [(5,)]).unwrap(), [5]);
}

fn arguments_of_different_types_keep_their_order() {
    let pool = pools::of(1);
    let join = |words: Vec<String>, separator: char, times: Option<u8>| {
        words.join(&separator.to_string()).repeat(times.unwrap_or(1).into())
    };
    let words = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(pool.apply(join, (words.clone(), '-', Some(2))).unwrap(), "a-ba-b");
    assert_eq!(pool.starmap(join, [(words, '+', None)]).unwrap(), ["a+b"]);
}

fn functions_without_captures_can_be_called() {
    struct Holder;
    impl Holder {
        fn method(n: u64) -> u64 {
            n + 1
        }
    }
    const STEP: u64 = 10;
    let pool = pools::of(1);
    assert_eq!(pool.apply(u64::pow, (2, 10)).unwrap(), 1024);
    assert_eq!(pool.map(Holder::method, [1, 2]).unwrap(), [2, 3]);
    assert_eq!(pool.map(|n: u64| n + STEP, [1, 2]).unwrap(), [11, 12]);
    assert_eq!(pool.map(Some::<u64>, [1, 2]).unwrap(), [Some(1), Some(2)]);
}

fn instances_of_a_generic_function_are_distinguished() {
    let pool = pools::of(1);
    assert_eq!(pool.apply(identity::<u8>, (200,)).unwrap(), 200);
    assert_eq!(pool.apply(identity::<String>, ("x".to_owned(),)).unwrap(), "x");
    assert_eq!(pool.apply(identity::<u64>, (1 << 60,)).unwrap(), 1 << 60);
}
