//! How HTTP/2 connections are set up, alike on both sides.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tonic::transport::{Endpoint, Server};

/// What may be on its way on one stream of a connection, without having been taken by the receiver; on all of them twice as
/// much.
pub const STREAM_WINDOW: u32 = 8 << 20;
/// And at least, where there is little memory.
pub const LEAST_STREAM_WINDOW: u32 = 256 << 10;
/// Calls at once on one connection; further ones wait. Where there is little memory, fewer: each may have half of a frame here.
const STREAMS: u32 = 64;
const LEAST_STREAMS: u32 = 16;
/// Smaller frames of HTTP/2 cost more, and so do larger ones: these are still in the processor's cache when they are
/// taken apart.
const FRAME_BYTES: u32 = 256 << 10;
/// How long a connection may take to come about.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest gRPC message: a frame of ours, and room.
pub const MAX_GRPC_MESSAGE: usize = 4 << 20;

/// How the side that listens treats its connections. `heartbeat`: how long a peer may be silent before it counts as
/// gone. `stream_window`: what each peer may have on its way; [`STREAM_WINDOW`] if there is memory.
pub fn server(heartbeat: Duration, stream_window: u32) -> Server {
    reuse_memory();
    Server::builder()
        .initial_connection_window_size(2 * stream_window)
        .initial_stream_window_size(stream_window)
        .max_frame_size(FRAME_BYTES.min(stream_window / 4))
        .max_concurrent_streams((stream_window / (16 << 10)).clamp(LEAST_STREAMS, STREAMS))
        // Together less than the whole, so that what follows from a peer's end is over by then: its connection may stay open
        // though it has ended, if a fork of it has the socket too.
        .http2_keepalive_interval(Some(heartbeat * 2 / 5))
        .http2_keepalive_timeout(Some(heartbeat / 2))
        .tcp_nodelay(true)
}

/// How the side that connects treats its connection.
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

/// Has glibc's allocator keep the memory of large buffers for the next ones, instead of giving it back to the kernel and
/// asking for zeroed pages again, which costs more than to receive a message of 1 MiB. It does so by itself for what is
/// no larger than the largest block that was ever given back, up to 32 MiB: such a block is never touched, so it costs
/// nothing. To other allocators this means nothing.
fn reuse_memory() {
    // Not a Once, which a fork of this process could find half done, and wait for.
    static DONE: AtomicBool = AtomicBool::new(false);
    if !DONE.swap(true, Ordering::Relaxed) {
        drop(black_box(Vec::<u8>::with_capacity((32 << 20) - (64 << 10))));
    }
}
