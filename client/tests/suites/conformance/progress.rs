//! `progress(true)`: a bar on a terminal, and nothing anywhere else.

use std::io::{self, Read};

use crate::conformance::capture::{read, terminal, with_stderr};
use crate::conformance::tasks::{nap, square};
use crate::pools;

crate::runner::cases![nothing_is_shown_if_stderr_is_not_a_terminal, a_terminal_shows_the_progress];

fn nothing_is_shown_if_stderr_is_not_a_terminal() {
    let pool = pools::of(2);
    let (mut reader, writer) = io::pipe().unwrap();
    with_stderr(&writer, || {
        let job = pool.job(square).progress(true).label("squares");
        assert_eq!(job.map(0..100).unwrap().len(), 100);
        assert_eq!(job.imap(0..100).count(), 100);
        assert_eq!(job.map_async(0..100).get().unwrap().len(), 100);
    });
    // The pool's processes have this descriptor, too.
    drop((pool, writer));
    let mut shown = String::new();
    reader.read_to_string(&mut shown).unwrap();
    assert_eq!(shown, "");
}

fn a_terminal_shows_the_progress() {
    let pool = pools::of(2);
    let (reader, writer) = terminal();
    let shown = read(reader);
    with_stderr(&writer, || {
        let job = pool.job(nap).progress(true).label("naps");
        assert_eq!(job.map([30; 20]).unwrap().len(), 20);
    });
    drop((pool, writer));
    let shown = shown.join().unwrap();
    for part in ["naps ", "20/20", "/s eta "] {
        assert!(shown.contains(part), "{part:?} is missing in {shown:?}");
    }
}
