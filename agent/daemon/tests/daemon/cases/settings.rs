//! The daemon's settings.

use farpool_testkit::folder::Folder;
use nix::sys::signal::Signal;

use crate::coordinator::Coordinator;
use crate::daemon::Daemon;

super::cases! {
    other_processes_cannot_read_its_memory, wrong_settings_are_refused, settings_from_a_file,
    settings_are_shown_with_their_sources, a_log_in_json, variables, help, a_directory_that_cannot_be_used,
    a_missing_program_directory,
}

/// Tasks run as the same user, but can read neither the environment nor the memory of the daemon.
async fn other_processes_cannot_read_its_memory() {
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65_534;
    let (scratch, mut coordinator) = (Folder::for_everybody("daemon"), Coordinator::start());
    // In a place where everybody may run it.
    let program = scratch.path().join("agent");
    std::fs::copy(env!("CARGO_BIN_EXE_farpool-agent"), &program).expect("cannot copy the agent");
    let programs = scratch.path().join("programs");
    std::fs::create_dir(&programs).expect("cannot create a folder");
    let mut command = std::process::Command::new(&program);
    command.args(["--coordinator", &coordinator.url(), "--programs"]).arg(&programs);
    if nix::unistd::geteuid().is_root() {
        for folder in [scratch.path(), &programs] {
            std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY)).expect("cannot change the owner");
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    let daemon = Daemon::spawn(command, &[]);
    let _session = coordinator.session().await;
    assert_eq!(daemon.owner_of_environment(), 0);
}

async fn check(arguments: &[&str], code: i32, words: &[&str]) {
    let ended = Daemon::with(arguments).ended().await;
    assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
    words.iter().for_each(|words| assert!(ended.output.contains(words), "{arguments:?}: {words}: {ended:?}"));
}

async fn wrong_settings_are_refused() {
    check(&["--coordinator", "http://192.0.2.1:7070"], 2, &["192.0.2.1", "another machine", "--insecure"]).await;
    check(&["--coordinator", "http://head:7070"], 2, &["http://head:7070", "another machine", "--insecure"]).await;
    check(&["--coordinator", "head:7070"], 2, &["http://head:7070", "another machine"]).await;
    // Without a port, it would be tried forever.
    check(&["--coordinator", "http://head"], 2, &["\"http://head\" has no port", "http://host:7070"]).await;
    check(&["--coordinator", "https://127.0.0.1:7070"], 2, &["https://127.0.0.1:7070", "use http"]).await;
    check(&["--slots", "0"], 2, &["--slots", "a whole number from 1"]).await;
    check(&["--slots", "many"], 2, &["--slots", "many"]).await;
    check(&["--label", "gpu"], 2, &["--label", "gpu", "KEY=VALUE"]).await;
    check(&["--label", "=a100"], 2, &["--label", "KEY=VALUE"]).await;
    check(&["--label", "host=a"], 2, &["the label host is set by the agent itself", "--host"]).await;
    check(&["--label", "os=a"], 2, &["the label os is set by the agent itself"]).await;
    check(&["--program-cache", "large"], 2, &["--program-cache", "4GiB"]).await;
    check(&["--heartbeat-timeout", "0s"], 2, &["--heartbeat-timeout", "above 0"]).await;
    check(&["--host", ""], 2, &["--host"]).await;
    check(&["--slost", "3"], 2, &["--slost", "--slots"]).await;
    check(&["--log-format", "xml"], 2, &["--log-format", "xml", "text or json"]).await;
    check(&["more"], 2, &["more"]).await;
}

async fn settings_from_a_file() {
    let scratch = Folder::for_everybody("daemon");
    let file = scratch.path().join("agent.toml");
    let text =
        "coordinator = 'http://192.0.2.1:1'\ninsecure = true\nslots = 5\nlabel = ['a=1', 'b=2']\nhost = 'there'\n";
    std::fs::write(&file, text).expect("cannot write the file");
    let programs = scratch.path().join("programs");
    let arguments = [
        "--config",
        file.to_str().expect("the text is not UTF-8"),
        "--host",
        "here",
        "--programs",
        programs.to_str().expect("the text is not UTF-8"),
    ];
    let mut daemon = Daemon::with(&arguments);
    let line = daemon.wait_for_line("version=").await;
    for part in
        ["coordinator=http://192.0.2.1:1", "slots=5", "label=\"a=1,b=2\"", "host=here", "insecure=true", "/programs"]
    {
        assert!(line.contains(part), "{part}: {line}");
    }
    daemon.signal(Signal::SIGINT);
    assert_eq!(daemon.ended().await.code, Some(0));
}

