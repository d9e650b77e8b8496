//! Ways to start programs: under a test harness, through the loader, with an inherited environment, without /proc, in several
//! objects.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use farpool_testkit::rustc;

use crate::failures::checks::{pool, still_works};
use crate::runner;

crate::runner::cases![
    each_test_of_a_harness_runs_once,
    a_harness_that_calls_init_before_main,
    init_outside_of_the_tests_of_a_harness,
    an_inherited_role_is_ignored,
    a_program_that_a_task_starts_with_its_role,
    the_loader_with_the_program_as_its_argument,
    an_address_that_is_not_utf8,
    no_proc,
    farpool_in_a_shared_object,
    a_plugin_with_its_own_farpool,
];

/// Compiles a fixture into the case's directory.
fn compile(kind: &str, fixture: &str, output: &str, options: &[&str]) -> PathBuf {
    let output = runner::scratch().join(output);
    fs::create_dir_all(output.parent().unwrap()).unwrap();
    let compiled = rustc::compile_as(kind, &rustc::fixture(fixture), &output, options);
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    output
}

/// Runs a command and returns its output without the final newline.
#[track_caller]
fn said(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}: {said}", output.status);
    said.trim_end().to_owned()
}

/// Compiles the harness with these options, and returns how often each of its tests ran.
fn runs_of_tests(options: &[&str]) -> BTreeMap<String, usize> {
    let options = [&["--test"], options].concat();
    // The folder where cargo puts harnesses.
    let harness = compile("bin", "harness.rs", "deps/harness", &options);
    said(Command::new(&harness).arg("--test-threads=4"));
    let log = fs::read_to_string(harness.with_file_name("log")).unwrap();
    log.lines().fold(BTreeMap::new(), |mut runs, test| {
        *runs.entry(test.to_owned()).or_default() += 1;
        runs
    })
}

fn each_once(tests: &[&str]) -> BTreeMap<String, usize> {
    tests.iter().map(|test| ((*test).to_owned(), 1)).collect()
}

const TESTS: [&str; 5] = ["another thread", "many threads", "late", "nothing", "nothing either"];

fn each_test_of_a_harness_runs_once() {
    assert_eq!(runs_of_tests(&[]), each_once(&TESTS));
}

fn a_harness_that_calls_init_before_main() {
    assert_eq!(runs_of_tests(&["--cfg=before_main"]), each_once(&TESTS));
}

fn init_outside_of_the_tests_of_a_harness() {
    assert_eq!(runs_of_tests(&["--cfg=beside_tests"]), each_once(&["without a name"]));
}

fn one_call() -> PathBuf {
    compile("bin", "one_call.rs", "one_call", &[])
}

/// Any process may have inherited the variable.
fn an_inherited_role_is_ignored() {
    let program = one_call();
    for role in ["fork-server", "worker"] {
        assert_eq!(said(Command::new(&program).env("FARPOOL_ROLE", role)), "[2, 3]");
    }
}

fn a_program_that_a_task_starts_with_its_role() {
    fn start(program: String) -> String {
        said(Command::new(program).env("FARPOOL_ROLE", "fork-server"))
    }
    let pool = pool(2);
    let program = one_call().into_os_string().into_string().unwrap();
    assert_eq!(pool.map(start, [program.clone(), program]).unwrap(), ["[2, 3]", "[2, 3]"]);
    still_works(&pool);
}

fn the_loader_with_the_program_as_its_argument() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let loader = maps.lines().filter_map(|line| line.split_whitespace().last()).find(|path| {
        let name = Path::new(path).file_name().unwrap_or_default().as_bytes();
        name.starts_with(b"ld-")
    });
    let said = said(Command::new(loader.expect("no loader in the memory maps")).arg(one_call()));
    for words in ["this program was started as an argument of the loader", "/ld-", "start the program directly"] {
        assert!(said.contains(words), "{words:?} is missing in: {said}");
    }
}

fn an_address_that_is_not_utf8() {
    let program = one_call();
    for (name, words) in [
        ("FARPOOL_ADDRESS", r#"FARPOOL_ADDRESS is "http://\xFF:7070", which is not UTF-8"#),
        ("FARPOOL_RECONNECT_TIMEOUT", r#"FARPOOL_RECONNECT_TIMEOUT is "http://\xFF:7070", which is not UTF-8"#),
    ] {
        let value = OsStr::from_bytes(b"http://\xff:7070");
        let mut command = Command::new(&program);
        if name != "FARPOOL_ADDRESS" {
            // It only matters on a cluster.
            command.env("FARPOOL_ADDRESS", "http://127.0.0.1:1");
        }
        let said = said(command.env(name, value));
        assert!(said.contains(words), "{words:?} is missing in: {said}");
    }
}

/// Needs namespaces; prints that and passes if they are not permitted.
fn no_proc() {
    let program = one_call();
    let run = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(&program);
        command.stdin(Stdio::null()).output()
    };
    if !run("mount -t tmpfs none /proc").is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: mounting is not permitted here");
    }
    let output = run("mount -t tmpfs none /proc && exec \"$0\"").unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for words in ["/proc/self/exe", "/proc is not mounted", "mount -t proc proc /proc"] {
        assert!(said.contains(words), "{words:?} is missing in: {said}");
    }
}

/// Returns the folder of the standard library as a shared object.
fn shared_libraries() -> PathBuf {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    PathBuf::from(said(Command::new(rustc).arg("--print=target-libdir")))
}

/// The functions are in the program, in the shared object, and in both.
fn farpool_in_a_shared_object() {
    let folder = runner::scratch();
    compile("dylib", "bridge.rs", "libbridge.so", &["--crate-name=bridge", "-Cprefer-dynamic"]);
    let bridge = format!("--extern=bridge={}", folder.join("libbridge.so").display());
    let program = compile("bin", "over_a_bridge.rs", "over_a_bridge", &["-Cprefer-dynamic", &bridge]);
    let libraries = format!("{}:{}", folder.display(), shared_libraries().display());
    assert_eq!(said(Command::new(program).env("LD_LIBRARY_PATH", libraries)), "[0, 2, 4, 6] [0, 3, 6, 9]");
}

fn a_plugin_with_its_own_farpool() {
    compile("cdylib", "plugin.rs", "libplugin.so", &[]);
    let host = compile("bin", "host.rs", "host", &[]);
    let said = |argument: &str| said(Command::new(&host).arg(argument));
    assert_eq!(said("without"), "[0, 5, 10, 15]");
    let behind = said("behind");
    for words in ["libplugin.so", "this worker has not loaded"] {
        assert!(behind.contains(words), "{words:?} is missing in: {behind}");
    }
    let before = said("before");
    assert!(before.contains("compiled with a different copy of farpool"), "{before}");
}
