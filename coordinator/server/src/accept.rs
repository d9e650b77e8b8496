//! Connections, from the accept until the first bytes of HTTP/2.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{future::Future, sync::Arc};

use farpool_common::log::{Log, warn};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Sleep, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::settings::Settings;

/// Length of the preface that begins each HTTP/2 connection.
const PREFACE: usize = 24;
/// How long to wait when the system has no room for another connection.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections, as many at once as the settings allow; others wait in the kernel's queue.
pub(super) fn accept(
    listener: TcpListener,
    settings: &Settings,
    log: Log,
) -> ReceiverStream<Result<Connection, io::Error>> {
    let (connections, accepted) = mpsc::channel(1);
    let (max, preface) = (settings.max_connections, settings.limits.preface);
    tokio::spawn(async move {
        let permits = Arc::new(Semaphore::new(max));
        loop {
            let permit = match Arc::clone(&permits).try_acquire_owned() {
                Ok(permit) => permit,
                Err(_) => {
                    warn!(log, "max-connections" = max, "too many connections: new ones wait");
                    let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
                    permit
                }
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Messages are already gathered in frames; waiting for more of them only costs time.
                    let _ = stream.set_nodelay(true);
                    if connections.send(Ok(Connection::new(stream, preface, permit))).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    warn!(log, %error, "cannot accept a connection; retrying");
                    tokio::select! {
                        () = sleep(NO_ROOM_PAUSE) => {}
                        () = connections.closed() => return,
                    }
                }
            }
        }
    });
    ReceiverStream::new(accepted)
}

/// A connection that fails if it does not begin in time.
pub(super) struct Connection {
    stream: TcpStream,
    preface: Option<Preface>,
    _permit: OwnedSemaphorePermit,
}

struct Preface {
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Connection {
    fn new(stream: TcpStream, patience: Duration, permit: OwnedSemaphorePermit) -> Self {
        let preface = Preface { missing: PREFACE, deadline: Box::pin(sleep(patience)) };
        Self { stream, preface: Some(preface), _permit: permit }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Connection { stream, preface, .. } = &mut *self;
        let Some(waiting) = preface else { return Pin::new(stream).poll_read(cx, buf) };
        if waiting.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(stream).poll_read(cx, buf))?;
        waiting.missing = waiting.missing.saturating_sub(buf.filled().len() - before);
        if waiting.missing == 0 {
            *preface = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
