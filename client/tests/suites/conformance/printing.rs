//! Output of workers on a cluster reaches the client, labelled with its origin.

use std::io::{self, Write};

use crate::conformance::capture::{read, terminal, with_stderr, with_stdout};
use crate::conformance::tasks::nap;
use crate::pools;

crate::runner::cases![
    lines_are_labelled_and_whole,
    the_last_output_is_printed_before_the_end,
    output_of_exiting_workers_is_printed,
    lines_are_printed_above_a_bar,
    control_characters_are_escaped_on_a_terminal,
    output_elsewhere_is_unchanged,
    a_closed_stdout_is_harmless,
];

fn print(item: u64) -> u32 {
    println!("item {item} says hello");
    eprintln!("item {item} warns");
    std::process::id()
}

fn lines_are_labelled_and_whole() {
    let (pool, host) = (pools::of(3), nix::unistd::gethostname().unwrap().into_string().unwrap());
    let ((out_reader, out_writer), (err_reader, err_writer)) = (io::pipe().unwrap(), io::pipe().unwrap());
    let (out, err) = (read(out_reader), read(err_reader));
    let mut pids = Vec::new();
    with_stdout(&out_writer, || {
        with_stderr(&err_writer, || {
            pids = pool.job(print).chunksize(1).map(0..60).unwrap();
            drop(pool);
        });
    });
    drop((out_writer, err_writer));
    let (out, err) = (out.join().unwrap(), err.join().unwrap());
    assert_eq!((out.lines().count(), err.lines().count()), (60, 60), "{out}{err}");
    for (item, pid) in pids.iter().enumerate() {
        let line = format!("[{host} {pid}] item {item} says hello");
        assert!(out.lines().any(|other| other == line), "{line:?} is missing in {out}");
        let line = format!("[{host} {pid}] item {item} warns");
        assert!(err.lines().any(|other| other == line), "{line:?} is missing in {err}");
    }
}

fn the_last_output_is_printed_before_the_end() {
    fn half_a_line() {
        print!("half a line");
        io::stdout().flush().unwrap();
    }
    let pool = pools::of(1);
    let (reader, writer) = io::pipe().unwrap();
    let out = read(reader);
    with_stdout(&writer, || {
        pool.apply(half_a_line, ()).unwrap();
        pool.close();
        pool.join().unwrap();
    });
    drop(writer);
    let out = out.join().unwrap();
    assert!(out.ends_with("] half a line\n") && out.lines().count() == 1, "{out:?}");
}

fn output_of_exiting_workers_is_printed() {
    fn print_at_the_end() {
        extern "C" fn print() {
            std::thread::sleep(std::time::Duration::from_millis(200));
            println!("leaving");
        }
        // SAFETY: the handler is a function of this program.
        assert_eq!(unsafe { libc::atexit(print) }, 0);
    }
    let pool = pools::pool(pools::builder().processes(2).max_tasks_per_child(1));
    let (reader, writer) = io::pipe().unwrap();
    let out = read(reader);
    with_stdout(&writer, || {
        // Together with the idle ones at the end, these are as many as may exit at once.
        (0..6).for_each(|_| pool.apply(print_at_the_end, ()).unwrap());
        pool.close();
        pool.join().unwrap();
    });
    drop(writer);
    let out = out.join().unwrap();
    assert_eq!(out.lines().filter(|line| line.ends_with("] leaving")).count(), 6, "{out}");
}

fn lines_are_printed_above_a_bar() {
    fn talk(milliseconds: u64) {
        nap(milliseconds);
        println!("a line");
    }
    let pool = pools::of(2);
    let (reader, writer) = terminal();
    let shown = read(reader);
    with_stdout(&writer, || {
        with_stderr(&writer, || {
            pool.job(talk).progress(true).label("talks").map([30; 30]).unwrap();
            drop(pool);
        });
    });
    drop(writer);
    let shown = shown.join().unwrap();
    assert!(shown.contains("30/30"), "{shown:?}");
    assert_eq!(shown.matches("] a line\r\n").count(), 30, "{shown:?}");
    // Each line begins where the bar was erased, or after the last bar, which fills its line.
    for (at, _) in shown.match_indices("] a line") {
        let line = shown[..at].rsplit('\n').next().unwrap();
        let visible = line.rsplit("\u{1b}[2K").next().unwrap().trim_start_matches('\r');
        assert!(visible.starts_with('[') || visible.contains(" 30/30 "), "{line:?}");
    }
}

/// Sets the clipboard, forges a line, reverses text, and prints red.
const ORDERS: &str = "\x1b]52;c;aGk=\x07\n\r[node1 1] forged\n\u{202e}turned\n\x1b[31mred\n";

fn orders() {
    print!("{ORDERS}");
}

fn control_characters_are_escaped_on_a_terminal() {
    let pool = pools::of(1);
    let (reader, writer) = terminal();
    let shown = read(reader);
    with_stdout(&writer, || {
        pool.apply(orders, ()).unwrap();
        pool.close();
        pool.join().unwrap();
    });
    drop(writer);
    let shown = shown.join().unwrap();
    for words in
        ["] \\u{1b}]52;c;aGk=\\u{7}\r\n", "] [node1 1] forged\r\n", "] \\u{202e}turned\r\n", "] \x1b[31mred\x1b[0m\r\n"]
    {
        assert!(shown.contains(words), "{words:?} is missing in {shown:?}");
    }
    assert!(!shown.contains("\x1b]") && !shown.contains("\u{202e}") && !shown.contains("\r[node1 1]"), "{shown:?}");
}

fn output_elsewhere_is_unchanged() {
    let pool = pools::of(1);
    let (reader, writer) = io::pipe().unwrap();
    let out = read(reader);
    with_stdout(&writer, || {
        pool.apply(orders, ()).unwrap();
        pool.close();
        pool.join().unwrap();
    });
    drop(writer);
    let out = out.join().unwrap();
    let lines: Vec<_> = out.split_inclusive('\n').map(|line| line.split_once("] ").unwrap().1).collect();
    assert_eq!(lines.concat(), ORDERS);
}

fn a_closed_stdout_is_harmless() {
    let pool = pools::of(2);
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    with_stdout(&writer, || {
        assert_eq!(pool.map(print, 0..200).unwrap().len(), 200);
        assert_eq!(pool.map(print, 0..200).unwrap().len(), 200);
        drop(pool);
    });
}
