//! Builds the package, and runs its tests, `test_*.py`, with pytest: on this machine and on a cluster. The wheel is built with a profile of
//! its own, because a release build takes minutes.
//!
//! This needs a python3 that can make virtual environments and, for the first run, PyPI. If anything is missing, the tests are skipped
//! and print that; with FARPOOL_REQUIRE_TOOLS, which `.ci/run` sets, they fail.

use std::fs::{self, File};
use std::io::{self, Write, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, OnceLock, PoisonError};

use farpool_testkit::binaries;
use farpool_testkit::doses::{REQUIRE_TOOLS, requires_tools};

const REQUIREMENTS: &str = include_str!("requirements.txt");
const README: &str = include_str!("../README.md");
/// What `test_cpython.py` prints if it cannot run: Debian, for example, packages Python's tests separately.
const NO_TESTS_OF_PYTHON: &str = "this Python comes without its tests";

/// The package as a wheel, and the interpreter of an environment where it is installed with what its tests need.
struct Package {
    wheel: PathBuf,
    python: PathBuf,
}

#[test]
fn tests_pass_on_this_machine() {
    pytest("not cluster", None);
}

#[test]
fn tests_pass_on_a_cluster() {
    binaries::build_daemons();
    pytest("cluster", Some(&binaries::folder()));
}

#[test]
fn the_wheel_is_all_that_a_fresh_environment_needs() {
    let Some(package) = package() else { return };
    let clean = folder().join("clean");
    let installed = new_environment(&clean).and_then(|python| {
        run(pip(&python, "install").arg(&package.wheel), "clean-install")?;
        Ok(python)
    });
    let python = installed.unwrap_or_else(|why| panic!("{why}"));
    let run = |command: &mut Command, log| run(command, log).unwrap_or_else(|why| panic!("{why}"));
    run(&mut pip(&python, "check"), "clean-check");
    let example = README.split("```python\n").nth(1).and_then(|rest| rest.split("```").next());
    let script = folder().join("example.py");
    fs::write(&script, example.expect("the README has an example")).expect("the target folder can be written");
    // Nothing but what is installed there may be found.
    assert_eq!(run(Command::new(&python).arg("-I").arg(&script), "clean-example"), "finished 100 calculations\n");
    let version =
        run(Command::new(&python).args(["-I", "-c", "import farpool; print(farpool.__version__)"]), "version");
    assert_eq!(version.trim_end(), env!("CARGO_PKG_VERSION"));
}

/// Runs those tests that a marker expression selects.
fn pytest(selected: &str, daemons: Option<&Path>) {
    // The time limits of some tests assume that nothing else is running.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let Some(package) = package() else { return };
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new(&package.python);
    command.args(["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-m", selected]);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env("PYTHONPYCACHEPREFIX", folder().join("bytecode"));
    // Each worker imports pytest: without its bytecode that takes longer than the tests.
    command.env_remove("PYTHONDONTWRITEBYTECODE");
    command.env_remove("FARPOOL_ADDRESS").env_remove("FARPOOL_BINARIES");
    if let Some(daemons) = daemons {
        command.env("FARPOOL_BINARIES", daemons);
    }
    let printed = run(&mut command, &selected.replace(' ', "-")).unwrap_or_else(|why| panic!("{why}"));
    for skipped in printed.lines().filter(|line| line.starts_with("SKIPPED")) {
        assert!(!requires_tools() || skipped.contains(NO_TESTS_OF_PYTHON), "{printed}");
        say(skipped);
    }
    println!("{printed}");
}

/// Builds, installs and returns the package. If that is not possible here, prints why.
fn package() -> Option<&'static Package> {
    static MADE: OnceLock<Option<Package>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let tools = match tools() {
            Ok(tools) => tools,
            Err(why) => {
                assert!(!requires_tools(), "{REQUIRE_TOOLS} is set: {why}");
                say(&format!("skipped: {why}"));
                return None;
            }
        };
        Some(build(tools).unwrap_or_else(|why| panic!("{why}")))
    });
    made.as_ref()
}

/// Installs what building and testing need, unless that is installed. Returns the environment's interpreter.
fn tools() -> Result<PathBuf, String> {
    let environment = folder().join("tools");
    let which = run(Command::new("python3").args(["-c", "import sys; print(sys.version, sys.base_prefix)"]), "python")?;
    let wanted = which + REQUIREMENTS;
    let made_of = environment.join("made-of");
    if fs::read_to_string(&made_of).is_ok_and(|made_of| made_of == wanted) {
        return Ok(environment.join("bin/python"));
    }
    let python = new_environment(&environment)?;
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requirements.txt");
    run(pip(&python, "install").arg("-r").arg(requirements), "tools")?;
    fs::write(made_of, wanted).map_err(|error| error.to_string())?;
    Ok(python)
}

/// Builds the wheel, and installs it.
fn build(python: PathBuf) -> Result<Package, String> {
    let wheels = folder().join("wheels");
    let _ = fs::remove_dir_all(&wheels);
    let mut maturin = Command::new(python.with_file_name("maturin"));
    maturin.args(["build", "--locked", "--profile", "wheel", "--interpreter"]).arg(&python).arg("--out").arg(&wheels);
    // maturin and cargo configure pyo3 differently, so in one folder each would rebuild what the other has built.
    maturin.arg("--target-dir").arg(folder().join("build")).current_dir(env!("CARGO_MANIFEST_DIR"));
    let printed = run(&mut maturin, "maturin")?;
    let built = fs::read_dir(&wheels).map_err(|error| error.to_string())?.flatten().map(|entry| entry.path());
    let [wheel] = <[_; 1]>::try_from(built.collect::<Vec<_>>()).map_err(|found| format!("{found:?}\n{printed}"))?;
    run(pip(&python, "install").args(["--no-deps", "--force-reinstall"]).arg(&wheel), "install")?;
    Ok(Package { wheel, python })
}

fn new_environment(folder: &Path) -> Result<PathBuf, String> {
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder), "venv")?;
    Ok(folder.join("bin/python"))
}

fn pip(python: &Path, verb: &str) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "--quiet", "--disable-pip-version-check", verb]);
    command
}

/// Runs a command and returns what it printed; if it fails, that is in the error. `log`: the name of the file that keeps it.
fn run(command: &mut Command, log: &str) -> Result<String, String> {
    match run_into(command, &folder().join("logs").join(log)) {
        Ok((status, printed)) if status.success() => Ok(printed),
        Ok((status, printed)) => Err(format!("{command:?}: {status}\n{printed}")),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

fn run_into(command: &mut Command, log: &Path) -> io::Result<(ExitStatus, String)> {
    fs::create_dir_all(log.parent().expect("it is in a folder"))?;
    // A process that the command leaves behind would keep a pipe open.
    let file = File::create(log)?;
    let status = command.stdout(file.try_clone()?).stderr(file).status()?;
    Ok((status, String::from_utf8_lossy(&fs::read(log)?).into_owned()))
}

/// The folder for everything that this creates.
fn folder() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is in the target folder");
    target.join("python")
}

/// Prints a line that libtest does not capture.
fn say(line: &str) {
    let _ = writeln!(stderr(), "client/python: {line}");
}
