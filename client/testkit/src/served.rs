//! gRPC services that a test implements, on this host.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::net::TcpListener;
use tokio::sync::Notify;
use tonic::transport::server::{Router, TcpIncoming};

/// Running services. They have their own thread and runtime, so stopping them ends all their connections.
#[derive(Debug)]
pub struct Served {
    address: SocketAddr,
    quit: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Serves on a free port.
    pub fn start(services: Router) -> Served {
        Served::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), services)
    }

    /// Serves at this address.
    pub fn start_at(address: SocketAddr, services: Router) -> Served {
        let (listens, listening) = mpsc::channel();
        let quit = Arc::new(Notify::new());
        let until = Arc::clone(&quit);
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("cannot create a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind(address).await.expect("the port is taken");
                listens.send(listener.local_addr().expect("the listener has no address")).expect("the caller is gone");
                tokio::select! {
                    served = services.serve_with_incoming(TcpIncoming::from(listener)) => {
                        served.expect("the server failed");
                    }
                    () = until.notified() => {}
                }
            });
        });
        let address = listening.recv().expect("the server does not listen");
        Served { address, quit, thread: Some(thread) }
    }

    /// Returns the address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address for clients.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops at once.
    pub fn stop(&mut self) {
        self.quit.notify_one();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "a service has panicked");
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}
