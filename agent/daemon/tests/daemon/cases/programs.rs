//! How programs are fetched to a host and started there.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::{EndJob, FailureKind, ResizePool, StartPool, StopPool, Variable};
use farpool_testkit::folder::Folder;
use nix::sys::signal::Signal;
use tonic::Status;

use crate::coordinator::Coordinator;
use crate::daemon::Daemon;
use crate::pool::{WaitForEvents, assign, change, digest, own_program, start, start_job};
use crate::program::starts;

super::cases! {
    a_program_is_fetched_once_for_two_pools, a_program_with_another_digest_is_rejected,
    a_program_of_another_size_is_rejected, a_program_too_large_for_the_cache_is_refused,
    a_program_too_large_for_a_file_is_refused, a_noexec_file_system, a_program_directory_is_used,
    two_agents_share_a_cache, a_program_that_cannot_be_fetched_is_refused, a_pool_can_be_stopped_during_the_fetch,
    commands_during_the_fetch_are_kept, a_program_for_another_machine_is_rejected,
    a_program_without_its_library_is_rejected, a_program_gets_its_arguments_variables_and_directory,
    a_program_starts_in_its_clients_directory, invalid_programs_are_rejected,
}

async fn a_program_is_fetched_once_for_two_pools() {
    let (scratch, notes) = (Folder::for_everybody("daemon"), Folder::for_everybody("daemon"));
    let mut coordinator = Coordinator::start();
    let _daemon = Daemon::start(&coordinator.url(), &scratch.path().join("programs"), &["--slots", "2"]);
    let (mut session, _) = coordinator.session().await;
    let program = own_program();
    for pool in [1, 2] {
        session.send(Command::StartPool(Box::new(start(pool, &program, notes.path(), "none"))));
    }
    let fetch = coordinator.fetch().await;
    assert_eq!(fetch.digest, digest(&program).to_bytes());
    fetch.send(&program);
    for pool in [1, 2] {
        session.started(pool).await;
    }
    for pool in [1, 2] {
        session.send(start_job(pool, pool + 10));
        session.send(assign(pool + 10, 10 * pool..10 * pool + 3));
    }
    session.results(6).await;
    // A later pool finds it too.
    session.send(Command::StopPool(StopPool { pool: 1, now: true }));
    session.stopped(1).await;
    session.send(Command::StartPool(Box::new(start(3, &program, notes.path(), "none"))));
    session.started(3).await;
    session.send(start_job(3, 13));
    session.send(assign(13, 30..31));
    session.results(1).await;
    assert!(!coordinator.was_asked_for_program());
    assert_eq!(scratch.names_in("programs"), [digest(&program).to_string()]);
    assert_eq!(starts(notes.path()).len(), 3);
}

async fn a_program_with_another_digest_is_rejected() {
    let (scratch, notes) = (Folder::for_everybody("daemon"), Folder::for_everybody("daemon"));
    let mut coordinator = Coordinator::start();
    let _daemon = Daemon::start(&coordinator.url(), &scratch.path().join("programs"), &[]);
    let (mut session, _) = coordinator.session().await;
    let program = own_program();
    let mut other = program.clone();
    *other.last_mut().expect("the program is empty") ^= 1;
    session.send(Command::StartPool(Box::new(start(1, &program, notes.path(), "none"))));
    coordinator.fetch().await.send(&other);
    let [expected, found] = [&program, &other].map(|program| digest(program).to_string());
    session.refused(1, FailureKind::Unavailable, &["expected", &expected, "found", &found]).await;
    assert_eq!(scratch.names_in("programs"), [""; 0]);
    assert!(starts(notes.path()).is_empty(), "nothing was run");
    // Late commands about that pool are valid, and the next pool may start.
    session.send(start_job(1, 5));
    session.send(Command::StartPool(Box::new(start(2, &program, notes.path(), "none"))));
    coordinator.fetch().await.send(&program);
    session.started(2).await;
}

