//! The binding of a conversation to a revision while an agent's traffic is split over two revisions.
//!
//! A conversation may move to another revision of an agent with its next message as long as nothing of it is open
//! there: no message is queued or in flight, which the agent's mailbox knows, and no answer is owed, which is known
//! here. The binding is part of the stored record, so it outlives the host.

use compact_str::CompactString;

use super::record::{Conversation, RevisionBinding, Unanswered};

impl Conversation {
    /// Returns `true` if the agent waits for an answer in this conversation, or owes one. `except` is the key of a
    /// question in flight, which does not count.
    pub fn has_open_exchange(&self, agent: &str, except: Option<&str>) -> bool {
        // A message from outside that is no call has no one to answer to.
        let is_heard = |left: &Unanswered| left.is_call || !left.from.contains(':');
        let is_open = |left: &Unanswered| {
            (left.from == agent || left.to == agent) && is_heard(left) && except != Some(left.key.as_str())
        };
        self.unanswered.iter().any(is_open) || self.runs.iter().any(|run| run.involves(agent))
    }

    /// Records that a revision handled a message of the agent at time `at`, and is bound to what it left open. With
    /// nothing left open, nothing is recorded unless `anyway`. `except` is the key of the message. Returns `true` if
    /// the record has to be stored.
    pub fn bind(&mut self, agent: &str, revision: u64, at: u64, except: Option<&str>, anyway: bool) -> bool {
        if !anyway && !self.has_open_exchange(agent, except) {
            return false;
        }
        match self.bindings.iter_mut().find(|stay| stay.agent == agent) {
            Some(stay) => {
                let is_other = stay.revision != revision;
                (stay.revision, stay.until, stay.is_over) = (revision, stay.until.max(at), false);
                // A later time alone needs no write of its own.
                is_other || anyway
            }
            None => {
                self.bindings.push(RevisionBinding {
                    agent: CompactString::new(agent),
                    revision,
                    until: at,
                    is_over: false,
                });
                true
            }
        }
    }

    /// Returns the revision that has to handle a message sent to the agent at `sent_at`, because of what is or was open
    /// then; `None` if the conversation was free. `key` is the key that an answer to the message would name.
    pub fn bound_revision(&self, agent: &str, key: &str, sent_at: u64) -> Option<u64> {
        // Most conversations have none, which costs a look at an empty list.
        let stay = self.last_binding(agent)?;
        (sent_at <= stay.until || !stay.is_over && self.has_open_exchange(agent, Some(key))).then_some(stay.revision)
    }

    /// Returns the last binding of an agent, in force or over.
    pub fn last_binding(&self, agent: &str) -> Option<&RevisionBinding> {
        self.bindings.iter().find(|stay| stay.agent == agent)
    }

    /// Records that a message is sent to the agent at `at`: while an answer is owed, the message is bound as well, even
    /// if the answer comes first; otherwise the binding is over. Called before the message is recorded, as the message
    /// itself must not count as an open question.
    pub(super) fn extend_binding(&mut self, agent: &str, at: u64) {
        // Most conversations have no binding, and then nothing is searched.
        let Some(noted) = self.bindings.iter().position(|stay| stay.agent == agent && !stay.is_over) else { return };
        let is_owed = self.has_open_exchange(agent, None);
        let stay = &mut self.bindings[noted];
        if is_owed {
            stay.until = stay.until.max(at);
        } else {
            stay.is_over = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::SpeechAct;
    use super::*;
    use crate::Performative::{self, *};

    const OUTSIDE: &str = "http:POST /desk";

    fn speech<'a>(
        from: &'a str,
        to: &'a str,
        act: Performative,
        id: &'a str,
        answers: Option<&'a str>,
        at: u64,
    ) -> SpeechAct<'a> {
        let (protocol, reply_with, is_call) = (None, None, false);
        SpeechAct { from, to, act, protocol, id, reply_with, in_reply_to: answers, at, is_call }
    }

