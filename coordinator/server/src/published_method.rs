//! Serves published answers: for one method of a service, it returns what the loop has encoded for all callers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use farpool_coordinator::Principal;
use http_body::{Body as HttpBody, Frame};
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::header::CONTENT_TYPE;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;

use super::link::{ControlRequest, Input, Link};
use super::origin::Origin;
use super::published::{Asker, Encoded, READ_WITHIN};

/// How much HTTP/2 gets at a time: it keeps that much for a reader who does not read.
const CHUNK: usize = 64 << 10;

/// A service of which one method is answered here.
#[derive(Clone)]
pub(super) struct Published<S> {
    service: S,
    link: Link,
    method: &'static str,
    question: fn(Principal, Asker) -> ControlRequest,
}

impl<S: NamedService> Published<S> {
    pub(super) fn new(
        service: S,
        link: Link,
        method: &'static str,
        question: fn(Principal, Asker) -> ControlRequest,
    ) -> Self {
        Self { service, link, method, question }
    }
}

impl<S: NamedService> NamedService for Published<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Published<S>
where
    S: Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future = BoxFuture<Response<Body>, Infallible>,
        >,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path().rsplit('/').next() != Some(self.method) {
            return self.service.call(request);
        }
        let (link, question) = (self.link.clone(), self.question);
        let by = Origin::of(request.extensions()).principal.clone();
        Box::pin(async move {
            let answer = link.ask(|asker| Input::Control(question(by, asker))).await;
            Ok(match answer.and_then(|answer| answer) {
                Ok(encoded) => respond(encoded),
                Err(status) => status.into_http(),
            })
        })
    }
}

fn respond(encoded: Encoded) -> Response<Body> {
    let left = Arc::new(Mutex::new(Some(encoded)));
    let read = Arc::clone(&left);
    let deadline = tokio::spawn(async move {
        sleep(READ_WITHIN).await;
        read.lock().unwrap_or_else(PoisonError::into_inner).take();
    });
    let mut response = Response::new(Body::new(Answer { left, deadline: deadline.abort_handle(), ended: false }));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// The body of an answer: the message, and the trailer for success.
struct Answer {
    /// `None`: it was not read in time.
    left: Arc<Mutex<Option<Encoded>>>,
    deadline: AbortHandle,
    ended: bool,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { left, ended, .. } = self.get_mut();
        if *ended {
            return Poll::Ready(None);
        }
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
        let frame = match &mut *left {
            None => Err(Status::deadline_exceeded("the answer was not read in time")),
            Some(left) if !left.is_empty() => {
                return Poll::Ready(Some(Ok(Frame::data(left.split_to(left.len().min(CHUNK))))));
            }
            Some(_) => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Ok(Frame::trailers(trailers))
            }
        };
        *ended = true;
        Poll::Ready(Some(frame))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.deadline.abort();
    }
}
