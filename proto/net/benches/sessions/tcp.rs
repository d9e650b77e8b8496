//! The limits of TCP itself: blocking sockets, and only the necessary work.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use crate::cost::Cost;
use crate::peer::Child;

pub(crate) const ROLE: &str = "--tcp";
pub(crate) const MIB: usize = 1 << 20;
const PING: u8 = 1;
const TAKE: u8 = 2;
const GIVE: u8 = 3;
const MESSAGE: usize = 64;

/// The other process: does what the first byte of each request asks for.
pub(crate) fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    println!("{}", listener.local_addr().expect("the listener is bound").port());
    let (mut stream, _) = listener.accept().expect("a peer connects");
    stream.set_nodelay(true).expect("TCP has this option");
    let (mut message, mut payload) = ([0; MESSAGE], vec![1; MIB]);
    while stream.read_exact(&mut message).is_ok() {
        let count = usize::from(message[1]);
        let done = match message[0] {
            PING => stream.write_all(&message),
            TAKE => {
                (0..count).try_for_each(|_| stream.read_exact(&mut payload)).and_then(|()| stream.write_all(&message))
            }
            _ => (0..count).try_for_each(|_| stream.write_all(&payload)),
        };
        done.expect("the other end is open");
    }
}

pub(crate) struct Tcp {
    stream: TcpStream,
    child: Child,
}

impl Tcp {
    pub(crate) fn new() -> Self {
        let child = Child::start(ROLE);
        let stream = TcpStream::connect(("127.0.0.1", child.port)).expect("the other process listens");
        stream.set_nodelay(true).expect("TCP has this option");
        Tcp { stream, child }
    }

    pub(crate) fn round_trips(&mut self, count: usize) {
        let (cost, mut times) = (Cost::new(self.child.pid()), Vec::with_capacity(count));
        for _ in 0..count {
            let start = Instant::now();
            self.ask(PING, 0);
            self.stream.read_exact(&mut [0; MESSAGE]).expect("the peer answers");
            times.push(start.elapsed());
        }
        times.sort();
        cost.print(&format!("TCP: round trip (p50 {:.1?})", times[count / 2]), count, "trips");
    }

    pub(crate) fn bandwidth(&mut self, give: bool, count: usize) {
        let (cost, mut payload) = (Cost::new(self.child.pid()), vec![1; MIB]);
        let mut left = count;
        while left > 0 {
            let some = left.min(200);
            self.ask(if give { GIVE } else { TAKE }, some as u8);
            for _ in 0..some {
                let done = if give { self.stream.read_exact(&mut payload) } else { self.stream.write_all(&payload) };
                done.expect("the other end is open");
            }
            if !give {
                self.stream.read_exact(&mut [0; MESSAGE]).expect("the peer answers");
            }
            left -= some;
        }
        cost.print(if give { "TCP: 1 MiB in" } else { "TCP: 1 MiB out" }, count, "MiB");
    }

    fn ask(&mut self, what: u8, count: u8) {
        let mut message = [0; MESSAGE];
        (message[0], message[1]) = (what, count);
        self.stream.write_all(&message).expect("the other end is open");
    }
}
