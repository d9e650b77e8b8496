//! Reserved ports, which stay reserved while nothing listens.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// A port of this host that no other process gets. While nothing listens, connecting to it fails at once.
#[derive(Debug)]
pub struct Port {
    /// A connection to the port, which keeps it taken. Listeners set SO_REUSEADDR, so they can still bind to it.
    _ends: [TcpStream; 2],
    address: SocketAddr,
}

impl Port {
    /// Reserves a port.
    pub fn reserve() -> Port {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("no free port");
        let address = listener.local_addr().expect("the listener has no address");
        let caller = TcpStream::connect(address).expect("cannot connect to the listener");
        let (answerer, _) = listener.accept().expect("no peer connected");
        drop(listener);
        // A child that another thread is just starting holds the listener, too, until it calls exec.
        while TcpStream::connect(address).is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Port { _ends: [caller, answerer], address }
    }

    /// Returns the address to listen on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address for clients.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
