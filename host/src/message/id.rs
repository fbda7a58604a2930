//! Ids of messages.

use std::time::Duration;

use uuid::{ContextV7, Timestamp, Uuid};

use crate::clock;

/// Returns a new id: ordered by time and globally unique (RFC 9562, version 7).
pub(crate) fn new_id() -> String {
    thread_local! {
        // The context of the `uuid` crate is shared by all threads behind a lock.
        static CONTEXT: ContextV7 = const { ContextV7::new() };
    }
    let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
    let now = Duration::from_millis(clock::now_ms());
    let id = |context: &ContextV7| Uuid::new_v7(Timestamp::from_unix(context, now.as_secs(), now.subsec_nanos()));
    CONTEXT.with(id).hyphenated().encode_lower(&mut buffer).to_owned()
}

/// Returns `true` for a text in the form of a message id.
pub(crate) fn is_id(text: &str) -> bool {
    Uuid::try_parse(text).is_ok()
}
