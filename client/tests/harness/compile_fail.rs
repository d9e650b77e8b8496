//! What must not compile, and what the compiler then says: the way out, and not a riddle.

use std::process::Output;

use farpool_testkit::{folder, rustc};

/// Fixtures, and words that the compiler's message must have.
const REFUSED: &[(&str, &[&str])] = &[
    ("capturing_closure.rs", &[CAPTURES, INITIALIZER]),
    ("capturing_job.rs", &[CAPTURES, INITIALIZER]),
    ("capturing_initializer.rs", &[CAPTURES, INITIALIZER]),
    ("capturing_a_table.rs", &[INITIALIZER]),
    ("capturing_a_table_in_a_job.rs", &[INITIALIZER]),
    ("function_pointer.rs", &[CAPTURES, INITIALIZER]),
    ("no_function.rs", &["cannot be run in farpool's workers with the arguments", INITIALIZER]),
    ("no_tuple.rs", &["`u64` is not a tuple of arguments for farpool", "one argument alone is written `(value,)`"]),
    ("wrong_argument.rs", &["expected `u32`, found `String`"]),
    ("too_few_arguments.rs", &["expected a tuple with 2 elements, found one with 1 element"]),
    ("borrowed_argument.rs", &["not general enough", "`&str`"]),
    ("result_without_serde.rs", &["`Unserializable: Data` is not satisfied"]),
    ("no_verb.rs", &["nothing is called before a verb such as map(items)"]),
];
const CAPTURES: &str = "this closure captures data, or is a function pointer";
const INITIALIZER: &str = "Pool::builder().initializer(f, args)";

fn compile(fixture: &str) -> Output {
    let output = folder::all().join(fixture).with_extension("o");
    // Some errors come only when code is made for the functions that the program really uses.
    rustc::compile(&rustc::fixture(fixture), &output, &["--emit=obj", "-Dunused_must_use"])
}

#[test]
fn what_must_not_compile_says_what_to_do_instead() {
    for (fixture, words) in REFUSED {
        let output = compile(fixture);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{fixture} compiles");
        for word in *words {
            assert!(said.contains(word), "{fixture}: {word:?} is missing in:\n{said}");
        }
    }
}

/// So that the others do not fail for a reason that has nothing to do with them.
#[test]
fn what_may_compile_does() {
    let output = compile("plain.rs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
