//! What a handler said and did, as it is compared.

use std::collections::BTreeMap;

use caxton_control::rollout::compare::{Answer, Content, Effect};

use crate::agent::delivery::reply;
use crate::wasm::{Effects, Fault, Outcome, act, wit};

/// What a handler said and did. `asked` are the questions for whose answers it waited.
pub(super) fn answer(
    result: &Result<Option<wit::Reply>, wit::Failure>,
    effects: &Effects,
    asked: Vec<Effect>,
) -> Answer {
    let (head, reply) = match result {
        Ok(Some(reply)) => (head(reply), Ok(Some(content(&reply.content, &reply.content_type)))),
        Ok(None) => (BTreeMap::new(), Ok(None)),
        // One that gave up leaves nothing behind.
        Err(failure) => {
            let why = reply::describe(&Outcome::Gave(failure.clone()));
            return Answer { head: BTreeMap::new(), reply: Err(why), effects: asked };
        }
    };
    Answer { head, reply, effects: effects_of(effects).into_iter().chain(asked).collect() }
}

/// What a handler did, but for its questions.
pub(super) fn effects_of(effects: &Effects) -> Vec<Effect> {
    let writes = effects.writes.iter().flat_map(|(key, value)| {
        let written = match value {
            Some(value) => Effect::Set { key: key.clone(), value: value.bytes.to_vec() },
            None => Effect::Delete { key: key.clone() },
        };
        // A time that the key had before is no doing of this handler.
        let given = value.as_ref().and_then(|value| value.expiry).and_then(|expiry| expiry.given);
        [Some(written), given.map(|for_ms| Effect::Expire { key: key.clone(), for_ms })].into_iter().flatten()
    });
    let adds = effects.adds.iter().map(|(key, by)| Effect::Increment { key: key.clone(), by: *by });
    let sends = effects.sends.iter().map(|sent| {
        let (message, due) = (&sent.envelope().message, sent.envelope().due);
        Effect::Send {
            receiver: message.receiver.clone(),
            performative: act(message.performative).to_string(),
            content: content(&message.content, &message.content_type),
            after_ms: due.map(|due| due.saturating_sub(message.sent_at)),
        }
    });
    let cancels = effects.cancels.iter().map(|cancel| Effect::Cancel { timer: cancel.timer.text().to_owned() });
    writes.chain(adds).chain(sends).chain(cancels).collect()
}

/// A call that brought no result. How a trap puts it may change with every build, so only what it was is compared.
pub(super) fn faulty(fault: &Fault) -> Answer {
    Answer { head: BTreeMap::new(), reply: Err(fault.code().to_owned()), effects: Vec::new() }
}

/// A question for whose answer a handler waits.
pub(super) fn question(draft: &wit::Draft) -> Effect {
    Effect::Request {
        receiver: draft.receiver.clone(),
        performative: act(draft.performative).to_string(),
        content: content(&draft.content, &draft.content_type),
    }
}

/// Bytes of an answer, about.
pub(super) fn size(answer: &Answer) -> usize {
    let content = |content: &Content| content.bytes.len() + content.content_type.len();
    let effects = answer.effects.iter().map(|effect| match effect {
        Effect::Set { key, value } => key.len() + value.len(),
        Effect::Delete { key }
        | Effect::Increment { key, .. }
        | Effect::Expire { key, .. }
        | Effect::Cancel { timer: key } => key.len(),
        Effect::Send { receiver, content: said, .. } | Effect::Request { receiver, content: said, .. } => {
            receiver.len() + content(said)
        }
    });
    let reply = match &answer.reply {
        Ok(said) => said.as_ref().map_or(0, content),
        Err(why) => why.len(),
    };
    reply + effects.sum::<usize>()
}

/// Bytes that effects would have in an answer.
pub(super) fn size_of(effects: &Effects) -> usize {
    let writes =
        effects.writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, |value| value.bytes.len()));
    let sends = effects.sends.iter().map(|sent| sent.envelope().message.content.len());
    writes.sum::<usize>() + sends.sum::<usize>()
}

/// The performative, the ontology and the headers of a reply.
pub(super) fn head(reply: &wit::Reply) -> BTreeMap<String, String> {
    let mut head = BTreeMap::from([("performative".to_owned(), act(reply.performative).to_string())]);
    if let Some(ontology) = &reply.ontology {
        head.insert("ontology".to_owned(), ontology.clone());
    }
    head.extend(reply.headers.iter().map(|(name, value)| (format!("headers/{name}"), value.clone())));
    head
}

pub(super) fn content(bytes: &[u8], content_type: &str) -> Content {
    Content { content_type: content_type.to_owned(), bytes: bytes.to_vec() }
}
