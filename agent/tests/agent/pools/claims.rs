//! Programs that tasks start, and that claim the slots of their items.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::{Child, Command, Stdio};

use farpool_link::item_token::{Claim, GRANTED, socket_name};
use farpool_link::message::ROLE_VARIABLE;

use crate::pools::program::wait_for_gate;

pub(crate) const ROLE: &str = "program";

/// The number of words of a claim: the agent, the worker's secret, the item's position, the ticket, and the named pipe
/// that lets the program end.
const WORDS: usize = 5;

/// Connects to the socket where the agent with this id accepts claims.
pub(crate) fn connect(agent: u128) -> UnixStream {
    let address = SocketAddr::from_abstract_name(socket_name(agent)).unwrap();
    UnixStream::connect_addr(&address).expect("the agent listens")
}

/// The program: prints whether its claim was granted, and keeps its connection until its named pipe lets it end.
pub(crate) fn claim() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [agent, secret, position, ticket, pipe] = &words[..] else { panic!("unknown claim {words:?}") };
    let mut stream = connect(agent.parse().unwrap());
    let (ticket, secret) = (ticket.parse().unwrap(), secret.parse().unwrap());
    stream.write_all(&Claim { ticket, secret, position: position.parse().unwrap() }.to_bytes()).unwrap();
    let mut answer = [0];
    let granted = stream.read(&mut answer).is_ok_and(|count| count == 1 && answer == [GRANTED]);
    let mut stdout = std::io::stdout();
    stdout.write_all(format!("claimed {}\n", u8::from(granted)).as_bytes()).and_then(|()| stdout.flush()).unwrap();
    wait_for_gate(pipe);
}

/// Starts one program for every five words, and waits until all have ended.
pub(crate) fn start_all(words: &str) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    let programs: Vec<Child> = words.chunks(WORDS).map(|words| program(words).spawn().unwrap()).collect();
    for mut program in programs {
        assert!(program.wait().unwrap().success());
    }
    "go on".to_owned()
}

/// Starts a program whose parent ends at once, and waits until the program has ended.
pub(crate) fn start_orphan(words: &str) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", r#""$0" "$@" & exit 0"#]).arg(std::env::current_exe().unwrap()).args(words);
    let mut parent = shell.env(ROLE_VARIABLE, ROLE).stderr(Stdio::piped()).spawn().unwrap();
    let mut both = parent.stderr.take().unwrap();
    parent.wait().unwrap();
    both.read_to_end(&mut Vec::new()).unwrap();
    "go on".to_owned()
}

fn program(words: &[&str]) -> Command {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(words).env(ROLE_VARIABLE, ROLE);
    program
}