/// The settings come from all sources. The output is a settings file with the same effect.
async fn settings_are_shown_with_their_sources() {
    let scratch = Folder::for_everybody("daemon");
    let show = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_farpool-agent"));
        let output = command.env_clear().envs(variables.iter().copied()).args(arguments).arg("--print-config").output();
        let output = output.expect("cannot start the agent");
        let text = |bytes| String::from_utf8(bytes).expect("the output is not UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let file = scratch.path().join("agent.toml");
    std::fs::write(&file, "slots = 5\nlabel = ['a=1', 'b=\"2\"']\nprograms = '/p'\n").expect("cannot write the file");
    let file = file.to_str().expect("the text is not UTF-8");
    let variables = [("FARPOOL_INSECURE", "yes"), ("FARPOOL_PROGRAM_DIRS", "/x:/y"), ("FARPOOL_LOG_FORMAT", "json")];
    let arguments = ["--config", file, "--coordinator", "head:7070", "--host", "here"];
    let (code, shown, stderr) = show(&arguments, &variables);
    assert_eq!((code, &*stderr), (Some(0), ""));
    let expected = format!(
        "coordinator = \"head:7070\" # flag\n\
         slots = 5 # file {file}\n\
         label = [\"a=1\", \"b=\\\"2\\\"\"] # file {file}\n\
         host = \"here\" # flag\n\
         program-dir = [\"/x\", \"/y\"] # environment variable FARPOOL_PROGRAM_DIRS\n\
         programs = \"/p\" # file {file}\n\
         program-cache = \"4GiB\" # default\n\
         heartbeat-timeout = \"5s\" # default\n\
         orphan-timeout = \"60s\" # default\n\
         insecure = true # environment variable FARPOOL_INSECURE\n\
         log-format = \"json\" # environment variable FARPOOL_LOG_FORMAT\n"
    );
    assert_eq!(shown, expected);
    let again = scratch.path().join("again.toml");
    std::fs::write(&again, &shown).expect("cannot write the file");
    let (code, again, _) = show(&["--config", again.to_str().expect("the text is not UTF-8")], &[]);
    let values = |text: &str| text.lines().filter_map(|line| Some(line.split_once(" # ")?.0.to_owned())).collect();
    let (shown, again): (Vec<_>, Vec<_>) = (values(&shown), values(&again));
    assert_eq!((code, shown), (Some(0), again));
    // Invalid settings are not shown.
    let (code, shown, stderr) = show(&["--coordinator", "head:7070"], &[]);
    assert!(code == Some(2) && shown.is_empty() && stderr.contains("--insecure"), "{shown} {stderr}");
    let (_, shown, _) = show(&["--slots", "3"], &[("TMPDIR", "/t")]);
    let programs = "# programs: the first usable one of: /var/cache/farpool/programs, /t/farpool-programs-";
    assert!(shown.contains(programs) && shown.contains("\nslots = 3 # flag\n"), "{shown}");
}

async fn a_log_in_json() {
    let (scratch, mut coordinator) = (Folder::for_everybody("daemon"), Coordinator::start());
    let mut daemon = Daemon::start(&coordinator.url(), scratch.path(), &["--log-format", "json", "--slots", "3"]);
    let line = daemon.wait_for_line("agent started").await;
    assert!(line.starts_with("{\"time\":\"20") && line.ends_with("\"}"), "{line}");
    for part in ["\"level\":\"INFO\"", "\"slots\":3", "\"insecure\":false", "\"heartbeat-timeout\":\"5s\""] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let _session = coordinator.session().await;
    daemon.wait_for_line("\"event\":\"connected to the coordinator\"").await;
}

async fn help() {
    // It goes to stdout, which is the test's own.
    check(&["--version"], 0, &[]).await;
}

async fn a_directory_that_cannot_be_used() {
    check(&["--programs", "/dev/null/programs"], 1, &["/dev/null/programs", "Not a directory"]).await;
}

async fn variables() {
    let scratch = Folder::for_everybody("daemon");
    let programs = scratch.path().join("programs");
    let arguments =
        ["--coordinator", "http://192.0.2.1:1", "--programs", programs.to_str().expect("the text is not UTF-8")];
    // An empty variable counts as not set.
    let empty = ["FARPOOL_COORDINATOR", "FARPOOL_SLOTS", "FARPOOL_LABELS", "FARPOOL_HOST", "FARPOOL_PROGRAM_DIRS"];
    let empty = empty.into_iter().chain(["FARPOOL_PROGRAM_CACHE", "FARPOOL_ORPHAN_TIMEOUT", "FARPOOL_CONFIG"]);
    let all: Vec<_> = empty.map(|name| (name, "")).chain([("FARPOOL_INSECURE", "1")]).collect();
    let mut daemon = Daemon::with_variables(&all, &arguments);
    let line = daemon.wait_for_line("version=").await;
    for part in ["insecure=true", "program-cache=4GiB", "orphan-timeout=1min"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    daemon.signal(Signal::SIGINT);
    assert_eq!(daemon.ended().await.code, Some(0));
    for (value, words) in [("", "--insecure"), ("0", "--insecure"), ("no", "--insecure"), ("flase", "flase")] {
        let ended = Daemon::with_variables(&[("FARPOOL_INSECURE", value)], &arguments).ended().await;
        assert!(ended.code == Some(2) && ended.output.contains(words), "{value:?}: {ended:?}");
    }
}

async fn a_missing_program_directory() {
    let scratch = Folder::for_everybody("daemon");
    let programs = scratch.path().join("programs");
    let missing = scratch.path().join("missing");
    let missing = missing.to_str().expect("the text is not UTF-8");
    let arguments = ["--program-dir", missing, "--programs", programs.to_str().expect("the text is not UTF-8")];
    let mut daemon = Daemon::with(&arguments);
    let line = daemon.wait_for_line("cannot read a program directory").await;
    assert!(line.contains(&format!("directory={missing} ")) && line.contains("No such file"), "{line}");
    daemon.signal(Signal::SIGINT);
    assert_eq!(daemon.ended().await.code, Some(0));
}
