//! The state that all handlers share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::rate::RequestRate;
use super::token::{Token, TokenError, load_or_make};
use crate::context::HostContext;
use crate::directory::HostDirectory;
use crate::reconcile::handle::ReconcilerHandle;
use crate::telemetry::metrics::Metrics;

/// The parts of the host that handlers use.
pub(crate) struct AdminState {
    pub(super) reconciler: ReconcilerHandle,
    pub(super) context: Arc<HostContext>,
    pub(super) directory: Arc<HostDirectory>,
    pub(super) metrics: Metrics,
    pub(super) data: PathBuf,
    pub(super) token: Token,
    /// Allows one backup or check of the store at a time: each backup takes as much space as the store.
    pub(super) copying: Arc<Semaphore>,
    /// Allows one rehearsal at a time: its component is in memory.
    pub(super) rehearsing: Arc<Semaphore>,
}

impl AdminState {
    /// Collects the parts. Creates the token in the data folder at the first start.
    pub(crate) fn new(
        reconciler: ReconcilerHandle,
        directory: Arc<HostDirectory>,
        metrics: Metrics,
        data: &Path,
    ) -> Result<Self, TokenError> {
        Ok(Self {
            reconciler,
            context: Arc::clone(&directory.context),
            directory,
            metrics,
            data: data.to_owned(),
            token: load_or_make(data)?,
            copying: Arc::new(Semaphore::new(1)),
            rehearsing: Arc::new(Semaphore::new(1)),
        })
    }
}

/// The state of every handler.
#[derive(Clone)]
pub(crate) struct Api(pub(super) Arc<ApiParts>);

/// The parts of [`Api`], behind one pointer: axum clones the state for each request.
pub(super) struct ApiParts {
    state: AdminState,
    pub(super) rate: RequestRate,
    /// Ends streams of events and logs when the host stops.
    stop: CancellationToken,
}

impl Api {
    /// Creates the API of a host that stops when `stop` is cancelled.
    pub(crate) fn new(state: AdminState, stop: CancellationToken) -> Self {
        Self(Arc::new(ApiParts { state, rate: RequestRate::default(), stop }))
    }

    /// Takes a request out of the rate, or returns the time until there is one.
    pub(super) fn take_request(&self) -> Result<(), Duration> {
        self.0.rate.take(Instant::now())
    }

    /// Returns the token that is cancelled when the host stops, which ends streams of events and logs.
    pub(super) fn stopped(&self) -> &CancellationToken {
        &self.0.stop
    }
}

impl std::ops::Deref for Api {
    type Target = AdminState;

    fn deref(&self) -> &AdminState {
        &self.0.state
    }
}
