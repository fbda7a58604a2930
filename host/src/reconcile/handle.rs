//! What others ask of the reconciler. It alone changes what runs; this hands it the wishes and waits.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::status::{
    AgentStatus, Applied, Change, FileError, HostStatus, NotRehearsed, Rehearsal, RehearsalWish, RolloutStatus,
    RolloutWish,
};

/// Why the reconciler looks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The declaration's file changed, or may have.
    File,
    /// A component's file changed, or may have.
    Components,
    /// Someone asks for everything to be looked at anew.
    All,
}

/// A wish.
pub(crate) enum Command {
    /// Read the file now, and answer when all is as declared or nothing more can be done.
    Apply(oneshot::Sender<Result<Applied, Vec<FileError>>>),
    /// Look at everything anew, and answer when nothing more can be done, also if the file has errors.
    Reload(oneshot::Sender<Result<Applied, Vec<FileError>>>),
    /// Read the file now, and say what would change.
    Diff(oneshot::Sender<Result<Vec<Change>, Vec<FileError>>>),
    /// Say how things are.
    Status(oneshot::Sender<HostStatus>),
    /// Say how the agents are, in order of name; or only this one.
    Agents(Option<String>, oneshot::Sender<Vec<AgentStatus>>),
    /// Say how an agent's rollouts went, the newest first; or the newest of each agent.
    Rollouts(Option<String>, oneshot::Sender<Vec<RolloutStatus>>),
    /// Do something to an agent's rollout; why not, if it cannot be done now.
    Rollout(RolloutWish, oneshot::Sender<Result<Option<RolloutStatus>, String>>),
    /// Try a component on an agent's last messages.
    Rehearse(RehearsalWish, oneshot::Sender<Result<Rehearsal, NotRehearsed>>),
}

/// Why a wish got no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum ControlError {
    /// The file has errors; nothing was changed.
    #[error("the file has {}; nothing was changed", match .0.len() { 1 => "an error".to_owned(), count => format!("{count} errors") })]
    File(Vec<FileError>),
    /// It took too long; it goes on.
    #[error("not everything was as declared within {} s; the host goes on with it", .0.as_secs())]
    Timeout(Duration),
    /// The host stops.
    #[error("the host is stopping")]
    Stopping,
}

/// The way to the reconciler.
#[derive(Clone)]
pub(crate) struct Control {
    commands: mpsc::Sender<Command>,
    /// Whether the host is ready, for probes that must not wait.
    ready: watch::Receiver<Readiness>,
}

/// Whether the host is ready, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Readiness {
    /// Everything that the file declares is served, and nothing of it waits for a person.
    pub(crate) ready: bool,
    /// What runs is what the file says.
    pub(crate) in_sync: bool,
    /// Why not, one line each.
    pub(crate) reasons: Vec<String>,
}

impl Control {
    /// A way to whoever receives `commands`.
    pub(crate) fn new(commands: mpsc::Sender<Command>, ready: watch::Receiver<Readiness>) -> Self {
        Self { commands, ready }
    }

    /// Whether the host is ready; never waits.
    pub(crate) fn readiness(&self) -> Readiness {
        self.ready.borrow().clone()
    }

    /// Reads the file now and waits until all is as declared or nothing more can be done.
    pub(crate) async fn apply(&self, timeout: Duration) -> Result<Applied, ControlError> {
        let answer = self.ask(Command::Apply);
        tokio::time::timeout(timeout, answer)
            .await
            .map_err(|_| ControlError::Timeout(timeout))??
            .map_err(ControlError::File)
    }

    /// Looks at everything anew, and returns when nothing more can be done, be the file right or wrong.
    pub(crate) async fn reload(&self) {
        // A host that stops meanwhile has nothing more to look at.
        let _ = self.ask(Command::Reload).await;
    }

    /// Says what the file would change.
    pub(crate) async fn diff(&self) -> Result<Vec<Change>, ControlError> {
        self.ask(Command::Diff).await?.map_err(ControlError::File)
    }

    /// How the host is.
    pub(crate) async fn status(&self) -> Result<HostStatus, ControlError> {
        self.ask(Command::Status).await
    }

    /// How the agents are, in order of name.
    pub(crate) async fn agents(&self) -> Result<Vec<AgentStatus>, ControlError> {
        self.ask(|answer| Command::Agents(None, answer)).await
    }

    /// How an agent is; none when there is none of that name.
    pub(crate) async fn agent(&self, name: &str) -> Result<Option<AgentStatus>, ControlError> {
        Ok(self.ask(|answer| Command::Agents(Some(name.to_owned()), answer)).await?.pop())
    }

    /// How an agent's rollouts went, the newest first; or the newest of each agent, in order of name.
    pub(crate) async fn rollouts(&self, agent: Option<String>) -> Result<Vec<RolloutStatus>, ControlError> {
        self.ask(|answer| Command::Rollouts(agent, answer)).await
    }

    /// Does something to an agent's rollout, which then is as it is told; or why it cannot be done now.
    pub(crate) async fn roll(&self, wish: RolloutWish) -> Result<Result<Option<RolloutStatus>, String>, ControlError> {
        self.ask(|answer| Command::Rollout(wish, answer)).await
    }

    /// Tries a component on an agent's last messages, however long that takes.
    pub(crate) async fn rehearse(&self, wish: RehearsalWish) -> Result<Result<Rehearsal, NotRehearsed>, ControlError> {
        self.ask(|answer| Command::Rehearse(wish, answer)).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, ControlError> {
        let (sender, answer) = oneshot::channel();
        self.commands.send(command(sender)).await.map_err(|_| ControlError::Stopping)?;
        answer.await.map_err(|_| ControlError::Stopping)
    }
}
