//! The state that all handlers share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::access::rate::{Rate, RateTable};
use caxton_control::access::{MAX_TOKENS, TokenName};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::context::HostContext;
use crate::directory::HostDirectory;
use crate::reconcile::handle::ReconcilerHandle;
use crate::telemetry::metrics::Metrics;

/// Requests per second that each token may make on average. Far above what operators and dashboards need: it stops a
/// script in a loop from starving the agents.
pub(super) const RATE: u32 = 1_000;
/// Requests that each token may make at once.
const BURST: u32 = 2_000;
/// The least time between two commits that are made for probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// The time after which a commit for a probe counts as refused. Probes of an orchestrator wait a few seconds.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// The parts of the host that handlers use.
pub(crate) struct AdminState {
    pub(super) reconciler: ReconcilerHandle,
    pub(super) context: Arc<HostContext>,
    pub(super) directory: Arc<HostDirectory>,
    pub(super) metrics: Metrics,
    pub(super) data: PathBuf,
    pub(crate) access: Arc<Access>,
    /// Allows one backup or check of the store at a time: each backup takes as much space as the store.
    pub(super) copying: Arc<Semaphore>,
    /// The outcome of the last commit that was made for a probe, and its time.
    pub(super) probed: tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>,
    /// Allows one rehearsal at a time: its component is in memory.
    pub(super) rehearsing: Arc<Semaphore>,
}

impl AdminState {
    /// Collects the parts.
    pub(crate) fn new(
        reconciler: ReconcilerHandle,
        directory: Arc<HostDirectory>,
        metrics: Metrics,
        access: Arc<Access>,
        data: &Path,
    ) -> Self {
        Self {
            reconciler,
            context: Arc::clone(&directory.context),
            directory,
            metrics,
            data: data.to_owned(),
            access,
            copying: Arc::new(Semaphore::new(1)),
            probed: tokio::sync::Mutex::default(),
            rehearsing: Arc::new(Semaphore::new(1)),
        }
    }
}

/// The state of every handler.
#[derive(Clone)]
pub(crate) struct Api(pub(super) Arc<ApiParts>);

/// The parts of [`Api`], behind one pointer: axum clones the state for each request.
pub(super) struct ApiParts {
    state: AdminState,
    /// The rate of requests by token, so that one that is used in a loop leaves the others theirs.
    // Locked for a look-up.
    rates: Mutex<RateTable<TokenName>>,
    /// Ends streams of events and logs when the host stops.
    stop: CancellationToken,
}

impl Api {
    /// Creates the API of a host that stops when `stop` is cancelled.
    pub(crate) fn new(state: AdminState, stop: CancellationToken) -> Self {
        let rate = Rate::new(RATE, Duration::from_secs(1)).with_burst(BURST);
        Self(Arc::new(ApiParts { state, rates: Mutex::new(RateTable::new(rate, MAX_TOKENS)), stop }))
    }

    /// Returns the reason why nothing can be committed, if that is so. Looks once a second at most, whatever the number of
    /// probes: each look is a commit.
    pub(super) async fn refused_commit(&self) -> Option<String> {
        // Held while it looks, so that probes of the same moment share one commit.
        let mut probed = self.probed.lock().await;
        let recent = probed.as_ref().filter(|(at, _)| at.elapsed() < PROBE_INTERVAL);
        if let Some((_, outcome)) = recent {
            return outcome.clone().err();
        }
        let outcome = self.context.store.try_commit(PROBE_TIMEOUT).await;
        *probed = Some((Instant::now(), outcome.clone()));
        outcome.err()
    }

    /// Takes a request out of the rate of a token, or returns the time until there is one. `now` is
    /// [`Access::now`](crate::access::Access::now).
    pub(super) fn take_request(&self, token: &TokenName, now: Duration) -> Result<(), Duration> {
        self.0.rates.lock().take(token.clone(), now)
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