async fn a_program_of_another_size_is_rejected() {
    let scratch = Folder::for_everybody("daemon");
    let mut coordinator = Coordinator::start();
    let _daemon = Daemon::start(&coordinator.url(), &scratch.path().join("programs"), &[]);
    let (mut session, _) = coordinator.session().await;
    let compressed = |bytes: &[u8]| zstd::encode_all(bytes, 1).expect("cannot compress the program");
    let program = b"a program";
    let whole = compressed(program);
    let named = digest(program).to_string();
    let cases = [
        (program.to_vec(), 9, "cannot be decompressed"),
        (whole[..whole.len() - 1].to_vec(), 9, "ended after"),
        (whole.clone(), 10, "has 9 bytes, not the 10"),
        (whole, 8, "longer than the 8 bytes"),
        // A few KiB as sent.
        (compressed(&vec![0; 256 << 20]), 1 << 20, "longer than the 1048576 bytes"),
    ];
    for (pool, (sent, size, words)) in (1..).zip(cases) {
        session.send(Command::StartPool(Box::new(start(pool, program, scratch.path(), "none"))));
        coordinator.fetch().await.send_compressed(&sent, size);
        session.refused(pool, FailureKind::Unavailable, &[&named, words]).await;
        assert_eq!(scratch.names_in("programs"), [""; 0]);
    }
}

async fn a_program_too_large_for_the_cache_is_refused() {
    let scratch = Folder::for_everybody("daemon");
    let mut coordinator = Coordinator::start();
    let programs = scratch.path().join("programs");
    let mut daemon = Daemon::start(&coordinator.url(), &programs, &["--program-cache", "1MiB"]);
    let (mut session, _) = coordinator.session().await;
    session.send(Command::StartPool(Box::new(start(1, &vec![7; (1 << 20) + 1], scratch.path(), "none"))));
    session.refused(1, FailureKind::Unavailable, &["1048577 bytes", "1048576 bytes"]).await;
    assert!(session.unhealthy().await.contains("1048577 bytes"));
    daemon.wait_for_line("host unhealthy; nothing can run here reason=\"cannot get program").await;
    assert!(!coordinator.was_asked_for_program());
    // It claims to be small, but is not.
    let large = vec![8; (1 << 20) + 1];
    let mut lie = start(2, &large, scratch.path(), "none");
    change(&mut lie, |program| program.size = 3);
    session.send(Command::StartPool(Box::new(lie)));
    coordinator.fetch().await.send(&large);
    session.refused(2, FailureKind::Unavailable, &["1048577 bytes", "1048576 bytes"]).await;
}

/// This used to kill the daemon (SIGXFSZ).
async fn a_program_too_large_for_a_file_is_refused() {
    let scratch = Folder::for_everybody("daemon");
    let mut coordinator = Coordinator::start();
    let mut daemon = Daemon::with_file_limit(9 << 20, &coordinator.url(), &scratch.path().join("programs"));
    let (mut session, _) = coordinator.session().await;
    let large = vec![7; 10 << 20];
    session.send(Command::StartPool(Box::new(start(1, &large, scratch.path(), "none"))));
    coordinator.fetch().await.send(&large);
    session.refused(1, FailureKind::Unavailable, &["File too large"]).await;
    assert!(session.unhealthy().await.contains("File too large"));
    daemon.wait_for_line("host unhealthy; nothing can run here reason=\"cannot get program").await;
    assert_eq!(scratch.names_in("programs"), [""; 0]);
    daemon.signal(Signal::SIGINT);
    assert_eq!(daemon.ended().await.code, Some(0));
}

async fn a_noexec_file_system() {
    let (scratch, notes) = (Folder::for_everybody("daemon"), Folder::for_everybody("daemon"));
    let programs = scratch.path().join("programs");
    fs::create_dir(&programs).expect("cannot create a directory");
    let Some(_mounted) = Noexec::mount(&programs) else {
        eprintln!("skipped: only root can mount a file system");
        return;
    };
    let mut coordinator = Coordinator::start();
    let mut daemon = Daemon::start(&coordinator.url(), &programs, &[]);
    let (mut session, _) = coordinator.session().await;
    let program = own_program();
    session.send(Command::StartPool(Box::new(start(1, &program, notes.path(), "none"))));
    coordinator.fetch().await.send(&program);
    session.refused(1, FailureKind::Unavailable, &["mounted noexec", "--programs"]).await;
    assert!(session.unhealthy().await.contains("mounted noexec"));
    daemon.wait_for_line("host unhealthy; nothing can run here reason=\"starting").await;
    // It is healthy again once a pool can be started.
    let remounted = std::process::Command::new("mount").args(["-o", "remount,exec"]).arg(&programs).status();
    assert!(remounted.is_ok_and(|status| status.success()));
    session.send(Command::StartPool(Box::new(start(2, &program, notes.path(), "none"))));
    session.started(2).await;
    assert_eq!(session.unhealthy().await, "");
    daemon.wait_for_line("host healthy").await;
}

