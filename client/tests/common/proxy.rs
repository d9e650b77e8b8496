//! A cable to the coordinator, of a client or an agent, that can be cut.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

/// A port of its own, from which everything goes to another one and back.
pub(crate) struct Proxy {
    address: SocketAddr,
    cable: Arc<Mutex<Cable>>,
}

#[derive(Default)]
struct Cable {
    /// Nobody gets through any more.
    away: bool,
    connections: Vec<[TcpStream; 2]>,
}

impl Proxy {
    /// One that leads to this address, `http://host:port`.
    pub(crate) fn to(address: &str) -> Proxy {
        let target: SocketAddr = address.trim_start_matches("http://").parse().expect("an address of a test's daemon");
        let listener = TcpListener::bind("127.0.0.1:0").expect("there are ports left");
        let address = listener.local_addr().expect("it listens");
        let cable = Arc::<Mutex<Cable>>::default();
        let own = Arc::clone(&cable);
        // It ends with the process.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Whoever finds nobody behind it is cut off.
                let _ = own.lock().expect("nobody panics with it").join(client, target);
            }
        });
        Proxy { address, cable }
    }

    /// Where to connect instead.
    pub(crate) fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts all connections; others can be made at once. Returns how many there were.
    pub(crate) fn cut(&self) -> usize {
        let connections = std::mem::take(&mut self.cable().connections);
        for end in connections.iter().flatten() {
            // An error means that it has ended already.
            let _ = end.shutdown(Shutdown::Both);
        }
        connections.len()
    }

    /// Cuts all connections, and nobody gets through any more; until it is mended.
    pub(crate) fn cut_for_good(&self) {
        self.cable().away = true;
        self.cut();
    }

    /// Others get through again.
    pub(crate) fn mend(&self) {
        self.cable().away = false;
    }

    fn cable(&self) -> MutexGuard<'_, Cable> {
        self.cable.lock().expect("nobody panics with it")
    }
}

impl Cable {
    fn join(&mut self, client: TcpStream, target: SocketAddr) -> io::Result<()> {
        if self.away {
            return Ok(());
        }
        let server = TcpStream::connect(target)?;
        for end in [&client, &server] {
            end.set_nodelay(true)?;
        }
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (from, to) = (from.try_clone()?, to.try_clone()?);
            thread::spawn(move || pass_on(from, to));
        }
        self.connections.push([client, server]);
        Ok(())
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(bytes) if to.write_all(&buffer[..bytes]).is_err() => break,
            Ok(_) => {}
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
