//! Configures HTTP/2 connections, in the same way on both sides.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tonic::transport::{Endpoint, Server};

/// The most bytes in flight on one stream of a connection that the receiver has not taken; on all streams together,
/// twice as many.
pub const STREAM_WINDOW: u32 = 8 << 20;
/// The smallest such window, when there is little memory.
pub const LEAST_STREAM_WINDOW: u32 = 256 << 10;
/// The most calls at once on one connection; others wait. When there is little memory there are fewer: each may hold
/// half a frame here.
const STREAMS: u32 = 64;
const LEAST_STREAMS: u32 = 16;
/// Size of HTTP/2 frames. Smaller ones cost more per byte; larger ones are no longer in the processor's cache when they
/// are decoded.
const FRAME_BYTES: u32 = 256 << 10;
/// Timeout for opening a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest gRPC message: a frame of farpool, and some room.
pub const MAX_GRPC_MESSAGE: usize = 4 << 20;

/// Configures the listening side. `heartbeat`: how long a peer may be silent before it counts as gone. `stream_window`:
/// how much each peer may have in flight; [`STREAM_WINDOW`] if there is memory.
pub fn server(heartbeat: Duration, stream_window: u32) -> Server {
    reuse_memory();
    Server::builder()
        .initial_connection_window_size(2 * stream_window)
        .initial_stream_window_size(stream_window)
        .max_frame_size(FRAME_BYTES.min(stream_window / 4))
        .max_concurrent_streams((stream_window / (16 << 10)).clamp(LEAST_STREAMS, STREAMS))
        // Interval and timeout together are less than `heartbeat`, so that a peer's end has been handled by then. Its
        // connection may stay open after its end if a fork of it has the socket too.
        .http2_keepalive_interval(Some(heartbeat * 2 / 5))
        .http2_keepalive_timeout(Some(heartbeat / 2))
        .tcp_nodelay(true)
}

/// Configures the connecting side.
pub fn endpoint(endpoint: Endpoint, heartbeat: Duration) -> Endpoint {
    reuse_memory();
    endpoint
        .initial_connection_window_size(2 * STREAM_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .max_frame_size(FRAME_BYTES)
        .http2_keep_alive_interval(heartbeat / 2)
        .keep_alive_timeout(heartbeat / 2)
        .keep_alive_while_idle(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
}

/// Makes glibc's allocator keep the memory of large buffers for the next ones. Otherwise it would return it to the
/// kernel and request zeroed pages again, which costs more than receiving a message of 1 MiB. The allocator keeps
/// blocks that are no larger than the largest block ever freed, up to 32 MiB. So this allocates and frees one such
/// block: it is never touched, and costs nothing. Other allocators are not affected.
fn reuse_memory() {
    // Not a `Once`: a fork of this process could find it half done, and wait for ever.
    static DONE: AtomicBool = AtomicBool::new(false);
    if !DONE.swap(true, Ordering::Relaxed) {
        drop(black_box(Vec::<u8>::with_capacity((32 << 20) - (64 << 10))));
    }
}
