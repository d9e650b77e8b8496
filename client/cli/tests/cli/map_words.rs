//! The command as words, and items after `:::` and similar marks.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use crate::support::{Call, farpool, folder};

/// Returns `farpool map` with these words after its options, on this machine with two workers.
fn map<'a>(words: impl IntoIterator<Item = &'a str>) -> Call {
    farpool(["map", "-j2"].into_iter().chain(words))
}

#[track_caller]
fn prints(words: &[&str], stdout: &str) {
    map(words.iter().copied()).input("not this\n").run().assert_prints(stdout);
}

const ODD: [&str; 14] = [
    "two words",
    " leading and trailing ",
    "it's",
    "\"quoted\"",
    "`id` $HOME $(id)",
    "a;b|c&d>e<f",
    "*?[a-z]{1,2}~!#%",
    "-leading-dash",
    "--",
    "back\\slash\\",
    "{} {1} {.} {#}",
    "größe 大きさ 🦀",
    "a\nb\n",
    "",
];

#[test]
fn words_run_without_a_shell() {
    prints(&["printf", "%s %s\\n", "-x", "{}", ":::", "a", "b c"], "-x a\n-x b c\n");
    prints(&["printf", "<%s>", "a  b", "$HOME", "{}.{#}", ":::", "x"], "<a  b><$HOME><x.1>");
    // Options after the command belong to the command.
    prints(&["printf", "%s;", "-j", "--progress", "--", "--help", ":::", "x"], "-j;--progress;--;--help;x;");
    prints(&["echo", ":::", "-n", "--progress"], "--progress\n");
    prints(&["--", "echo", "{/}", ":::", "a/b"], "b\n");
    prints(&["echo", ":::"], "");
    map(["echo", "-", "{}"]).input("a\nb\n").run().assert_prints("- a\n- b\n");
}

#[test]
fn one_word_is_a_line_for_the_shell() {
    prints(&["echo {} | tr a-z A-Z; echo $((1 + 1))", ":::", "a", "b"], "A\n2\nB\n2\n");
    prints(&["echo", ":::", "a b"], "a b\n");
    prints(&["echo '<{}>' | wc -l", ":::", "a\nb"], "2\n");
}

/// Items arrive unchanged, however the command is given and wherever the item is.
#[test]
fn unusual_items_reach_the_command_unchanged() {
    let expected: String = ODD.iter().map(|item| format!("<{item}>\n")).collect();
    for command in [
        &["printf", "<%s>\\n"][..],
        &["printf", "<%s>\\n", "{}"],
        &["printf", "%s\\n", "<{}>"],
        &["printf", "%s\\n", "<{1}>"],
        &["sh", "-c", "printf '<%s>\\n' \"$1\"", "sh", "{}"],
        &["printf '<%s>\\n'"],
        &["printf '%s\\n' '<{}>'"],
        &["printf '%s\\n' \"<{1}>\""],
    ] {
        let input: Vec<u8> = ODD.iter().flat_map(|item| [item.as_bytes(), b"\0"].concat()).collect();
        map(["-0"].into_iter().chain(command.iter().copied())).input(input).run().assert_prints(&expected);
        let behind = command.iter().chain(&[":::"]).chain(&ODD).copied();
        map(behind).run().assert_prints(&expected);
    }
}

#[test]
fn items_and_words_may_be_any_bytes() {
    for command in [&["printf", "%s\\n"][..], &["printf '%s\\n'"]] {
        let call = map(command.iter().copied()).change(|call| {
            call.arg(":::").args([&b"\xff\xfe"[..], b"x\xff"].map(OsStr::from_bytes));
        });
        let done = call.run();
        assert_eq!((done.code, &*done.stdout), (Some(0), &b"\xff\xfe\nx\xff\n"[..]), "{command:?}");
    }
    let call = map(["printf"]).change(|call| {
        call.args([&b"%s\xff%s\n"[..], b"\xfe", b"{}", b":::", b"x"].map(OsStr::from_bytes));
    });
    assert_eq!(call.run().stdout, b"\xfe\xffx\n");
}

#[test]
fn placeholders_may_be_within_words() {
    let parts = "{#}:{.}:{/}:{//}:{/.}:{1/}";
    prints(
        &["echo", parts, ":::", "a/b.tar.gz", "plain"],
        "1:a/b.tar:b.tar.gz:a:b.tar:b.tar.gz\n2:plain:plain:.:plain:plain\n",
    );
    prints(&["echo", "\\{} {}", "{x}", "{", ":::", "a"], "{} a {x} {\n");
    // Braces that are not placeholders.
    prints(&["echo", "{2,3}", "{0}", "{}", ":::", "a"], "{2,3} {0} a\n");
}

