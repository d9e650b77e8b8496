//! `progress(true)`: a bar on a terminal, and nothing anywhere else.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread;

use crate::pools;
use crate::tasks::{nap, square};

crate::runner::cases![nothing_is_shown_where_stderr_is_no_terminal, a_terminal_shows_how_far_the_job_is];

/// Runs `work` with this as stderr.
fn with_stderr(stderr: &impl AsFd, work: impl FnOnce()) {
    let before = io::stderr().as_fd().try_clone_to_owned().unwrap();
    nix::unistd::dup2_stderr(stderr).unwrap();
    work();
    nix::unistd::dup2_stderr(before).unwrap();
}

fn nothing_is_shown_where_stderr_is_no_terminal() {
    let pool = pools::of(2);
    let (mut reader, writer) = io::pipe().unwrap();
    with_stderr(&writer, || {
        let job = pool.job(square).progress(true).label("squares");
        assert_eq!(job.map(0..100).unwrap().len(), 100);
        assert_eq!(job.imap(0..100).count(), 100);
        assert_eq!(job.map_async(0..100).get().unwrap().len(), 100);
    });
    // The pool's own processes have it too.
    drop((pool, writer));
    let mut shown = String::new();
    reader.read_to_string(&mut shown).unwrap();
    assert_eq!(shown, "");
}

/// The two ends of a terminal: what is written to the second can be read from the first.
fn terminal() -> (File, OwnedFd) {
    let size = libc::winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let (mut reader, mut writer) = (-1, -1);
    // SAFETY: the first two point to variables that live through the call; the name and the settings are not wanted.
    let made = unsafe { libc::openpty(&mut reader, &mut writer, std::ptr::null_mut(), std::ptr::null(), &size) };
    assert_eq!(made, 0, "no terminal: {}", io::Error::last_os_error());
    // SAFETY: openpty has just made both, so nobody else owns them.
    unsafe { (File::from_raw_fd(reader), OwnedFd::from_raw_fd(writer)) }
}

fn a_terminal_shows_how_far_the_job_is() {
    let pool = pools::of(2);
    let (mut reader, writer) = terminal();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut shown = Vec::new();
        let mut portion = [0; 4096];
        // A terminal ends with an error.
        while let Ok(length @ 1..) = reader.read(&mut portion) {
            shown.extend_from_slice(&portion[..length]);
        }
        tell.send(String::from_utf8_lossy(&shown).into_owned()).unwrap();
    });
    with_stderr(&writer, || {
        let job = pool.job(nap).progress(true).label("naps");
        assert_eq!(job.map([30; 20]).unwrap().len(), 20);
    });
    drop((pool, writer));
    let shown = told.recv().unwrap();
    for part in ["naps ", "20/20", "/s eta "] {
        assert!(shown.contains(part), "{part:?} is missing in {shown:?}");
    }
}
