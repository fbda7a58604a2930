//! The handles that agents share with each other, and the way from one agent to another.

use std::sync::Arc;

use parking_lot::Mutex;

use super::mailbox::backlog::{Backlog, backlog};
use super::receipts::Receipts;
use super::wakeups::Wakeups;
use super::{AdmitError, Agent};
use crate::context::HostContext;
use crate::message::{CallContext, Draft, Envelope, GuestHost, Identity};

/// The handles that the agents of a host share.
pub(crate) struct AgentShared {
    pub(crate) context: Arc<HostContext>,
    /// The outcomes of messages for which no caller waits.
    pub(crate) receipts: Arc<Receipts>,
    /// The times at which agents look at their mailboxes.
    pub(crate) wakeups: Wakeups,
    /// The messages that waited when the host started, until their agents take them.
    pub(crate) backlog: Mutex<Backlog>,
}

impl AgentShared {
    /// Reads the messages that wait in the store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn new(context: Arc<HostContext>) -> Result<Self, String> {
        // Before any agent exists: messages that arrive from now on are not in it.
        let backlog = Mutex::new(backlog(&context.store)?);
        Ok(Self { context, receipts: Arc::default(), wakeups: Wakeups::default(), backlog })
    }
}

/// The other agents, as an agent reaches them, and the host interface of its guests.
///
/// The directory is built of agents, so an agent cannot name it: this trait breaks that circle. It is defined here,
/// where it is used, because its methods return agents.
pub(crate) trait Directory: GuestHost {
    /// Returns the handles that agents share.
    fn shared(&self) -> &Arc<AgentShared>;
    /// Returns the agent of a name, be it declared or retiring.
    fn agent(&self, name: &str) -> Option<Arc<Agent>>;
    /// Returns the agent of a name if it accepts messages of this conversation; a retiring one accepts those of open
    /// ones.
    fn receiver(&self, name: &str, conversation: &str) -> Option<Arc<Agent>>;
    /// Checks a draft of a guest and finds its receiver. Reserves no place.
    fn address(
        &self,
        who: &Identity,
        work: &CallContext,
        draft: Draft,
    ) -> Result<(Arc<Agent>, Box<Envelope>), AdmitError>;
}
