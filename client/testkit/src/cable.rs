//! A TCP proxy in front of the coordinator. It can cut connections, refuse them, delay data, or cut so that only one end notices.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

/// A proxy: it forwards connections from its own port to a target.
pub struct Cable {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    links: Mutex<Links>,
    changed: Condvar,
}

#[derive(Default)]
struct Links {
    /// New connections are refused.
    unplugged: bool,
    /// Data is held back.
    silent: bool,
    connections: Vec<Arc<Connection>>,
}

struct Connection {
    /// The client's side and the coordinator's.
    ends: [TcpStream; 2],
    /// Data that still arrives is dropped.
    half_open: AtomicBool,
    over: AtomicBool,
}

impl Cable {
    /// Starts a proxy to this address.
    pub fn to(target: SocketAddr) -> Cable {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there are ports left");
        let address = listener.local_addr().expect("it listens");
        let state = Arc::<State>::default();
        let own = Arc::clone(&state);
        // It ends with the process.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // If the target refuses, the client is disconnected.
                let _ = own.join(client, target);
            }
        });
        Cable { address, state }
    }

    /// Returns the address to connect to instead.
    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts all connections; new ones can be made at once. Returns how many there were.
    pub fn cut(&self) -> usize {
        let connections = std::mem::take(&mut self.state.links().connections);
        connections.iter().filter(|connection| connection.end()).count()
    }

    /// Cuts all connections and refuses new ones.
    pub fn unplug(&self) {
        self.state.links().unplugged = true;
        self.cut();
    }

    /// Accepts new connections again.
    pub fn plug(&self) {
        self.state.links().unplugged = false;
    }

    /// Keeps all connections open, and stops or resumes forwarding.
    pub fn silence(&self, silent: bool) {
        self.state.links().silent = silent;
        self.state.changed.notify_all();
    }

    /// Cuts all connections so that only one end notices: the coordinator, or the client.
    pub fn half_open(&self, coordinator_learns: bool) {
        for connection in &self.state.links().connections {
            connection.half_open.store(true, Ordering::Release);
            let _ = connection.ends[usize::from(coordinator_learns)].shutdown(Shutdown::Both);
        }
    }
}

impl State {
    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().expect("the lock is not poisoned")
    }

    fn join(self: &Arc<Self>, client: TcpStream, target: SocketAddr) -> io::Result<()> {
        let mut links = self.links();
        if links.unplugged {
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
            thread::spawn(move || state.forward(&connection, from, to));
        }
        links.connections.retain(|connection| !connection.over.load(Ordering::Acquire));
        links.connections.push(connection);
        Ok(())
    }

    fn forward(&self, connection: &Connection, from: usize, to: usize) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match (&connection.ends[from]).read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(bytes) => {
                    drop(self.changed.wait_while(self.links(), |links| links.silent && !connection.is_over()));
                    let lost = connection.half_open.load(Ordering::Acquire);
                    if !lost && (&connection.ends[to]).write_all(&buffer[..bytes]).is_err() {
                        break;
                    }
                }
            }
        }
        // The other end is not told: it closes the connection after its own timeout.
        if !connection.half_open.load(Ordering::Acquire) || connection.over.swap(true, Ordering::AcqRel) {
            connection.end();
        }
    }
}

impl Connection {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Ends the connection. Returns false if it had ended already.
    fn end(&self) -> bool {
        let was_over = self.over.swap(true, Ordering::AcqRel);
        for end in &self.ends {
            // An error means that it has ended already.
            let _ = end.shutdown(Shutdown::Both);
        }
        !was_over
    }
}
