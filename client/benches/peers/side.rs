//! The sides: processes that each measure one workload on request.
//!
//! A side reads commands from stdin, one per line, and answers each with a line. On `prepare` it warms up. On `run` it measures
//! once and answers with the values of the workload's measures (`nan`: none; `inf`: it never finished). It exits at the end of
//! stdin.

use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use farpool_testkit::machine;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::plan::{Condition, Workload};
use crate::table::Mode;

pub(crate) const FARPOOL_ROLE: &str = "--side-farpool";
pub(crate) const CLUSTER_ROLE: &str = "--side-cluster";
pub(crate) const LIMIT_ROLE: &str = "--side-limit";
pub(crate) const TCP_ROLE: &str = "--side-tcp";
/// CLOCK_MONOTONIC in nanoseconds just before a side was started.
pub(crate) const START_VARIABLE: &str = "FARPOOL_BENCH_START";

const SCRIPT: &str = include_str!("multiprocessing_pool.py");
/// After this time, a pool counts as idle.
const SETTLED: Duration = Duration::from_millis(1500);

/// One number for each of the workload's measures.
pub(crate) type Values = Vec<f64>;

/// A side's code in its process.
pub(crate) trait Measures {
    /// Warms up.
    fn prepare(&mut self);

    /// Does one run.
    fn run(&mut self) -> Values;
}

/// Runs the process of a side.
pub(crate) fn serve<S: Measures>(side: impl FnOnce() -> S) {
    let mut side = side();
    for line in stdin().lock().lines().map_while(Result::ok) {
        match line.as_str() {
            "prepare" => {
                side.prepare();
                println!();
            }
            _ => println!("{}", side.run().iter().map(f64::to_string).collect::<Vec<_>>().join(" ")),
        }
        let _ = stdout().flush();
    }
}

/// The Python interpreter. The `python3` on the PATH may be a script that looks for it, whose time would count too.
pub(crate) struct Python {
    path: String,
    pub(crate) version: String,
}

impl Python {
    pub(crate) fn find() -> Option<Python> {
        let script = "import sys; print(sys.executable); print('Python', sys.version.split()[0])";
        let output = Command::new("python3").args(["-c", script]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let (path, version) = text.trim_end().split_once('\n')?;
        Some(Python { path: path.to_owned(), version: version.to_owned() })
    }
}

/// farpool, its peer, and the limit, if there is one.
pub(crate) struct Sides {
    pub(crate) sides: [Option<Running>; 3],
    /// The program that they run, if it is a copy; deleted afterwards.
    _copy: Option<ProgramCopy>,
}

impl Sides {
    pub(crate) fn start(mode: Mode, workload: &Workload, python: Option<&Python>) -> Sides {
        let copy = (workload.condition == Condition::Fresh).then(ProgramCopy::new);
        let program = copy.as_ref().map_or("/proc/self/exe", |copy| &copy.0);
        let own = |role: &str| [program, role, workload.name].map(str::to_owned).to_vec();
        let python = python.map(|python| [&python.path, "-c", SCRIPT, workload.name].map(str::to_owned).to_vec());
        let limit = |role| has_limit(workload.name).then(|| own(role));
        let commands = match mode {
            Mode::Local => [Some(own(FARPOOL_ROLE)), python, limit(LIMIT_ROLE)],
            Mode::Cluster => [Some(own(CLUSTER_ROLE)), Some(own(FARPOOL_ROLE)), limit(TCP_ROLE)],
        };
        Sides { sides: commands.map(|command| command.map(|command| Running::new(workload, command))), _copy: copy }
    }
}

/// A copy of this program: memory that a measured process shares with this one would count only half.
struct ProgramCopy(String);

impl ProgramCopy {
    fn new() -> ProgramCopy {
        let path = std::env::temp_dir().join(format!("farpool-bench-{}", std::process::id()));
        std::fs::copy("/proc/self/exe", &path).expect("cannot copy the program");
        ProgramCopy(path.to_string_lossy().into_owned())
    }
}

impl Drop for ProgramCopy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A side, as the benchmark controls it.
pub(crate) struct Running {
    command: Vec<String>,
    /// `None`: it is started for each run.
    process: Option<Process>,
}

impl Running {
    fn new(workload: &Workload, command: Vec<String>) -> Running {
        let warm = workload.condition != Condition::Fresh;
        let process = warm.then(|| {
            let mut process = Process::start(&command);
            process.ask("prepare");
            process
        });
        Running { command, process }
    }

    pub(crate) fn run(&mut self, workload: &Workload) -> Values {
        let values = match &mut self.process {
            Some(process) => process.ask("run"),
            None => {
                let mut process = Process::start(&self.command);
                let mut values = process.ask("run");
                if values.len() < workload.measures.len() {
                    std::thread::sleep(SETTLED);
                    values.push(machine::memory_of_tree(process.child.id()));
                }
                values
            }
        };
        let count = workload.measures.len();
        // Values that a side does not report are missing.
        (0..count).map(|at| values.get(at).copied().unwrap_or(f64::NAN)).collect()
    }
}

struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(command: &[String]) -> Process {
        let (program, arguments) = command.split_first().expect("a side's command has a program");
        let mut command = Command::new(program);
        command.args(arguments).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env(START_VARIABLE, machine::monotonic_ns().to_string());
        let mut child = command.spawn().expect("cannot start a side");
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("stdout is not a pipe"));
        Process { child, input, output: BufReader::new(output) }
    }

    fn ask(&mut self, what: &str) -> Values {
        let mut answer = String::new();
        let input = self.input.as_mut().expect("the input has ended");
        let asked = writeln!(input, "{what}").and_then(|()| self.output.read_line(&mut answer));
        assert!(asked.is_ok_and(|bytes| bytes > 0), "a side ended without an answer to {what:?}");
        answer.split_whitespace().map(|word| word.parse().expect("a side answers with numbers")).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.input = None;
        for _ in 0..200 {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // Workers that hang are in their side's process group.
        let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Returns whether the workload has a limit.
fn has_limit(workload: &str) -> bool {
    !matches!(workload, "W4" | "W7" | "W9" | "W10")
}
