//! Programs that come with their pools, and those that cannot run here.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farpool_agent::Settings;
use farpool_agent::fork_server::{ForkServer, Program};
use farpool_proto::v1::{Failure, FailureKind, StartPool};

use crate::pools::host::{Event, Host, program, start};

crate::pools::cases![
    two_pools_run_two_programs,
    programs_that_cannot_start_are_rejected,
    the_loader_is_quoted,
    a_program_that_is_still_being_written_starts_soon,
    a_program_that_does_not_reach_init_is_rejected,
    the_output_of_a_program_that_ends_before_init_is_quoted,
    a_pool_without_a_program_is_refused,
    nothing_comes_before_pool_started,
];

fn two_pools_run_two_programs() {
    let mut host = Host::new(2);
    let directory = std::env::temp_dir().canonicalize().unwrap();
    for (pool, value) in [(1, "one"), (2, "two")] {
        let environment = vec![(OsString::from("FARPOOL_TEST"), OsString::from(value))];
        let chosen =
            Program { environment: Some(environment), directory: Some(directory.clone()), ..program("serves") };
        host.agent.start_pool(StartPool { pool, ..start() }, chosen).unwrap();
        host.send(crate::pools::protocol::start_job(pool, pool));
    }
    for (pool, value) in [(1, "one"), (2, "two")] {
        // Only the chosen variables, and the one with the worker's role.
        assert_eq!(host.run(pool, "environment"), format!("FARPOOL_ROLE=worker\nFARPOOL_TEST={value}\n"));
        assert_eq!(host.run(pool, "directory"), directory.display().to_string());
    }
    host.end();
}

/// Returns the failure of a pool with this program, once all of its processes have ended.
fn rejected(program: Program) -> Failure {
    let mut host = Host::with({
        let mut settings = Settings::host(2);
        settings.start_limit = Duration::from_millis(200);
        settings
    });
    host.agent.start_pool(StartPool { pool: 7, ..start() }, program).unwrap();
    let failure = host.pool_fault(7);
    host.wait_for_event(|event| matches!(event, Event::PoolStopped(stopped) if stopped.pool == 7));
    assert!(host.agent.is_empty());
    assert_eq!(failure.host, host.agent.host());
    assert!(failure.message.contains("worker-program"), "{failure:?}");
    assert!(!failure.message.contains("far/away"), "{failure:?}");
    failure
}

fn check(program: Program, words: &[&str]) {
    let failure = rejected(program);
    assert_eq!(failure.kind(), FailureKind::ProgramRejected, "{failure:?}");
    assert!(words.iter().all(|words| failure.message.contains(words)), "{failure:?}");
}

/// A file of this test's, executable or not.
struct File(PathBuf);

impl File {
    fn new(name: &str, bytes: &[u8], mode: u32) -> File {
        let path = std::env::temp_dir().join(format!("farpool-program-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        File(path)
    }

    /// This executable, with one text replaced by another of the same length.
    fn own_with(name: &str, from: &str, to: &str) -> File {
        assert_eq!(from.len(), to.len());
        let mut bytes = own();
        let at = bytes
            .windows(from.len())
            .position(|window| window == from.as_bytes())
            .expect("the program contains the text");
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        File::new(name, &bytes, 0o755)
    }

    fn program(&self) -> Program {
        program_at(&self.0)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn own() -> Vec<u8> {
    std::fs::read(std::env::current_exe().unwrap()).unwrap()
}

fn program_at(path: &Path) -> Program {
    Program { path: path.to_owned(), ..program("serves") }
}

fn programs_that_cannot_start_are_rejected() {
    let host = Host::new(1).agent.host().to_owned();
    let mut foreign = own();
    let other = if foreign[18] == 183 { (62, "x86_64") } else { (183, "aarch64") };
    foreign[18] = other.0;
    check(
        File::new("foreign", &foreign, 0o755).program(),
        &[&format!("is built for {}, but host {host} is {}", other.1, std::env::consts::ARCH)],
    );
    check(File::new("text", b"hello", 0o755).program(), &["is not an executable file"]);
    check(program_at(Path::new("/nowhere/at/all")), &["cannot be read", &host, "No such file"]);
    check(
        File::new("script", b"#!/nowhere/at/all\n", 0o755).program(),
        &[&host, "the loader that it names does not exist"],
    );
    check(File::new("locked", &own(), 0o644).program(), &[&host, "Permission denied"]);
    let bytes = OsString::from("a\0b");
    check(Program { arguments: vec!["worker-program".into(), bytes], ..program("serves") }, &["nul byte"]);
}

/// Real messages of the real loader.
fn the_loader_is_quoted() {
    let lacks = File::own_with("lacks", "libgcc_s.so.1\0", "libxyz_s.so.1\0");
    check(lacks.program(), &["on host", "error while loading shared libraries: libxyz_s.so.1", "cannot open"]);
    let loader = File::own_with("loader", "/ld-linux-", "/ld-nobod-");
    check(loader.program(), &["on host", "the loader that it names does not exist"]);
}

fn a_program_that_is_still_being_written_starts_soon() {
    let file = File::new("busy", &own(), 0o755);
    let writer = std::fs::OpenOptions::new().append(true).open(&file.0).unwrap();
    let busy = ForkServer::start(&file.program(), None).unwrap_err();
    assert_eq!(busy.kind(), std::io::ErrorKind::ExecutableFileBusy);
    let closes = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        drop(writer);
    });
    ForkServer::start(&file.program(), None).unwrap();
    closes.join().unwrap();
}

fn a_program_that_does_not_reach_init_is_rejected() {
    check(program("hangs"), &["did not reach farpool::init() within 200ms on host", "first line of main"]);
}

fn the_output_of_a_program_that_ends_before_init_is_quoted() {
    check(program("complains"), &["exit status: 127", "before it reached farpool::init()", "cannot load libx.so"]);
}

fn a_pool_without_a_program_is_refused() {
    let mut host = Host::new(1);
    host.send(crate::pools::protocol::Command::StartPool(Box::new(StartPool { pool: 3, ..start() })));
    let failure = host.pool_fault(3);
    assert_eq!(failure.kind(), FailureKind::Unavailable);
    host.end();
}

fn nothing_comes_before_pool_started() {
    let mut host = Host::new(1);
    host.pool(4);
    host.run(4, "echo something");
    let about_pool = |event: &Event| !matches!(event, Event::Credit(_));
    let first = host.events.iter().find(|event| about_pool(event));
    assert!(matches!(first, Some(Event::PoolStarted(started)) if started.pool == 4), "{first:?}");
    host.end();
}
