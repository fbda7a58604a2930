//! The handle of the reconciler: sends it requests and waits for the answers.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::api_types::{
    AgentStatus, ApplyResult, FileError, HostStatus, PlannedChange, RehearsalError, RehearsalRequest, RehearsalResult,
    RolloutRequest, RolloutStatus,
};

/// The reason for a wake-up of the reconciler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The declaration file may have changed.
    File,
    /// The file of a component may have changed.
    Components,
    /// A file that a setting of the host names may have changed, such as a certificate.
    NamedFiles,
    /// An operator asks to read everything again.
    All,
}

/// A request to the reconciler, with the channel of its answer.
pub(crate) enum Request {
    /// Reads the declaration now. Answered when all is as declared or nothing more can be done.
    Apply(oneshot::Sender<Result<ApplyResult, Vec<FileError>>>),
    /// Reads the declaration and all components again. Answered when nothing more can be done, even if the file has
    /// errors.
    Reload(oneshot::Sender<Result<ApplyResult, Vec<FileError>>>),
    /// Reads the declaration now and returns the changes that it would make.
    Diff(oneshot::Sender<Result<Vec<PlannedChange>, Vec<FileError>>>),
    /// Returns the status of the host.
    Status(oneshot::Sender<HostStatus>),
    /// Returns the status of all agents in order of name, or of the one named.
    Agents(Option<String>, oneshot::Sender<Vec<AgentStatus>>),
    /// Returns the rollouts of the agent named, the newest first, or the newest of each agent.
    Rollouts(Option<String>, oneshot::Sender<Vec<RolloutStatus>>),
    /// Carries out an operator's command for a rollout. The error is a reason for a person.
    Rollout(RolloutRequest, oneshot::Sender<Result<Option<RolloutStatus>, String>>),
    /// Rehearses a component with an agent's latest messages.
    Rehearse(RehearsalRequest, oneshot::Sender<Result<RehearsalResult, RehearsalError>>),
}

/// The failure of a request to the reconciler.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum ReconcilerError {
    /// The declaration has errors. Nothing was changed.
    #[error("the file has {}; nothing was changed", match .0.len() { 1 => "an error".to_owned(), count => format!("{count} errors") })]
    File(Vec<FileError>),
    /// The time limit of the caller has passed. The work goes on.
    #[error("not everything was as declared within {} s; the host goes on with it", .0.as_secs())]
    Timeout(Duration),
    /// The host is stopping.
    #[error("the host is stopping")]
    Stopping,
}

/// A handle to the reconciler, which alone changes what runs.
#[derive(Clone)]
pub(crate) struct ReconcilerHandle {
    requests: mpsc::Sender<Request>,
    /// The latest readiness, for probes that must not wait for the reconciler.
    ready: watch::Receiver<Readiness>,
}

/// The readiness of the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Readiness {
    /// Set if every declared agent is served and none waits for a person.
    pub(crate) ready: bool,
    /// Set if the running state matches the declaration.
    pub(crate) in_sync: bool,
    /// The reasons why it is not ready or not in sync, one line each.
    pub(crate) reasons: Vec<String>,
}

impl ReconcilerHandle {
    /// Creates a handle to the receivers of these channels.
    pub(crate) fn new(requests: mpsc::Sender<Request>, ready: watch::Receiver<Readiness>) -> Self {
        Self { requests, ready }
    }

    /// Returns the latest readiness without waiting.
    pub(crate) fn readiness(&self) -> Readiness {
        self.ready.borrow().clone()
    }

    /// Applies the declaration as it is now, and waits until all is as declared or nothing more can be done.
    pub(crate) async fn apply(&self, timeout: Duration) -> Result<ApplyResult, ReconcilerError> {
        let answer = self.ask(Request::Apply);
        // Only the wait ends with the timeout: the request is carried out all the same.
        tokio::time::timeout(timeout, answer)
            .await
            .map_err(|_| ReconcilerError::Timeout(timeout))??
            .map_err(ReconcilerError::File)
    }

    /// Reads the declaration and all components again, and waits until nothing more can be done.
    pub(crate) async fn reload(&self) {
        // An error means that the host is stopping, which ends the reload as well.
        let _ = self.ask(Request::Reload).await;
    }

    /// Returns the changes that the declaration would make.
    pub(crate) async fn diff(&self) -> Result<Vec<PlannedChange>, ReconcilerError> {
        self.ask(Request::Diff).await?.map_err(ReconcilerError::File)
    }

    /// Returns the status of the host.
    pub(crate) async fn status(&self) -> Result<HostStatus, ReconcilerError> {
        self.ask(Request::Status).await
    }

    /// Returns the status of all agents in order of name.
    pub(crate) async fn agents(&self) -> Result<Vec<AgentStatus>, ReconcilerError> {
        self.ask(|answer| Request::Agents(None, answer)).await
    }

    /// Returns the status of an agent; `None` if there is none of that name.
    pub(crate) async fn agent(&self, name: &str) -> Result<Option<AgentStatus>, ReconcilerError> {
        Ok(self.ask(|answer| Request::Agents(Some(name.to_owned()), answer)).await?.pop())
    }

    /// Returns the rollouts of an agent, the newest first; without a name, the newest of each agent in order of name.
    pub(crate) async fn rollouts(&self, agent: Option<String>) -> Result<Vec<RolloutStatus>, ReconcilerError> {
        self.ask(|answer| Request::Rollouts(agent, answer)).await
    }

    /// Carries out a command for an agent's rollout, and returns its new status. The inner error says why the command
    /// is not possible now.
    pub(crate) async fn command_rollout(
        &self,
        request: RolloutRequest,
    ) -> Result<Result<Option<RolloutStatus>, String>, ReconcilerError> {
        self.ask(|answer| Request::Rollout(request, answer)).await
    }

    /// Rehearses a component with an agent's latest messages. Takes as long as the component needs.
    pub(crate) async fn rehearse(
        &self,
        request: RehearsalRequest,
    ) -> Result<Result<RehearsalResult, RehearsalError>, ReconcilerError> {
        self.ask(|answer| Request::Rehearse(request, answer)).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, ReconcilerError> {
        let (sender, answer) = oneshot::channel();
        self.requests.send(request(sender)).await.map_err(|_| ReconcilerError::Stopping)?;
        // A dropped sender means that the reconciler ended before it answered.
        answer.await.map_err(|_| ReconcilerError::Stopping)
    }
}