#[test]
fn sources_are_combined_and_the_last_varies_fastest() {
    prints(&["echo", "{2}-{1}", ":::", "a", "b", ":::", "1", "2", "3"], "1-a\n2-a\n3-a\n1-b\n2-b\n3-b\n");
    prints(&["echo", ":::", "a b", ":::", "1", "2"], "a b 1\na b 2\n");
    prints(&["printf", "<%s>", "{}", "[{}]", ":::", "a b", ":::", "1"], "<a b><1><[a b 1]>");
    prints(&["printf '<%s>' {} '{}'; echo {1/} {2.}", ":::", "x/y", ":::", "z.c"], "<x/y><z.c><x/y z.c>y z\n");
    prints(&["echo", ":::", "a", ":::"], "");
}

#[test]
fn linked_sources_advance_together() {
    prints(&["echo", ":::", "a", "b", "c", ":::+", "1", "2"], "a 1\nb 2\nc 1\n");
    prints(&["echo", ":::", "a", ":::+", "1", "2"], "a 1\na 2\n");
    prints(&["echo", ":::", "x", "y", ":::", "a", "b", ":::+", "1", "2"], "x a 1\nx b 2\ny a 1\ny b 2\n");
}

#[test]
fn files_are_sources() {
    let folder = folder();
    let (first, second) = (folder.file("first"), folder.file("second"));
    fs::write(&first, "a\nb c\n").unwrap();
    fs::write(&second, "1\n2\n").unwrap();
    prints(&["echo", "::::", &first], "a\nb c\n");
    prints(&["echo", "::::", &first, &second], "a 1\na 2\nb c 1\nb c 2\n");
    prints(&["echo", "::::", &first, "::::+", &second, ":::", "x"], "a 1 x\nb c 2 x\n");
    map(["echo", "::::", "-", ":::", "x", "y"]).input("a\nb\n").run().assert_prints("a x\na y\nb x\nb y\n");
    map(["-a", "-", "echo"]).input("a\n").run().assert_prints("a\n");
    fs::write(&first, "a\nb\0c\0").unwrap();
    prints(&["-0", "printf", "<%s>", "::::", &first], "<a\nb><c>");
}

/// Only sources that repeat are kept in memory: the first source may be endless.
#[test]
fn the_first_source_is_read_on_demand() {
    use std::io::Write;
    let mut running = map(["echo", "::::", "-", ":::", "x", "y"]).spawn();
    let mut stdin = running.child.stdin.take().unwrap();
    let mut stdout = running.child.stdout.take().unwrap();
    for number in 0..5 {
        writeln!(stdin, "{number}").unwrap();
        assert_eq!(crate::support::lines(&mut stdout, 2), format!("{number} x\n{number} y\n"));
    }
    drop(stdin);
    running.end().assert_prints("");
}

#[test]
fn columns_are_values() {
    prints(&["--colsep", ",", "echo", "{2}:{1}:{3}", ":::", "a,b c,d", "x,y"], "b c:a:d\ny:x:\n");
    prints(&["--colsep", "\\t", "printf", "<%s>", ":::", "a b\tc"], "<a b><c>");
    prints(&["--colsep", " ", "printf '<%s>' {1} {2/}", ":::", "  a   b/c "], "<a><c>");
    prints(&["--colsep", "--", "printf", "<%s>", ":::", "a--$(id)--*"], "<a><$(id)><*>");
    map(["--colsep=,", "--tag", "echo {2}"]).input("a,1\nb,2\n").run().assert_prints("a,1\t1\nb,2\t2\n");
    let done = map(["--colsep", ",", "echo", ":::", "a", ":::", "b"]).run();
    assert_eq!(done.code, Some(125));
    assert!(done.stderr().contains("--colsep splits the items of one source"), "{done:?}");
}

#[test]
fn several_items_for_one_command() {
    prints(&["-n2", "echo", ":::", "a", "b c", "d"], "a b c\nd\n");
    prints(&["-n", "2", "printf", "<%s>", "{}", "{2}", "x{}y", ":::", "a", "b c"], "<a><b c><b c><xa b cy>");
    prints(
        &["--max-args=3", "printf '<%s>' {} {3}; echo {1/}", ":::", "a/x", "b", "c", "d"],
        "<a/x><b><c><c>x\n<d><>d\n",
    );
    map(["-n2", "echo {#}: {}"]).input("a\nb\nc\n").run().assert_prints("1: a b\n2: c\n");
    // The command fails, not a single item.
    let folder = folder();
    let results = folder.file("results");
    let options =
        ["-n2", "--keep-going", "--results", &results, "test", "{2}", "!=", "d", ":::", "a", "b c", "x", "d", "e"];
    map(options).run().assert(1, "", "farpool: item 2 \"x d\": exit code 1\n");
    let text = fs::read_to_string(&results).unwrap();
    let mut items: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|record| (record["index"].as_u64().unwrap(), record["item"].as_str().unwrap().to_owned()))
        .collect();
    items.sort_unstable();
    assert_eq!(items, [(1, "a b c".to_owned()), (2, "x d".to_owned()), (3, "e".to_owned())]);
    // Different values with the same joined name are different items.
    let resume = ["-n2", "--keep-going", "--results", &results, "--resume", "test", "{2}", "!=", "d", ":::"];
    let done = map(resume.into_iter().chain(["a b", "c", "x", "d", "e"])).run();
    assert!(done.code == Some(125) && done.stderr().contains("nothing was run"), "{done:?}");
    let done = map(resume.into_iter().chain(["a", "b c", "x", "d", "e"])).run();
    assert!(done.code == Some(1) && done.stderr().contains("1 item failed earlier"), "{done:?}");
}

