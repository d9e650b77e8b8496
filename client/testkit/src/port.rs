//! Ports that stay a test's own while nobody listens at them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// A port of this host that nobody else is given. As long as nobody listens, connecting to it fails at once.
#[derive(Debug)]
pub struct Port {
    /// A connection to it: the port is taken, and whoever shares the address, as those do who listen, may have it.
    _ends: [TcpStream; 2],
    address: SocketAddr,
}

impl Port {
    /// Reserves one.
    pub fn reserve() -> Port {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("some port is free");
        let address = listener.local_addr().expect("it is bound");
        let caller = TcpStream::connect(address).expect("it listens");
        let (answerer, _) = listener.accept().expect("somebody has connected");
        drop(listener);
        // A child that another thread was just starting has it, too, until it runs its own program.
        while TcpStream::connect(address).is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Port { _ends: [caller, answerer], address }
    }

    /// Returns where to listen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns where clients connect.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
