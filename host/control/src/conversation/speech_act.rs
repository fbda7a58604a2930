//! The parts of a message that matter to its conversation.

use crate::Performative;
use crate::protocol::Protocol;

/// The parts of a message that matter to its conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpeechAct<'a> {
    /// The sender.
    pub from: &'a str,
    /// The receiver, by the name that it will use as sender of the answer.
    pub to: &'a str,
    /// The communicative act.
    pub act: Performative,
    /// The protocol that the message names. A message that names none is not checked.
    pub protocol: Option<&'a str>,
    /// The message's id.
    pub id: &'a str,
    /// The key that the answer is to name instead of the id.
    pub reply_with: Option<&'a str>,
    /// The key of the message that this one answers.
    pub in_reply_to: Option<&'a str>,
    /// The time at which it was sent, in milliseconds since 1970.
    pub at: u64,
    /// Set for a call from outside, whose caller waits no longer than the host runs.
    pub is_call: bool,
}

impl SpeechAct<'_> {
    /// Returns `true` if the sender is owed an answer. A message of an agent to itself is no question.
    pub fn is_question(&self) -> bool {
        // An agent that sends to itself continues its own work and owes no answer.
        awaits_answer(self.act) && self.from != self.to
    }

    /// Returns `true` if an answer may still come after the receiver handled the message without one and sent `sends`
    /// meanwhile: the named protocol requires an answer, or the receiver asked another agent or sent a message to
    /// itself.
    pub fn may_be_answered_later<'a>(&self, sends: impl IntoIterator<Item = SpeechAct<'a>>) -> bool {
        // A message to itself is a continuation: the agent answers when it handles that.
        let goes_on = |sent: SpeechAct<'_>| sent.from == self.to && (sent.to == self.to || sent.is_question());
        self.protocol.is_some_and(|name| Protocol::named(name).is_some()) || sends.into_iter().any(goes_on)
    }
}

/// Returns `true` if the sender of such an act is owed an answer, or a `failure` in its place.
pub fn awaits_answer(act: Performative) -> bool {
    use Performative::*;
    match act {
        Request | RequestWhen | RequestWhenever | QueryIf | QueryRef | Cfp | AcceptProposal | Subscribe | Propose => {
            true
        }
        Agree | Cancel | Confirm | Disconfirm | Failure | Inform | InformIf | InformRef | NotUnderstood | Propagate
        | Proxy | Refuse | RejectProposal => false,
    }
}