#[test]
fn commands_that_cannot_start_are_reported() {
    let done = map(["/nowhere/command", "{}", ":::", "a"]).run();
    done.assert(
        1,
        "",
        "farpool: item 1 \"a\": cannot start /nowhere/command: No such file or directory (os error 2)\n",
    );
    let done = map(["no-such-command", "{}", ":::", "a"]).run();
    done.assert(1, "", "farpool: item 1 \"a\": cannot start no-such-command: no such program in PATH\n");
    let done = map(["--keep-going", "echo", "{}"]).input(b"a\0b\nc\n".to_vec()).run();
    assert!(done.stderr().contains("contains a NUL byte") && done.stdout() == "c\n", "{done:?}");
    // A script without a `#!` line.
    let folder = folder();
    let script = folder.file("script");
    fs::write(&script, "echo \"<$1>\"\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).unwrap();
    prints(&[&script, "{}", ":::", "a b"], "<a b>\n");
}

#[test]
fn dry_runs_show_words_as_one_would_type_them() {
    prints(
        &["--dry-run", "mv", "{}", "a b/{/}", "$x", ":::", "x/y z", ""],
        "mv 'x/y z' 'a b/y z' '$x'\nmv '' 'a b/' '$x'\n",
    );
    prints(&["--dry-run", "-n2", "rm", ":::", "a", "-b", "it's"], "rm a -b\nrm 'it'\\''s'\n");
}

#[test]
fn invalid_words_are_explained() {
    for (words, part) in [
        (&[":::", "a"][..], "there is no command"),
        (&[], "there is no command"),
        (&["--program", "echo", "gzip", ":::", "a"], "two commands"),
        (&["-a", "list", "echo", ":::", "a"], ":::: FILE"),
        (&["echo", "{2}", ":::", "a"], "the command has {2}, but items have one value"),
        (&["echo", "{3/}", ":::", "a", ":::", "b"], "the command has {3}, but items have 2 values"),
        (&["-n2", "echo", ":::", "a", ":::", "b"], "-n takes items of one source"),
        (&["--colsep", "[,;]*\\s", "echo", ":::", "a"], "plain string"),
    ] {
        let done = map(words.iter().copied()).run();
        assert_eq!((done.code, done.stdout()), (Some(125), String::new()), "{words:?}");
        assert!(done.stderr().contains(part), "{words:?}: {done:?}");
    }
}

/// Deprecated, but unchanged.
#[test]
fn the_deprecated_option_program_still_works() {
    let warns = |words: &[&str], stdout: &str| {
        let warning = "farpool: --program will be removed in the next release: write farpool map 'LINE' ::: ITEM...\n";
        map(words.iter().copied()).run().assert(0, stdout, warning);
    };
    warns(&["--program", "echo {1} '{2}'", "--", "x", "--"], "{1} {2} x\n{1} {2} --\n");
    warns(&["--program", "echo", "--", "a", ":::", "b c"], "a\n:::\nb c\n");
    warns(&["--program", "echo", ":::", "a"], "a\n");
    // Its results match the same command in the new form.
    let folder = folder();
    let results = folder.file("results");
    warns(&["--results", &results, "--program", "echo -n {}", "--", "a", "b"], "ab");
    prints(&["--results", &results, "--resume", "echo -n {}", ":::", "a", "b", "c"], "c");
    prints(&["--results", &results, "--resume", "echo", "-n", "{}", ":::", "a", "b", "c", "d"], "d");
    warns(&["--results", &results, "--resume", "--program", "echo -n {}", "--", "a", "b", "c", "d", "e"], "e");
    let done = map(["--results", &results, "--resume", "echo", "-n", "{}x", ":::", "a"]).run();
    assert!(
        done.stderr().contains("belongs to another command, 'echo -n {}', but this one is 'echo -n {}x'"),
        "{done:?}"
    );
}
