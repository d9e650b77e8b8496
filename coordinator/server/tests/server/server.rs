//! A server in this process, and how its peers connect.

use std::ffi::OsString;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use farpool_coordinator_server::{Log, Settings, run, run_with};
use farpool_net::http2;
use farpool_proto::v1::operators_client::OperatorsClient;
use farpool_proto::v1::{StatusReply, StatusRequest};
use farpool_store::JobStore;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

/// Anything that takes longer than this has failed.
const SOON: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    done: JoinHandle<std::io::Result<()>>,
    pub(crate) directory: PathBuf,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::started(change, |settings, listener, stopped| {
            tokio::spawn(run(settings, listener, async {
                let _ = stopped.await;
            }))
        })
        .await
    }

    /// Starts a server that keeps detached jobs in this store.
    pub(crate) async fn with_store(store: Box<dyn JobStore>, change: impl FnOnce(&mut Settings)) -> Self {
        Self::started(change, |settings, listener, stopped| {
            tokio::spawn(run_with(settings, Some(store), listener, async {
                let _ = stopped.await;
            }))
        })
        .await
    }

    async fn started(
        change: impl FnOnce(&mut Settings),
        run: impl FnOnce(Settings, TcpListener, oneshot::Receiver<()>) -> JoinHandle<std::io::Result<()>>,
    ) -> Self {
        static SERVERS: AtomicU32 = AtomicU32::new(0);
        let number = SERVERS.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("farpool-server-{}-{number}", std::process::id()));
        let args = ["farpool-coordinator", "--listen", "127.0.0.1:0", "--programs"];
        let args = args.iter().map(OsString::from).chain([directory.clone().into()]);
        let mut settings = Settings::load(args).expect("the settings were refused");
        settings.log = Log::silent();
        change(&mut settings);
        let listener = TcpListener::bind(settings.listen).await.expect("no free port");
        let address = listener.local_addr().expect("the listener has no address");
        let (stop, stopped) = oneshot::channel();
        let done = run(settings, listener, stopped);
        Self { address, stop: Some(stop), done, directory }
    }

    /// Opens a new connection.
    pub(crate) async fn connect(&self) -> Channel {
        connect(self.address).await
    }

    /// Aborts the server, as if its process had been killed.
    pub(crate) fn kill(&self) {
        self.done.abort();
    }

    /// Aborts the server, and waits until it has ended.
    pub(crate) async fn kill_and_wait(mut self) {
        self.done.abort();
        let _ = (&mut self.done).await;
    }

    pub(crate) async fn operators(&self) -> OperatorsClient<Channel> {
        OperatorsClient::new(self.connect().await)
    }

    pub(crate) async fn status(&self) -> StatusReply {
        let status = self.operators().await.status(StatusRequest {}).await;
        status.expect("cannot get the status").into_inner()
    }

    /// Polls the status until it is as expected.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&StatusReply) -> bool) -> StatusReply {
        let mut operators = self.operators().await;
        let mut last = StatusReply::default();
        for _ in 0..2000 {
            last = operators.status(StatusRequest {}).await.expect("cannot get the status").into_inner();
            if is_so(&last) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what} never became true: {last:?}")
    }

    /// Asks it to shut down.
    pub(crate) fn stop(&mut self) {
        self.stop.take().expect("the server was stopped twice").send(()).expect("the server has stopped");
    }

    /// Waits until it has shut down.
    pub(crate) async fn ended(&mut self) {
        soon("the server's end", &mut self.done)
            .await
            .expect("the server panicked")
            .expect("the server ended with an error");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.done.abort();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

pub(crate) async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("invalid address");
    let connected = http2::endpoint(endpoint, Duration::from_secs(5)).connect().await;
    connected.expect("cannot connect to the server")
}

/// Awaits something that must happen soon.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(SOON, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} did not happen"),
    }
}
