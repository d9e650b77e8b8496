//! A network that fails on request.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::server::{Server, connect};

/// Forwards bytes to and from a server.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    accepts: JoinHandle<()>,
}

#[derive(Clone, Copy)]
struct State {
    server: SocketAddr,
    /// Connections of an earlier number are over: they are closed, or forward nothing.
    number: u64,
    frozen: bool,
}

impl Proxy {
    pub(crate) async fn to(server: &Server) -> Self {
        Self::to_address(server.address).await
    }

    pub(crate) async fn to_address(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it has an address");
        let state = watch::Sender::new(State { server, number: 0, frozen: false });
        let watched = state.subscribe();
        let accepts = tokio::spawn(async move {
            while let Ok((peer, _)) = listener.accept().await {
                tokio::spawn(pass(peer, watched.clone()));
            }
        });
        Self { address, state, accepts }
    }

    /// Opens a new connection.
    pub(crate) async fn connect(&self) -> Channel {
        connect(self.address).await
    }

    /// Closes all connections, as the kernel does when a process is killed.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| (state.number, state.frozen) = (state.number + 1, false));
    }

    /// Stops forwarding on existing connections without closing them.
    pub(crate) fn freeze(&self) {
        self.state.send_modify(|state| (state.number, state.frozen) = (state.number + 1, true));
    }

    /// Forwards new connections to another server.
    pub(crate) fn redirect_to(&self, server: &Server) {
        self.state.send_modify(|state| state.server = server.address);
    }
}

async fn pass(mut peer: TcpStream, mut state: watch::Receiver<State>) {
    let State { server, number, .. } = *state.borrow_and_update();
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut peer, &mut server) => return,
        _ = state.wait_for(|state| state.number > number) => {}
    }
    // A frozen connection is closed by the next cut.
    let _ = state.wait_for(|state| !state.frozen).await;
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}