    fn conversation(speech: &[SpeechAct<'_>]) -> Conversation {
        let mut conversation = Conversation::new("c", speech[0].from, speech[0].at);
        for speech in speech {
            conversation.record(speech, 10).unwrap();
        }
        conversation
    }

    #[test]
    fn an_agent_that_owes_or_awaits_an_answer_is_not_free() {
        let call = |act| SpeechAct { is_call: true, ..speech(OUTSIDE, "desk", act, "1", None, 1) };
        let proposed = speech("desk", OUTSIDE, Propose, "2", Some("1"), 2);
        let in_protocol = |speech: SpeechAct<'static>, protocol| SpeechAct { protocol: Some(protocol), ..speech };
        for (name, messages, desk, billing) in [
            ("informed from outside", vec![speech(OUTSIDE, "desk", Inform, "1", None, 1)], false, false),
            ("asked from outside without a call", vec![speech(OUTSIDE, "desk", Request, "1", None, 1)], false, false),
            ("called", vec![call(Request)], true, false),
            ("asks", vec![speech("desk", "billing", QueryRef, "1", None, 1)], true, true),
            (
                "was answered",
                vec![
                    speech("desk", "billing", QueryRef, "1", None, 1),
                    speech("billing", "desk", InformRef, "2", Some("1"), 2),
                ],
                false,
                false,
            ),
            ("asks its caller", vec![call(Cfp), proposed], true, false),
            (
                "is answered by its caller",
                vec![call(Cfp), proposed, speech(OUTSIDE, "desk", Inform, "3", None, 3)],
                false,
                false,
            ),
            (
                "in a protocol with a caller outside",
                vec![
                    in_protocol(call(Request), "fipa-request"),
                    in_protocol(speech("desk", OUTSIDE, Agree, "2", Some("1"), 2), "fipa-request"),
                ],
                true,
                false,
            ),
            (
                "in a protocol begun outside without a call",
                vec![in_protocol(speech(OUTSIDE, "desk", Request, "1", None, 1), "fipa-request")],
                false,
                false,
            ),
            (
                "agreed and owes the result",
                vec![
                    in_protocol(speech("desk", "billing", Request, "1", None, 1), "fipa-request"),
                    in_protocol(speech("billing", "desk", Agree, "2", Some("1"), 2), "fipa-request"),
                ],
                true,
                true,
            ),
        ] {
            let conversation = conversation(&messages);
            assert_eq!(
                (conversation.has_open_exchange("desk", None), conversation.has_open_exchange("billing", None)),
                (desk, billing),
                "{name}"
            );
        }
        let asked = conversation(&[speech("desk", "billing", QueryRef, "1", None, 1)]);
        assert!(!asked.has_open_exchange("billing", Some("1")) && !asked.has_open_exchange("archive", None));
    }

    #[test]
    fn an_open_question_binds_up_to_its_answer() {
        let mut talk = conversation(&[speech(OUTSIDE, "desk", Inform, "1", None, 1)]);
        assert!(!talk.bind("desk", 1, 2, None, false), "nothing is open");
        assert_eq!(talk.bound_revision("desk", "1", 1), None);
        talk.record(&speech("desk", "billing", QueryRef, "2", None, 2), 10).unwrap();
        assert!(talk.bind("desk", 1, 2, None, false));
        assert!(!talk.bind("desk", 1, 2, None, false), "it is kept already");
        talk.record(&speech(OUTSIDE, "desk", Inform, "3", None, 5), 10).unwrap();
        assert_eq!(talk.bound_revision("desk", "3", 5), Some(1));
        talk.record(&speech("billing", "desk", InformRef, "4", Some("2"), 7), 10).unwrap();
        let talk: Conversation = serde_json::from_str(&serde_json::to_string(&talk).unwrap()).unwrap();
        assert_eq!(talk.bound_revision("desk", "4", 7), Some(1), "the answer itself");
        assert_eq!(talk.bound_revision("desk", "5", 8), None, "and what comes after it is free");
        assert_eq!(talk.bound_revision("billing", "2", 2), None);
    }

    #[test]
    fn a_question_in_flight_does_not_bind_itself() {
        let mut talk = conversation(&[speech("desk", "billing", QueryRef, "1", None, 1)]);
        assert!(!talk.bind("billing", 1, 2, Some("1"), false), "it is being answered");
        // Handled without an answer, which comes later.
        assert!(talk.bind("billing", 1, 2, None, false));
        talk.record(&speech("desk", "billing", QueryRef, "2", None, 9), 10).unwrap();
        assert_eq!(talk.bound_revision("billing", "2", 9), Some(1));
        talk.record(&speech("billing", "desk", InformRef, "3", Some("1"), 10), 10).unwrap();
        talk.record(&speech("billing", "desk", InformRef, "4", Some("2"), 11), 10).unwrap();
        talk.record(&speech("desk", "billing", QueryRef, "5", None, 12), 10).unwrap();
        talk.record(&speech("desk", "billing", Inform, "6", None, 13), 10).unwrap();
        for (key, at) in [("5", 12), ("6", 13)] {
            assert_eq!(talk.bound_revision("billing", key, at), None, "what was open before holds no new question");
        }
        assert!(talk.bind("billing", 2, 14, None, false));
        assert_eq!(talk.bound_revision("billing", "6", 13), Some(2));
    }

    #[test]
    fn a_record_without_bindings_is_read() {
        let old = r#"{"name":"c","initiator":"desk","participants":["billing","desk"],"protocol":null,"runs":[],"first":1,
            "last":2,"messages":2,"unanswered":[{"key":"1","from":"desk","to":"billing"}]}"#;
        let talk: Conversation = serde_json::from_str(old).unwrap();
        assert!(talk.has_open_exchange("desk", None) && talk.bindings.is_empty());
        let free = Conversation::new("c", "desk", 1);
        assert!(!serde_json::to_string(&free).unwrap().contains("stays"));
    }
}