/// A file system from which nothing can be executed.
struct Noexec<'a>(&'a std::path::Path);

impl<'a> Noexec<'a> {
    fn mount(at: &'a std::path::Path) -> Option<Self> {
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "noexec,mode=700", "tmpfs"]).arg(at);
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self(at))
    }
}

impl Drop for Noexec<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
    }
}

async fn a_program_directory_is_used() {
    let (scratch, notes) = (Folder::for_everybody("daemon"), Folder::for_everybody("daemon"));
    let directory = scratch.path().join("there");
    fs::create_dir(&directory).expect("cannot create a directory");
    let program = own_program();
    fs::write(directory.join("program"), &program).expect("cannot write the file");
    fs::set_permissions(directory.join("program"), Permissions::from_mode(0o755))
        .expect("cannot change the permissions");
    let mut coordinator = Coordinator::start();
    let arguments = ["--program-dir", "/nowhere", "--program-dir", directory.to_str().expect("the text is not UTF-8")];
    let _daemon = Daemon::start(&coordinator.url(), &scratch.path().join("programs"), &arguments);
    let (mut session, _) = coordinator.session().await;
    session.send(Command::StartPool(Box::new(start(1, &program, notes.path(), "none"))));
    session.started(1).await;
    session.send(start_job(1, 5));
    session.send(assign(5, 0..3));
    session.results(3).await;
    assert!(!coordinator.was_asked_for_program());
    assert_eq!(scratch.names_in("programs"), [""; 0]);
}

async fn two_agents_share_a_cache() {
    let (scratch, notes) = (Folder::for_everybody("daemon"), Folder::for_everybody("daemon"));
    let programs = scratch.path().join("programs");
    let mut coordinator = Coordinator::start();
    let _daemons = [(); 2].map(|()| Daemon::start(&coordinator.url(), &programs, &[]));
    let mut sessions = [coordinator.session().await.0, coordinator.session().await.0];
    let program = own_program();
    for session in &sessions {
        session.send(Command::StartPool(Box::new(start(1, &program, notes.path(), "none"))));
    }
    // Neither knows of the other's program yet.
    let fetches = [coordinator.fetch().await, coordinator.fetch().await];
    fetches.into_iter().for_each(|fetch| fetch.send(&program));
    for session in &mut sessions {
        session.started(1).await;
        session.send(start_job(1, 5));
        session.send(assign(5, 0..3));
        session.results(3).await;
    }
    assert_eq!(scratch.names_in("programs"), [digest(&program).to_string()]);
    // The other agent does not fetch what one has fetched.
    let mut other = program.clone();
    other.push(0);
    for session in &mut sessions {
        session.send(Command::StartPool(Box::new(start(2, &other, notes.path(), "none"))));
        if scratch.names_in("programs").len() == 1 {
            coordinator.fetch().await.send(&other);
        }
        session.started(2).await;
    }
    assert!(!coordinator.was_asked_for_program());
}

async fn a_program_that_cannot_be_fetched_is_refused() {
    let scratch = Folder::for_everybody("daemon");
    let mut coordinator = Coordinator::start();
    let _daemon = Daemon::start(&coordinator.url(), scratch.path(), &[]);
    let (mut session, _) = coordinator.session().await;
    session.send(Command::StartPool(Box::new(start(1, b"a program", scratch.path(), "none"))));
    coordinator.fetch().await.refuse(Status::not_found("the client that has it is gone"));
    let words = [&*digest(b"a program").to_string(), "the client that has it is gone"];
    session.refused(1, FailureKind::Unavailable, &words).await;
}

async fn a_pool_can_be_stopped_during_the_fetch() {
    let (scratch, notes) = (Folder::for_everybody("daemon"), Folder::for_everybody("daemon"));
    let mut coordinator = Coordinator::start();
    let _daemon = Daemon::start(&coordinator.url(), &scratch.path().join("programs"), &[]);
    let (mut session, _) = coordinator.session().await;
    let program = own_program();
    session.send(Command::StartPool(Box::new(start(1, &program, notes.path(), "none"))));
    let mut fetch = coordinator.fetch().await;
    session.send(Command::StopPool(StopPool { pool: 1, now: false }));
    session.stopped(1).await;
    fetch.wait_until_cancelled().await;
    // The same number may be used again.
    session.send(Command::StartPool(Box::new(start(1, &program, notes.path(), "none"))));
    coordinator.fetch().await.send(&program);
    session.started(1).await;
    session.send(start_job(1, 5));
    session.send(assign(5, 0..1));
    session.results(1).await;
    assert_eq!(starts(notes.path()).len(), 1);
}

