//! Routes calls to services.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use farpool_coordinator::Principal;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;
use tonic::transport::server::TcpConnectInfo;

use super::meter::{Metered, Meters};
use super::origin::Origin;

/// The methods that read a stream.
const STREAMS: [&str; 2] = ["Session", "PutProgram"];

/// Services by their names. They are always ready, like those of tonic.
#[derive(Clone)]
pub(super) struct Router {
    meters: Meters,
    /// Returns the principal of a connection from this address.
    principal: fn(Option<SocketAddr>) -> Principal,
    services: Vec<(&'static str, Box<dyn CloneService>)>,
}

impl Router {
    pub(super) fn new(meters: Meters, principal: fn(Option<SocketAddr>) -> Principal) -> Self {
        Self { meters, principal, services: Vec::new() }
    }

    pub(super) fn with<S>(mut self, service: S) -> Self
    where
        S: NamedService + CloneService + 'static,
    {
        self.services.push((S::NAME, Box::new(service)));
        self
    }
}

impl Service<Request<Body>> for Router {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (meter, (head, body)) = (self.meters.meter(), request.into_parts());
        let body = Metered::new(body, Arc::clone(&meter));
        let is_stream = head.uri.path().rsplit('/').next().is_some_and(|method| STREAMS.contains(&method));
        let (body, stream) = if is_stream { (Body::empty(), Some(body)) } else { (Body::new(body), None) };
        let mut request = Request::from_parts(head, body);
        let address = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        let principal = (self.principal)(address);
        request.extensions_mut().insert(Origin::new(principal, meter, stream));
        // "/package.Service/Method"
        let name = request.uri().path().split('/').nth(1).unwrap_or_default();
        match self.services.iter_mut().find(|(service, _)| *service == name) {
            Some((_, service)) => service.call(request),
            None => {
                let status = Status::unimplemented(format!("this server has no service {name:?}"));
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}

/// A service in a box that can be cloned.
pub(super) trait CloneService: Send {
    fn call(&mut self, request: Request<Body>) -> BoxFuture<Response<Body>, Infallible>;
    fn cloned(&self) -> Box<dyn CloneService>;
}

impl<S> CloneService for S
where
    S: Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future = BoxFuture<Response<Body>, Infallible>,
        > + Clone
        + Send
        + 'static,
{
    fn call(&mut self, request: Request<Body>) -> BoxFuture<Response<Body>, Infallible> {
        Service::call(self, request)
    }

    fn cloned(&self) -> Box<dyn CloneService> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn CloneService> {
    fn clone(&self) -> Self {
        (**self).cloned()
    }
}
