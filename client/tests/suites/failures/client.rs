//! A client in a separate process, which can be killed: this executable with a scenario to run.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use farpool_testkit::processes::{self, Process, TAG};
use nix::sys::signal::Signal;

use crate::cluster;
use crate::failures::checks::seconds;
use crate::failures::scenarios::SCENARIO;
use crate::runner;

/// A running client. Dropping it kills it.
pub(crate) struct Client {
    child: Option<Child>,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    tag: String,
}

impl Client {
    /// Starts a client that runs this scenario with these arguments.
    pub(crate) fn start(scenario: &str, arguments: &[&str]) -> Client {
        let (client, _) = Self::launch(scenario, arguments, Stdio::inherit(), None);
        client
    }

    /// Starts a client whose pools are at this address.
    pub(crate) fn start_at(address: &str, scenario: &str, arguments: &[&str]) -> Client {
        let (client, _) = Self::launch(scenario, arguments, Stdio::inherit(), Some(address));
        client
    }

    /// Starts a client, and returns its stderr, too.
    pub(crate) fn start_with_stderr(scenario: &str, arguments: &[&str]) -> (Client, ChildStderr) {
        let (client, stderr) = Self::launch(scenario, arguments, Stdio::piped(), None);
        (client, stderr.expect("stderr is not a pipe"))
    }

    fn launch(
        scenario: &str,
        arguments: &[&str],
        stderr: Stdio,
        address: Option<&str>,
    ) -> (Client, Option<ChildStderr>) {
        let tag = format!("{}/client", processes::own_tag());
        // If the tests run in the background, they may ignore SIGINT, which is inherited.
        let mut child = Command::new("env")
            .arg("--default-signal=INT")
            .arg(std::env::current_exe().unwrap())
            .args(arguments)
            .env(SCENARIO, scenario)
            .env(TAG, &tag)
            .envs(address.map(|address| (cluster::ADDRESS, address)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().expect("stdout is not a pipe"));
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        (Client { child: Some(child), stdin, stdout, tag }, stderr)
    }

    /// Waits for the next line on its stdout; empty at the end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.truncate(line.trim_end().len());
        line
    }

    /// Returns its stdout.
    pub(crate) fn stdout(&mut self) -> &mut impl std::io::Read {
        &mut self.stdout
    }

    /// Lets it continue, if it waits for that.
    pub(crate) fn resume(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal to this process alone.
    pub(crate) fn signal(&self, signal: Signal) {
        processes::send(self.child.as_ref().expect("the client has exited").id(), signal).unwrap();
    }

    /// Waits until it exits.
    pub(crate) fn end(&mut self) -> ExitStatus {
        runner::wait(self.child.take().expect("the client has exited"), seconds(20)).expect("the client did not exit")
    }

    /// Returns the client and everything that it has started.
    pub(crate) fn processes(&self) -> Vec<Process> {
        processes::tagged(&self.tag)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Errors mean that it has exited.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