async fn commands_during_the_fetch_are_kept() {
    let (scratch, notes) = (Folder::for_everybody("daemon"), Folder::for_everybody("daemon"));
    let mut coordinator = Coordinator::start();
    let _daemon = Daemon::start(&coordinator.url(), &scratch.path().join("programs"), &["--slots", "4"]);
    let (mut session, _) = coordinator.session().await;
    let program = own_program();
    session.send(Command::StartPool(Box::new(start(1, &program, notes.path(), "none"))));
    let fetch = coordinator.fetch().await;
    session.send(Command::ResizePool(ResizePool { pool: 1, processes: 2 }));
    session.send(start_job(1, 5));
    session.send(start_job(1, 6));
    session.send(Command::EndJob(EndJob { job: 5, kill: true }));
    fetch.send(&program);
    session.started(1).await;
    session.send(start_job(1, 5));
    session.send(assign(5, 0..3));
    session.send(assign(6, 3..6));
    session.results(6).await;
}

async fn a_program_for_another_machine_is_rejected() {
    let mut program = fs::read("/bin/true").expect("cannot read /bin/true");
    // The machine in the header of an ELF file: one that does not exist.
    program[18..20].copy_from_slice(&0x1234_u16.to_le_bytes());
    check_rejected(&program, &["here"]).await;
}

async fn a_program_without_its_library_is_rejected() {
    let mut program = fs::read("/bin/true").expect("cannot read /bin/true");
    let name = b"libc.so.6\0";
    let at = program.windows(name.len()).position(|bytes| bytes == name);
    let Some(at) = at else {
        println!("a_program_without_its_library_is_rejected: skipped, since /bin/true needs no libc.so.6 here");
        return;
    };
    program[at + 3] = b'q';
    check_rejected(&program, &["here", "libq.so.6"]).await;
}

async fn check_rejected(program: &[u8], words: &[&str]) {
    let scratch = Folder::for_everybody("daemon");
    let mut coordinator = Coordinator::start();
    let _daemon = Daemon::start(&coordinator.url(), scratch.path(), &[]);
    let (mut session, _) = coordinator.session().await;
    session.send(Command::StartPool(Box::new(start(1, program, scratch.path(), "none"))));
    coordinator.fetch().await.send(program);
    session.refused(1, FailureKind::ProgramRejected, words).await;
}

async fn a_program_gets_its_arguments_variables_and_directory() {
    let (scratch, notes) = (Folder::for_everybody("daemon"), Folder::for_everybody("daemon"));
    let mut coordinator = Coordinator::start();
    let _daemon = Daemon::start(&coordinator.url(), &scratch.path().join("programs"), &[]);
    let (mut session, _) = coordinator.session().await;
    let program = own_program();
    let mut pool = start(1, &program, notes.path(), "none");
    let lie = Variable { name: "FARPOOL_PROGRAM".into(), value: "another one".into() };
    change(&mut pool, |program| program.environment.push(lie));
    session.send(Command::StartPool(Box::new(pool)));
    coordinator.fetch().await.send(&program);
    session.started(1).await;
    session.send(start_job(1, 5));
    session.send(assign(5, 0..1));
    session.results(1).await;
    let [start] = &starts(notes.path())[..] else { panic!("the program was not started exactly once") };
    let mut environment = start.environment.clone();
    environment.sort();
    // Its workers make the tokens of their items from this.
    assert_eq!(environment.extract_if(.., |variable| variable.starts_with("FARPOOL_ITEM=")).count(), 1);
    let address = format!("FARPOOL_ADDRESS={}", coordinator.url());
    let digest = format!("FARPOOL_PROGRAM={}", digest(&program));
    let told = [&address, "FARPOOL_HOST=here", &digest, "FARPOOL_ROLE=fork-server"];
    assert_eq!(environment, [&["CHOSEN=by the client"], &told[..]].concat());
    assert_eq!(start.arguments, ["a program", notes.path().to_str().expect("the text is not UTF-8"), "none"]);
    // Its client's directory is not on this host: an empty one replaces it, and is removed with the pool.
    assert_eq!(fs::read_dir(&start.directory).expect("cannot read the directory").count(), 0);
    fs::write(format!("{}/left", start.directory), b"behind").expect("cannot write a file there");
    session.send(Command::StopPool(StopPool { pool: 1, now: false }));
    session.stopped(1).await;
    // The directory is removed in the background; the next pool is started after that.
    while fs::exists(&start.directory).expect("cannot look up the directory") {
        tokio::task::yield_now().await;
    }
}

