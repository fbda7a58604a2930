//! The first refusal in a tree with a budget: the root is told, once.
//!
//! An agent whose message began the tree gets a `failure` from `host:budget`, whose headers name the budget, the limit and
//! the use. A caller outside sees it at its response or at the status of its message. Everybody else finds an event.

use std::sync::Arc;

use caxton_control::Performative;
use caxton_control::mailbox::Priority;
use serde_json::json;

use super::HostDirectory;
use crate::agent::Directory;
use crate::budgets::{OverBudget, Tree};
use crate::clock;
use crate::message::{Deliver, Envelope, Message, Outgoing, new_id};
use crate::store::{Commit, CommitRequest, Committed};

/// The sender of the notices.
const SENDER: &str = "host:budget";

impl HostDirectory {
    /// Has the first refusal of each tree told.
    pub(super) fn report_budgets(self: &Arc<Self>) {
        // Weak: the context, which has the budgets, is part of the directory.
        let me = Arc::downgrade(self);
        self.context.budgets.report_to(Box::new(move |tree, over| {
            if let Some(directory) = me.upgrade() {
                directory.report_over(tree, over);
            }
        }));
    }

    fn report_over(&self, tree: &Tree, over: &OverBudget) {
        let (state, shortage) = (tree.state(), &over.shortage);
        tracing::warn!(tree = %state.id(), "{over}");
        let data = json!({
            "tree": **state.id(),
            "budget": over.budget.as_str(),
            "conversation": state.root().conversation,
            "measure": shortage.measure.name(),
            "limit": shortage.limit,
            "used": shortage.used,
            "reserved": shortage.reserved,
        });
        self.context.events.emit(None, "budget.exceeded", data);
        if let Some(notice) = self.budget_notice(tree, over) {
            let done = Box::new(|committed: Committed| {
                if committed.result.is_ok() {
                    committed.sends.into_iter().for_each(Outgoing::deliver);
                }
            });
            let commit = Commit::new(notice.envelope().message.receiver.as_str().into());
            // That it was told is part of the row, which is written with it.
            self.context.store.submit(CommitRequest::new(commit, vec![notice], done).of_tree(Some(tree)));
        }
    }

    /// Returns the notice to the agent whose message began a tree; `None` if it was none, or takes no messages.
    fn budget_notice(&self, tree: &Tree, over: &OverBudget) -> Option<Outgoing> {
        let (state, root) = (tree.state(), tree.state().root());
        let asker = self.agent(root.asker.as_deref()?).filter(|asker| !asker.is_http())?;
        let hops = root.hops.saturating_add(1);
        // An agent that begins anew at each notice would otherwise do so for ever.
        if hops > asker.spec().limits.hops {
            return None;
        }
        let header = |name: &str, value: String| (name.to_owned(), value);
        let shortage = &over.shortage;
        let message = Message {
            id: new_id(),
            performative: Performative::Failure,
            sender: SENDER.to_owned(),
            receiver: asker.name().as_str().to_owned(),
            content: over.to_string().into_bytes(),
            content_type: "text/plain; charset=utf-8".to_owned(),
            ontology: None,
            protocol: None,
            conversation_id: root.conversation.clone(),
            reply_with: None,
            in_reply_to: None,
            reply_by: None,
            priority: Priority::Normal,
            sent_at: clock::now_ms(),
            attempt: 1,
            headers: vec![
                header("budget", over.budget.to_string()),
                header("budget-tree", state.id().to_string()),
                header("budget-measure", shortage.measure.name().to_owned()),
                header("budget-limit", shortage.limit.to_string()),
                header("budget-used", shortage.used.to_string()),
            ],
        };
        // It has to hear it, so there is always a place.
        asker.reserve_beyond();
        // Outside of the tree, in which nothing more could follow from it.
        let envelope = Box::new(Envelope { hops, ..Envelope::new(message) });
        Some(Outgoing::new(asker as Arc<dyn Deliver>, envelope).mark_sent_by_host())
    }
}
