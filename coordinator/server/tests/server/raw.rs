//! Calls whose bytes are not from a gRPC library.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request, Uri};
use prost::Message;
use tokio::net::TcpStream;

use crate::server::{Server, soon};

/// Opens a call to a method, sends these bytes, and returns the status with which it ends. `end`: whether the request ends
/// with them.
pub(crate) async fn call(server: &Server, method: &str, body: Vec<u8>, end: bool) -> (i32, String) {
    let (response, _sending) = begin(server, method, body, end).await;
    let response = soon("an answer", response).await.expect("no answer");
    let (head, mut body) = response.into_parts();
    if head.headers.contains_key("grpc-status") {
        return status(&head.headers);
    }
    while let Some(data) = soon("the end of the answer", body.data()).await {
        let data = data.expect("no answer");
        let _ = body.flow_control().release_capacity(data.len());
    }
    let trailers = soon("the status", body.trailers()).await.expect("the answer is incomplete");
    status(&trailers.expect("the answer has no status"))
}

/// Begins a call that can be reset.
pub(crate) async fn begin(
    server: &Server,
    method: &str,
    body: Vec<u8>,
    end: bool,
) -> (ResponseFuture, SendStream<Bytes>) {
    begin_at(server.address, method, body, end).await
}

/// Begins a call like [`begin`], at this address.
pub(crate) async fn begin_at(
    address: SocketAddr,
    method: &str,
    body: Vec<u8>,
    end: bool,
) -> (ResponseFuture, SendStream<Bytes>) {
    let mut requests = connect(address).await;
    let uri: Uri = format!("http://{address}/farpool.v1.{method}").parse().expect("invalid URI");
    let request = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    let request = request.body(()).expect("invalid request");
    let (response, mut sending) = requests.send_request(request, false).expect("cannot send the request");
    sending.send_data(body.into(), end).expect("cannot send the data");
    (response, sending)
}

async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.expect("cannot connect to the server");
    let (requests, connection) = h2::client::handshake(stream).await.expect("the HTTP/2 handshake failed");
    tokio::spawn(async {
        let _ = connection.await;
    });
    requests.ready().await.expect("the server accepts no requests")
}

fn status(headers: &HeaderMap) -> (i32, String) {
    let text = |name| headers.get(name).map_or("", |value| value.to_str().expect("the header is not text"));
    (text("grpc-status").parse().expect("the status is not a number"), text("grpc-message").replace("%20", " "))
}

/// A message as gRPC frames it.
pub(crate) fn framed(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    [&head(0, body.len() as u32)[..], &body].concat()
}

/// The header that gRPC writes before a message.
pub(crate) fn head(flags: u8, length: u32) -> Vec<u8> {
    [&[flags][..], &length.to_be_bytes()].concat()
}
