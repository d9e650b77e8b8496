//! The origin of a request: its caller, and the frames of its stream.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use farpool_coordinator::Principal;
use prost::Message;
use tonic::body::Body;
use tonic::codegen::http::Extensions;
use tonic::{Request, Streaming};

use super::frames::Frames;
use super::meter::{Meter, Metered};

/// The owner and address of a connection.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) principal: Principal,
    pub(super) address: Option<SocketAddr>,
    pub(super) meter: Arc<Meter>,
}

/// Returns the caller of a stream, and its frames.
pub(super) fn source<F: Message + Default + 'static>(
    request: &Request<Streaming<F>>,
) -> (Caller, Frames<Metered<Body>, F>) {
    let origin = Origin::of(request.extensions());
    let (principal, meter) = (origin.principal.clone(), Arc::clone(&origin.meter));
    (Caller { principal, address: request.remote_addr(), meter }, origin.frames())
}

/// Returns the principal of a request.
pub(super) fn principal<T>(request: &Request<T>) -> Principal {
    Origin::of(request.extensions()).principal.clone()
}

/// The source of a request's bytes.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) principal: Principal,
    meter: Arc<Meter>,
    frames: Arc<Mutex<Option<Metered<Body>>>>,
}

impl Origin {
    /// Makes the origin of a request. `stream`: the body, if it is a stream; then gRPC's library does not get it.
    pub(super) fn new(principal: Principal, meter: Arc<Meter>, stream: Option<Metered<Body>>) -> Self {
        Self { principal, meter, frames: Arc::new(Mutex::new(stream)) }
    }

    /// Returns the origin of a request that came through the router.
    pub(super) fn of(extensions: &Extensions) -> &Self {
        extensions.get::<Origin>().expect("the request has no origin")
    }

    /// Returns the frames of a stream, once. The library's decoder gets none.
    fn frames<F: Message + Default + 'static>(&self) -> Frames<Metered<Body>, F> {
        let body = self.frames.lock().unwrap_or_else(PoisonError::into_inner).take();
        Frames::new(body.unwrap_or_else(|| Metered::new(Body::empty(), Arc::clone(&self.meter))))
    }
}
