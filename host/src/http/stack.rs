//! What every request goes through before it is looked at, outermost first.
//!
//! The order of layers: a visit is counted first and ends last, so that whatever is inside counts as under way.
//! Bounds on bodies, deadlines and shedding are not here: they are each agent's own, and known only when the
//! path is.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper_util::service::TowerToHyperService;
use tower::{Service, ServiceBuilder};

use super::body::Answering;
use super::ingress;
use super::listen::Line;

/// The service of one connection.
pub(super) fn stack(
    line: Arc<Line>,
) -> TowerToHyperService<
    impl Service<
        Request<Incoming>,
        Response = Response<Answering>,
        Error = Infallible,
        Future = impl Future<Output = Result<Response<Answering>, Infallible>> + Send + 'static,
    > + Clone
    + Send
    + 'static,
> {
    let inner = Arc::clone(&line);
    TowerToHyperService::new(
        ServiceBuilder::new()
            .map_request(move |request: Request<Incoming>| {
                (line.pulse.visit(request.version() == Version::HTTP_2), request)
            })
            .service_fn(move |(visit, request)| ingress::answer(Arc::clone(&inner), visit, request)),
    )
}
