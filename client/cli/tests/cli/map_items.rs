//! Where items come from, and how they get into commands.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use crate::support::{folder, map};

#[test]
fn lines_of_stdin_are_items() {
    map("echo", []).input("one\ntwo words\n\nlast").run().assert_prints("one\ntwo words\n\nlast\n");
    map("echo", []).input("").run().assert_prints("");
}

#[test]
fn items_come_from_a_file_or_the_command_line() {
    let folder = folder();
    let list = folder.file("list");
    fs::write(&list, "a\nb\n").unwrap();
    map("echo", ["-a", &list]).input("not this").run().assert_prints("a\nb\n");
    map("echo", ["--", "x", "-n", "--progress"]).input("not this").run().assert_prints("x\n--progress\n");
    map("echo", ["--"]).input("not this").run().assert_prints("");
}

#[test]
fn nul_separates_items_that_contain_newlines() {
    map("printf '<%s>'", ["-0"]).input("a\nb\0\0c\n\0").run().assert_prints("<a\nb><><c\n>");
}

/// The command gets every item unchanged, wherever the placeholder is.
#[test]
fn unusual_items_reach_the_command_unchanged() {
    let odd = [
        "two words",
        " leading and trailing ",
        "it's",
        "\"quoted\"",
        "`id`",
        "$HOME",
        "$(id)",
        "a;b|c&d>e<f",
        "*?[a-z]{1,2}~!#%",
        "-leading-dash",
        "--",
        "back\\slash\\",
        "tab\there",
        "{} {.} {#}",
        "größe 大きさ 🦀",
        "a\nb",
        "",
    ];
    let input: Vec<u8> = odd.iter().flat_map(|item| [item.as_bytes(), b"\0"].concat()).collect();
    let expected: String = odd.iter().map(|item| format!("<{item}>\n")).collect();
    for program in [
        "printf '<%s>\\n' {}",
        "printf '<%s>\\n'",
        "printf '<%s>\\n' '{}'",
        "printf '<%s>\\n' \"{}\"",
        "printf '%s>\\n' '<{}'",
        "printf '%s\\n' \"<$(printf '%s.' {} | sed '$ s/\\.$//')>\"",
    ] {
        if program.contains("sed") {
            // $(...) removes trailing newlines; newlines within items stay.
            map(program, ["-0"]).input(input.clone()).run().assert_prints(&expected);
            continue;
        }
        map(program, ["-0"]).input(input.clone()).run().assert_prints(&expected);
    }
}

#[test]
fn items_may_be_any_bytes() {
    let done = map("printf '%s\\n' {}", []).input(b"\xff\xfe\n".to_vec()).run();
    assert_eq!((done.code, &*done.stdout), (Some(0), &b"\xff\xfe\n"[..]));
    let done = map("false", []).input(b"\xff\n".to_vec()).run();
    assert!(done.stderr().contains("item 1 \"\u{fffd}\": exit code 1"), "{done:?}");
}

#[test]
fn placeholders_stand_for_parts_of_the_item() {
    let program = "echo {#} {} {.} {/} {//} {/.}";
    let expected = "1 a/b.tar.gz a/b.tar b.tar.gz a b.tar\n2 plain plain plain . plain\n3 /x y.z /x y x y.z / x y\n";
    map(program, []).input("a/b.tar.gz\nplain\n/x y.z\n").run().assert_prints(expected);
}

#[test]
fn only_an_item_too_long_for_a_command_line_fails() {
    let long = "x".repeat(200_000);
    let done = map("echo", ["--keep-going"]).input(format!("a\n{long}\nb\0c\nd\n")).run();
    assert_eq!((done.code, &*done.stdout()), (Some(2), "a\nd\n"));
    assert!(done.stderr().contains("item 2 \"xxx"), "{done:?}");
    assert!(done.stderr().contains("longer than the 131072 bytes that Linux allows (not run)"), "{done:?}");
    assert!(done.stderr().contains("item 3 \"b\\u{0}c\": the item contains a NUL byte"), "{done:?}");
    // The item alone would fit, but not with the rest of the command.
    let done = map("echo {} {}", []).input("x".repeat(100_000)).run();
    assert!(done.stderr().contains("the command is longer than the 128 KiB that Linux allows"), "{done:?}");
}

#[test]
fn commands_have_empty_stdin_and_the_callers_environment_and_directory() {
    let folder = folder();
    let path = folder.file("");
    let done = map("cat; pwd; echo $COLOR {}", []).change(|command| {
        command.env("COLOR", "blue").current_dir(&path);
    });
    done.input("x\n").run().assert_prints(&format!("{}\nblue x\n", path.trim_end_matches('/')));
}

#[test]
fn variables_can_be_passed_to_commands() {
    let done = map("echo $A $B", ["--env", "A=1", "--env=B=2 3"]).input("x\n").run();
    done.assert_prints("1 2 3 x\n");
    let done = map("echo", ["--env", "FARPOOL_TEST_NOT_SET"]).run();
    assert_eq!(done.code, Some(125));
    assert!(done.stderr().contains("this variable is not set here"), "{done:?}");
    for variable in ["FARPOOL_ADDRESS=x", "FARPOOL_ADDRESS"] {
        let done = map("echo", ["--env", variable]).run();
        assert!(done.code == Some(125) && done.stderr().contains("choose it with --address URL"), "{done:?}");
    }
}

#[test]
fn a_command_may_be_any_bytes() {
    let program = std::ffi::OsStr::from_bytes(b"printf '%s\\n' '\xff'{}");
    let call = crate::support::farpool(["map"]).change(|command| {
        command.arg(program);
    });
    let done = call.input("x\n").run();
    assert_eq!((done.code, &*done.stdout), (Some(0), &b"\xffx\n"[..]));
}
