//! Addresses without a reachable coordinator.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use crate::support::farpool;

#[track_caller]
fn check(address: &str, parts: &[&str]) {
    for command in [&["status"][..], &["agents", "--json"], &["jobs"], &["cancel", "7"], &["drain", "--wait", "x"]] {
        let done = farpool(command.iter().copied().chain(["--address", address])).run();
        assert_eq!((done.code, done.stdout()), (Some(1), String::new()), "{command:?}");
        for part in parts {
            assert!(done.stderr().contains(part), "{part:?} is missing in {}", done.stderr());
        }
        assert_eq!(done.stderr().lines().count(), 1, "{}", done.stderr());
    }
    let done = farpool(["--address", address, "map", "echo", ":::", "x"]).run();
    assert_eq!((done.code, done.stdout()), (Some(125), String::new()));
    for part in parts {
        assert!(done.stderr().contains(part), "{part:?} is missing in {}", done.stderr());
    }
    // Words that users of the command do not know: methods of the Rust API, and layers of the transport.
    for word in ["transport", "http2 error", ".address("] {
        assert!(!done.stderr().contains(word), "{}", done.stderr());
    }
}

#[test]
fn nothing_listens() {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = format!("http://{address}");
    check(&address, &["cannot reach the coordinator", &address, "refused", "farpool-coordinator", "FARPOOL_ADDRESS"]);
}

#[test]
fn invalid_addresses_are_rejected() {
    for address in ["nonsense", "https://127.0.0.1:7070", "http://", "127.0.0.1", "http://127.0.0.1:7070/path", "a b"] {
        check(address, &["the address", address, "http", "--address or FARPOOL_ADDRESS"]);
    }
}

#[test]
fn a_non_utf8_address_names_its_source() {
    let wrong = OsStr::from_bytes(b"http://node\xff:7070");
    for (arguments, code) in [(&["status"][..], 2), (&["map", "echo", ":::", "1"], 125)] {
        let done =
            Command::new(env!("CARGO_BIN_EXE_farpool")).args(arguments).env("FARPOOL_ADDRESS", wrong).output().unwrap();
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains("FARPOOL_ADDRESS is \"http://node\\xFF:7070\", which is not UTF-8"), "{stderr}");
    }
}

#[test]
fn another_program_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        // Accepts connections and closes them.
        for connection in listener.incoming() {
            drop(connection);
        }
    });
    check(&address, &[&address]);
}

#[test]
fn the_peer_is_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let start = std::time::Instant::now();
    let done = farpool(["status", "--address", &address]).run();
    assert_eq!(done.code, Some(1));
    assert!(start.elapsed().as_secs() < 30, "{done:?}");
    assert!(done.stderr().contains("did not answer"), "{done:?}");
}

#[test]
fn the_environment_sets_the_address() {
    let call = farpool(["status"]).change(|command| {
        command.env("FARPOOL_ADDRESS", "http://127.0.0.1:1");
    });
    assert!(call.run().stderr().contains("at http://127.0.0.1:1:"));
}
