//! The layers that every request passes before routing, outermost first.
//!
//! A request is registered with its connection first and unregistered last, so that everything inside counts as under
//! way. Bounds on bodies, deadlines and load shedding are absent here: they belong to the agent, which is known only
//! after routing.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper_util::service::TowerToHyperService;
use tower::{Service, ServiceBuilder};

use super::body::GuardedBody;
use super::connection::ConnectionContext;
use super::ingress;

/// Creates the service of one connection.
pub(super) fn layers(
    connection: Arc<ConnectionContext>,
) -> TowerToHyperService<
    impl Service<
        Request<Incoming>,
        Response = Response<GuardedBody>,
        Error = Infallible,
        Future = impl Future<Output = Result<Response<GuardedBody>, Infallible>> + Send + 'static,
    > + Clone
    + Send
    + 'static,
> {
    let inner = Arc::clone(&connection);
    TowerToHyperService::new(
        ServiceBuilder::new()
            .map_request(move |request: Request<Incoming>| {
                // Before anything can wait, so that a stop counts the request from its first moment.
                (connection.activity.begin_request(request.version() == Version::HTTP_2), request)
            })
            .service_fn(move |(guard, request)| ingress::answer(Arc::clone(&inner), guard, request)),
    )
}
