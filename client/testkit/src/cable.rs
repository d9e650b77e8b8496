//! A cable to the coordinator. It can be cut, unplugged, fall silent, and be cut so that only one end notices.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

/// A port of its own, from which everything goes to another one and back.
pub struct Cable {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    wires: Mutex<Wires>,
    changed: Condvar,
}

#[derive(Default)]
struct Wires {
    /// Nobody gets through any more.
    unplugged: bool,
    /// What is sent arrives later.
    silent: bool,
    connections: Vec<Arc<Connection>>,
}

struct Connection {
    /// The side of who has connected, and the coordinator's.
    ends: [TcpStream; 2],
    /// What still comes is lost.
    half_open: AtomicBool,
    over: AtomicBool,
}

impl Cable {
    /// Lays one to this address.
    pub fn to(target: SocketAddr) -> Cable {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there are ports left");
        let address = listener.local_addr().expect("it listens");
        let state = Arc::<State>::default();
        let own = Arc::clone(&state);
        // It ends with the process.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Whoever finds nobody behind it is cut off.
                let _ = own.join(client, target);
            }
        });
        Cable { address, state }
    }

    /// Where to connect instead.
    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts all connections; others can be made at once. Returns how many there were.
    pub fn cut(&self) -> usize {
        let connections = std::mem::take(&mut self.state.wires().connections);
        connections.iter().filter(|connection| connection.end()).count()
    }

    /// Cuts all connections, and nobody gets through any more.
    pub fn unplug(&self) {
        self.state.wires().unplugged = true;
        self.cut();
    }

    /// Others get through again.
    pub fn plug(&self) {
        self.state.wires().unplugged = false;
    }

    /// All connections stay, and whether anything gets through them.
    pub fn silence(&self, silent: bool) {
        self.state.wires().silent = silent;
        self.state.changed.notify_all();
    }

    /// Cuts all connections so that one end learns nothing of it: the coordinator, or who has connected.
    pub fn half_open(&self, coordinator_learns: bool) {
        for connection in &self.state.wires().connections {
            connection.half_open.store(true, Ordering::Release);
            let _ = connection.ends[usize::from(coordinator_learns)].shutdown(Shutdown::Both);
        }
    }
}

impl State {
    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().expect("nobody panics with it")
    }

    fn join(self: &Arc<Self>, client: TcpStream, target: SocketAddr) -> io::Result<()> {
        let mut wires = self.wires();
        if wires.unplugged {
            return Ok(());
        }
        let server = TcpStream::connect(target)?;
        for end in [&client, &server] {
            end.set_nodelay(true)?;
        }
        let over = || AtomicBool::new(false);
        let connection = Arc::new(Connection { ends: [client, server], half_open: over(), over: over() });
        for (from, to) in [(0, 1), (1, 0)] {
            let (state, connection) = (Arc::clone(self), Arc::clone(&connection));
            thread::spawn(move || state.pass_on(&connection, from, to));
        }
        wires.connections.retain(|connection| !connection.over.load(Ordering::Acquire));
        wires.connections.push(connection);
        Ok(())
    }

    fn pass_on(&self, connection: &Connection, from: usize, to: usize) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match (&connection.ends[from]).read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(bytes) => {
                    drop(self.changed.wait_while(self.wires(), |wires| wires.silent && !connection.is_over()));
                    let lost = connection.half_open.load(Ordering::Acquire);
                    if !lost && (&connection.ends[to]).write_all(&buffer[..bytes]).is_err() {
                        break;
                    }
                }
            }
        }
        // The end that was cut says nothing to the other one, which ends it when it has waited long enough.
        if !connection.half_open.load(Ordering::Acquire) || connection.over.swap(true, Ordering::AcqRel) {
            connection.end();
        }
    }
}

impl Connection {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Whether it had not ended already.
    fn end(&self) -> bool {
        let was_over = self.over.swap(true, Ordering::AcqRel);
        for end in &self.ends {
            // An error means that it has ended already.
            let _ = end.shutdown(Shutdown::Both);
        }
        !was_over
    }
}
