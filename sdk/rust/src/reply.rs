//! Answering the message being handled. The host adds receiver, conversation, protocol and `in-reply-to`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::{Failure, JSON, Performative, Reply, TEXT};

/// The header by which a reply says its status.
const STATUS: &str = "caxton-status";

impl Reply {
    /// An `inform` with these bytes as its content.
    pub fn bytes(content: impl Into<Vec<u8>>, content_type: impl Into<String>) -> Self {
        Self {
            performative: Performative::Inform,
            content: content.into(),
            content_type: content_type.into(),
            ontology: None,
            reply_with: None,
            reply_by: None,
            headers: Vec::new(),
        }
    }

    /// An `inform` with this text as its content.
    pub fn text(text: impl Into<String>) -> Self {
        Self::bytes(text.into(), TEXT)
    }

    /// An `inform` with this value as JSON.
    ///
    /// # Errors
    /// A failure with the cause `fault`, when the value has no form in JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, Failure> {
        Ok(Self::bytes(serde_json::to_vec(value)?, JSON))
    }

    /// A `refuse`: the request is understood and declined, with the reason as text.
    pub fn refuse(reason: impl Into<String>) -> Self {
        Self::text(reason).performative(Performative::Refuse)
    }

    /// A `not-understood`, with the reason as text.
    pub fn not_understood(reason: impl Into<String>) -> Self {
        Self::text(reason).performative(Performative::NotUnderstood)
    }

    /// Says what the answer means to do.
    #[must_use]
    pub fn performative(mut self, performative: Performative) -> Self {
        self.performative = performative;
        self
    }

    /// Sets the status that a caller over HTTP gets, from 200 to 599; without it the performative decides. Whether the
    /// message counts as handled does not depend on it, and who asked another way sees it as the header `caxton-status`.
    ///
    /// ```
    /// use caxton_sdk::Reply;
    ///
    /// let reply = Reply::refuse("no such ticket").status(404);
    /// ```
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.headers.retain(|(name, _)| name != STATUS);
        self.header(STATUS, status.to_string())
    }

    /// Names the vocabulary that the content uses.
    #[must_use]
    pub fn ontology(mut self, ontology: impl Into<String>) -> Self {
        self.ontology = Some(ontology.into());
        self
    }

    /// Says what an answer to this answer is to carry in its `in-reply-to`.
    #[must_use]
    pub fn reply_with(mut self, reference: impl Into<String>) -> Self {
        self.reply_with = Some(reference.into());
        self
    }

    /// Says when an answer to this answer is of no use any more.
    #[must_use]
    pub fn reply_by(mut self, time: SystemTime) -> Self {
        self.reply_by = Some(millis(time));
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// A time as the contract counts it: milliseconds since 1970, and 0 before that.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use crate::Reply;

    #[test]
    fn the_status_that_is_said_last_is_the_one() {
        let reply = Reply::text("none").header("a", "1").status(404).status(410);
        let headers: Vec<(&str, &str)> = reply.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(headers, [("a", "1"), ("caxton-status", "410")]);
    }
}
