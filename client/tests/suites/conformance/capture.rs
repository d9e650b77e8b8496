//! Captures what is written to this process's stdout and stderr.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::thread::{self, JoinHandle};

/// Runs `work` with this as stderr.
pub(crate) fn with_stderr(stderr: &impl AsFd, work: impl FnOnce()) {
    let before = io::stderr().as_fd().try_clone_to_owned().unwrap();
    nix::unistd::dup2_stderr(stderr).unwrap();
    work();
    nix::unistd::dup2_stderr(before).unwrap();
}

/// Runs `work` with this as stdout.
pub(crate) fn with_stdout(stdout: &impl AsFd, work: impl FnOnce()) {
    let before = io::stdout().as_fd().try_clone_to_owned().unwrap();
    nix::unistd::dup2_stdout(stdout).unwrap();
    work();
    nix::unistd::dup2_stdout(before).unwrap();
}

/// Opens a terminal: what is written to the second descriptor can be read from the first.
pub(crate) fn terminal() -> (File, OwnedFd) {
    let size = libc::winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let (mut reader, mut writer) = (-1, -1);
    // SAFETY: the first two point to variables that live through the call; the name and the settings are not needed.
    let made = unsafe { libc::openpty(&mut reader, &mut writer, std::ptr::null_mut(), std::ptr::null(), &size) };
    assert_eq!(made, 0, "no terminal: {}", io::Error::last_os_error());
    // SAFETY: openpty has just created both, so nothing else owns them.
    unsafe { (File::from_raw_fd(reader), OwnedFd::from_raw_fd(writer)) }
}

/// Reads on a thread until all writers are closed.
pub(crate) fn read(mut reader: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut shown = Vec::new();
        let mut portion = [0; 4096];
        // A terminal ends with an error.
        while let Ok(length @ 1..) = reader.read(&mut portion) {
            shown.extend_from_slice(&portion[..length]);
        }
        String::from_utf8_lossy(&shown).into_owned()
    })
}
