//! The receiver of a message that a guest sends.

use std::sync::Arc;

use caxton_control::grant::Address;

use super::HostDirectory;
use super::routes::Routes;
use crate::agent::{AdmitError, Agent, draft};
use crate::budgets::{TreeLink, TreeRoot};
use crate::clock;
use crate::message::{CallContext, Delivery, Draft, Envelope, Identity, Message, new_id};

impl HostDirectory {
    /// Checks a draft and finds its receiver. Reserves no place.
    pub(super) fn address_draft(
        &self,
        who: &Identity,
        work: &CallContext,
        draft: Draft,
    ) -> Result<(Arc<Agent>, Box<Envelope>), AdmitError> {
        let limits = &who.spec.limits;
        draft::check_draft(&draft, limits)?;
        let now = clock::now_ms();
        let begins_chain = draft::begins_chain(&draft.delivery, now);
        let is_timer = !matches!(draft.delivery, Delivery::Now);
        let timer = draft::timer_name(&draft)?;
        let (due, due_at) = draft::due(draft.delivery)?;
        let id = new_id();
        let conversation = match draft.conversation_id {
            None => work.conversation.clone(),
            Some(own) if own.is_empty() => id.clone(),
            Some(named) => named,
        };
        let routes = self.routes.load();
        let agent = self.find_receiver(&routes, who, (&draft.receiver, is_timer), &conversation)?;
        // Checked here and not in the mailbox: the sender is told at once, and nothing is reserved.
        let theirs = agent.message_limit();
        if draft.content.len() as u64 > theirs {
            return Err(AdmitError::TooLarge { limit: theirs });
        }
        let message = Message {
            performative: draft.performative,
            sender: who.name().to_owned(),
            receiver: agent.name().as_str().to_owned(),
            content: draft.content,
            content_type: draft.content_type,
            ontology: draft.ontology,
            protocol: draft.protocol,
            conversation_id: conversation,
            reply_with: draft.reply_with,
            in_reply_to: draft.in_reply_to,
            reply_by: draft.reply_by,
            priority: draft.priority,
            sent_at: now,
            attempt: 1,
            headers: draft.headers,
            id,
        };
        // A delayed message to oneself begins a chain, or every periodic agent would end at `limits.hops`.
        let hops = if begins_chain && message.sender == message.receiver { 0 } else { work.hops.saturating_add(1) };
        let (waits, trace) = (due.is_some(), work.trace.clone());
        let tree = work.tree.clone().map(TreeLink::Live);
        let envelope = Envelope { hops, due, due_at, waits, timer, trace, tree, ..Envelope::new(message) };
        Ok((agent, Box::new(envelope)))
    }

    /// Makes a message the root of a tree if it is part of none and its receiver has a budget. `asker` is told of the first
    /// refusal.
    pub(super) fn begin_agents_tree(agent: &Agent, envelope: &mut Envelope, asker: Option<&str>) {
        if envelope.tree.is_none() {
            let Envelope { message, hops, .. } = &*envelope;
            let root = || TreeRoot {
                asker: asker.map(str::to_owned),
                hops: *hops,
                ..TreeRoot::outside(&message.conversation_id)
            };
            envelope.tree = agent.begin_tree(None, &message.id, root).map(TreeLink::Live);
        }
    }

    /// Returns the agent that a receiver's text names, if the sender may send there: no text names the sender itself. A
    /// timer to oneself needs no grant.
    fn find_receiver(
        &self,
        routes: &Routes,
        who: &Identity,
        (receiver, is_timer): (&str, bool),
        conversation: &str,
    ) -> Result<Arc<Agent>, AdmitError> {
        let allow = &who.spec.allow;
        let refuse = |name: &str| AdmitError::NotAllowed { sender: who.name().to_owned(), receiver: name.to_owned() };
        let name = match Address::of(receiver, who.name()) {
            Address::Agent(name) => name,
            Address::Capability(capability) if !allow.covers_capability(capability) => return Err(refuse(receiver)),
            Address::Capability(capability) => {
                let able = routes.with_capability(capability);
                // A conversation stays with the agent with which it began, even if another one would be picked now.
                let known =
                    |name: &str| able.iter().find(|agent| agent.name().as_str() == name && name != who.name()).cloned();
                let agent = match able {
                    // With one candidate there is nothing to remember.
                    [] | [_] => None,
                    _ => self.context.conversations.find(conversation, known),
                };
                return agent
                    .or_else(|| routes.pick(capability, conversation))
                    .ok_or_else(|| AdmitError::UnknownReceiver(receiver.to_owned()));
            }
        };
        let agent = routes.receiver(name, conversation);
        let spec = agent.map(|agent| agent.load_spec());
        let capabilities = spec.as_ref().map(|spec| &spec.capabilities);
        // An agent may always remind itself: `allow.send` is about others.
        let is_own_timer = is_timer && name == who.name();
        if !is_own_timer && !allow.covers_agent(name, capabilities) {
            return Err(refuse(name));
        }
        agent.cloned().ok_or_else(|| AdmitError::UnknownReceiver(name.to_owned()))
    }
}
