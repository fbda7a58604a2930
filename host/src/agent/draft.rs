//! Checks of a message's fields: lengths, characters, times.

use caxton_control::desired::Limits;

use super::AdmitError;
use crate::bounds::{self, HEADERS, ID, WORD};
use crate::clock;
use crate::message::{Delivery, Draft, is_id};

/// The longest delay of a message in milliseconds: ten years.
const MAX_DELAY: u64 = 10 * 366 * 24 * 60 * 60 * 1_000;

/// The shortest wait of a timer to oneself that begins a chain of messages of its own, in milliseconds: what comes once a
/// second by itself is a clock and no loop.
const PERIOD: u64 = 1_000;

/// The header that names a message which is sent for later.
const TIMER: &str = "timer";

/// Returns the name of a message that is sent for later, if it has one.
pub(crate) fn timer_name(draft: &Draft) -> Result<Option<String>, AdmitError> {
    if matches!(draft.delivery, Delivery::Now) {
        return Ok(None);
    }
    let Some((_, name)) = draft.headers.iter().find(|(name, _)| name == TIMER) else { return Ok(None) };
    // Not an id: `cancel` takes either, and could not tell them apart.
    if name.is_empty() || name.len() > WORD || is_id(name) {
        let what = format!("the header `{TIMER}` has to have 1 to {WORD} characters, and not the form of an id");
        return Err(AdmitError::Invalid(what));
    }
    Ok(Some(name.clone()))
}

/// Returns true if a timer to oneself with this delivery begins a chain of messages.
pub(crate) fn begins_chain(delivery: &Delivery, now: u64) -> bool {
    match delivery {
        Delivery::Now => false,
        Delivery::AfterMs(after) => *after >= PERIOD,
        Delivery::AtMs(at) => *at >= now.saturating_add(PERIOD),
    }
}

/// Returns the time of a delivery that is not at once: by the steady clock, and by the wall clock if that was named.
pub(crate) fn due(delivery: Delivery) -> Result<(Option<u64>, Option<u64>), AdmitError> {
    let (wait, at) = match delivery {
        Delivery::Now => return Ok((None, None)),
        Delivery::AfterMs(after) => (after, None),
        Delivery::AtMs(at) => (at.saturating_sub(clock::now_ms()), Some(at)),
    };
    if wait > MAX_DELAY {
        return Err(AdmitError::Invalid("`delivery` may be at most ten years ahead".to_owned()));
    }
    // A time in the past is now, and no timer.
    let due = (wait > 0).then(|| clock::steady_ms().saturating_add(wait));
    Ok((due, at.filter(|_| due.is_some())))
}

pub(crate) fn check_draft(draft: &Draft, limits: &Limits) -> Result<(), AdmitError> {
    if draft.content.len() as u64 > limits.message_bytes {
        return Err(AdmitError::TooLarge { limit: limits.message_bytes });
    }
    check_receiver(&draft.receiver)?;
    check_words(&draft.content_type, draft.ontology.as_deref(), draft.protocol.as_deref())?;
    // An empty one begins a conversation.
    let conversation = draft.conversation_id.as_deref().filter(|id| !id.is_empty());
    check_ids([conversation, draft.reply_with.as_deref(), draft.in_reply_to.as_deref()])?;
    check_headers(&draft.headers)?;
    Ok(())
}

/// Checks the length of a receiver. An error that names it goes back to the sender, and into its log.
fn check_receiver(receiver: &str) -> Result<(), AdmitError> {
    if receiver.len() > bounds::RECEIVER {
        let what = format!("`receiver` may have {} bytes; it has {}", bounds::RECEIVER, receiver.len());
        return Err(AdmitError::Invalid(what));
    }
    Ok(())
}

pub(crate) fn check_words(
    content_type: &str,
    ontology: Option<&str>,
    protocol: Option<&str>,
) -> Result<(), AdmitError> {
    for (name, value) in [("content-type", Some(content_type)), ("ontology", ontology), ("protocol", protocol)] {
        let Some(value) = value else { continue };
        if value.is_empty() || value.len() > WORD || value.chars().any(char::is_control) {
            let what = format!("`{name}` has to have 1 to {WORD} printable characters; it has {}", value.len());
            return Err(AdmitError::Invalid(what));
        }
    }
    Ok(())
}

pub(crate) fn check_ids<const N: usize>(ids: [Option<&str>; N]) -> Result<(), AdmitError> {
    for id in ids.into_iter().flatten() {
        if id.is_empty() || id.len() > ID || id.chars().any(char::is_control) {
            let what = format!("an id has to have 1 to {ID} printable characters; one has {}", id.len());
            return Err(AdmitError::Invalid(what));
        }
    }
    Ok(())
}

pub(crate) fn check_headers(headers: &[(String, String)]) -> Result<(), AdmitError> {
    check_headers_within(headers, bounds::HEADER_BYTES)
}

/// Checks the headers of a message from outside, which are part of a request's head: `http.max-head` bounds their size.
pub(crate) fn check_arrived(headers: &[(String, String)]) -> Result<(), AdmitError> {
    check_headers_within(headers, usize::MAX)
}

fn check_headers_within(headers: &[(String, String)], most: usize) -> Result<(), AdmitError> {
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if headers.len() > HEADERS || bytes > most {
        let what =
            format!("`headers` may have {HEADERS} entries of {most} bytes in all; it has {} of {bytes}", headers.len());
        return Err(AdmitError::Invalid(what));
    }
    let bad = |name: &str| {
        name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase() && b != b':')
    };
    if let Some((name, _)) = headers.iter().find(|(name, value)| bad(name) || value.chars().any(char::is_control)) {
        let name = bounds::quoted(name);
        let what = format!("the header `{name}` is not a lower-case name with a printable value");
        return Err(AdmitError::Invalid(what));
    }
    Ok(())
}
