//! Checks programs that must not compile: the compiler's message says what to do instead.

use std::process::Output;

use farpool_testkit::{folder, rustc};

/// Fixtures, and the words that the compiler's message must contain.
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
    // Some errors only appear when code is generated for the functions that the program uses.
    rustc::compile(&rustc::fixture(fixture), &output, &["--emit=obj", "-Dunused_must_use"])
}

#[test]
fn invalid_programs_do_not_compile_and_get_advice() {
    for (fixture, words) in REFUSED {
        let output = compile(fixture);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{fixture} compiles");
        for word in *words {
            assert!(said.contains(word), "{fixture}: {word:?} is missing in:\n{said}");
        }
    }
}

/// Makes sure that the other fixtures do not fail for an unrelated reason.
#[test]
fn valid_programs_compile() {
    let output = compile("plain.rs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
