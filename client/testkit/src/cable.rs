//! A TCP proxy in front of the coordinator. It can cut connections, refuse them, delay data, or cut so that only one end notices.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

/// A proxy: it forwards connections from its own port to a target.
pub struct Cable {
    address: SocketAddr,
    state: Arc<CableState>,
}

struct CableState {
    links: Mutex<Links>,
    changed: Condvar,
}

struct Links {
    target: SocketAddr,
    /// New connections are refused.
    unplugged: bool,
    /// Data is held back.
    silent: bool,
    connections: Vec<Arc<ProxiedConnection>>,
}

struct ProxiedConnection {
    /// The client's side and the coordinator's.
    ends: [TcpStream; 2],
    /// Data that still arrives is dropped.
    half_open: AtomicBool,
    /// Data is held back until the connection is cut.
    frozen: AtomicBool,
    over: AtomicBool,
}

impl Cable {
    /// Starts a proxy to this address.
    pub fn to(target: SocketAddr) -> Cable {
        let listener = TcpListener::bind("127.0.0.1:0").expect("no free port");
        let address = listener.local_addr().expect("the listener has no address");
        let links = Links { target, unplugged: false, silent: false, connections: Vec::new() };
        let state = Arc::new(CableState { links: Mutex::new(links), changed: Condvar::new() });
        let own = Arc::clone(&state);
        // It ends with the process.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // If the target refuses, the client is disconnected.
                let _ = own.join(client);
            }
        });
        Cable { address, state }
    }

    /// Returns the address to connect to instead.
    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns its address without the scheme.
    pub fn socket(&self) -> SocketAddr {
        self.address
    }

    /// Forwards new connections to another target.
    pub fn redirect(&self, target: SocketAddr) {
        self.state.links().target = target;
    }

    /// Cuts all connections; new ones can be made at once. Returns how many there were.
    pub fn cut(&self) -> usize {
        // Under the lock: otherwise a thread could check before the end and begin to wait after it.
        let mut links = self.state.links();
        let cut = links.connections.drain(..).filter(|connection| connection.end()).count();
        self.state.changed.notify_all();
        cut
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

    /// Keeps all connections open until they are cut, and forwards nothing on them. New ones work.
    pub fn freeze(&self) {
        for connection in &self.state.links().connections {
            connection.frozen.store(true, Ordering::Release);
        }
    }

    /// Cuts all connections so that only one end notices: the coordinator, or the client.
    pub fn half_open(&self, coordinator_learns: bool) {
        for connection in &self.state.links().connections {
            connection.half_open.store(true, Ordering::Release);
            let _ = connection.ends[usize::from(coordinator_learns)].shutdown(Shutdown::Both);
        }
    }
}

impl CableState {
    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().expect("a thread panicked while it held the lock")
    }

    fn join(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let mut links = self.links();
        if links.unplugged {
            return Ok(());
        }
        let server = TcpStream::connect(links.target)?;
        for end in [&client, &server] {
            end.set_nodelay(true)?;
        }
        let [half_open, frozen, over] = [(); 3].map(|()| AtomicBool::new(false));
        let connection = Arc::new(ProxiedConnection { ends: [client, server], half_open, frozen, over });
        for (from, to) in [(0, 1), (1, 0)] {
            let (state, connection) = (Arc::clone(self), Arc::clone(&connection));
            thread::spawn(move || state.forward(&connection, from, to));
        }
        links.connections.retain(|connection| !connection.over.load(Ordering::Acquire));
        links.connections.push(connection);
        Ok(())
    }

    fn forward(&self, connection: &ProxiedConnection, from: usize, to: usize) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match (&connection.ends[from]).read(&mut buffer) {
                Ok(0) | Err(_) => {
                    drop(self.changed.wait_while(self.links(), |_| connection.is_frozen()));
                    break;
                }
                Ok(bytes) => {
                    drop(self.changed.wait_while(self.links(), |links| connection.is_held(links)));
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

impl ProxiedConnection {
    /// Returns whether data on it is held back.
    fn is_held(&self, links: &Links) -> bool {
        self.is_frozen() || links.silent && !self.is_over()
    }

    /// Returns whether neither data nor its end is passed on.
    fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Acquire) && !self.is_over()
    }

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