async fn a_program_starts_in_its_clients_directory() {
    let (scratch, notes) = (Folder::for_everybody("daemon"), Folder::for_everybody("daemon"));
    let mut coordinator = Coordinator::start();
    let _daemon = Daemon::start(&coordinator.url(), &scratch.path().join("programs"), &[]);
    let (mut session, _) = coordinator.session().await;
    let program = own_program();
    let mut pool = start(1, &program, notes.path(), "none");
    let directory = fs::canonicalize(notes.path()).expect("no such folder");
    let path = directory.to_str().expect("the text is not UTF-8").to_owned();
    change(&mut pool, |program| program.directory = path.into());
    session.send(Command::StartPool(Box::new(pool)));
    coordinator.fetch().await.send(&program);
    session.started(1).await;
    session.send(start_job(1, 5));
    session.send(assign(5, 0..1));
    session.results(1).await;
    assert_eq!(starts(notes.path())[0].directory, directory.to_str().expect("the text is not UTF-8"));
    session.send(Command::StopPool(StopPool { pool: 1, now: false }));
    session.stopped(1).await;
    assert!(directory.exists());
}

async fn invalid_programs_are_rejected() {
    let scratch = Folder::for_everybody("daemon");
    let mut coordinator = Coordinator::start();
    let _daemon = Daemon::start(&coordinator.url(), scratch.path(), &[]);
    let (mut session, _) = coordinator.session().await;
    let broken = |pool: u64, break_it: fn(&mut StartPool)| {
        let mut start = start(pool, b"a program", scratch.path(), "none");
        break_it(&mut start);
        Command::StartPool(Box::new(start))
    };
    session.send(broken(1, |start| start.program.clear()));
    session.refused(1, FailureKind::ProgramRejected, &["which program"]).await;
    session.send(broken(11, |start| start.program = vec![0xff; 8].into()));
    session.refused(11, FailureKind::ProgramRejected, &["failed to decode"]).await;
    session.send(broken(2, |start| change(start, |program| program.digest.truncate(31))));
    session.refused(2, FailureKind::ProgramRejected, &["31 bytes"]).await;
    session.send(broken(3, |start| change(start, |program| program.arguments.push("a\0b".into()))));
    session.refused(3, FailureKind::ProgramRejected, &["argument", "zero byte"]).await;
    for (pool, name) in [(4, ""), (5, "a=b"), (6, "a\0b")] {
        let mut start = start(pool, b"a program", scratch.path(), "none");
        let variable = Variable { name: name.into(), value: "value".into() };
        change(&mut start, |program| program.environment.push(variable));
        session.send(Command::StartPool(Box::new(start)));
        session.refused(pool, FailureKind::ProgramRejected, &["variable"]).await;
    }
    session.send(broken(8, |start| change(start, |program| program.directory = vec![b'x'; 5000].into())));
    session.refused(8, FailureKind::ProgramRejected, &["directory: 5000"]).await;
    session.send(broken(9, |start| {
        let variable = Variable { name: "X".into(), value: vec![b'x'; 2 << 20].into() };
        change(start, |program| program.environment.push(variable));
    }));
    session.refused(9, FailureKind::ProgramRejected, &["arguments and environment"]).await;
    session.send(broken(10, |start| {
        change(start, |program| program.arguments = vec!["".into(); (1 << 16) + 1]);
    }));
    session.refused(10, FailureKind::ProgramRejected, &["arguments and environment variables"]).await;
    // It has the right digest, but is no executable.
    session.send(Command::StartPool(Box::new(start(7, b"a program", scratch.path(), "none"))));
    coordinator.fetch().await.send(b"a program");
    session.refused(7, FailureKind::ProgramRejected, &["a program", "executable"]).await;
}
