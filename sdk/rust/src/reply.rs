//! Replies to the message being handled. The host adds receiver, conversation, protocol and `in-reply-to`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::{Failure, JSON, Performative, Reply, TEXT};

/// The header that carries the status of a reply.
const STATUS: &str = "caxton-status";

impl Reply {
    /// Creates an `inform` with these bytes as its content.
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

    /// Creates an `inform` with this text as its content.
    pub fn text(text: impl Into<String>) -> Self {
        Self::bytes(text.into(), TEXT)
    }

    /// Creates an `inform` with this value as JSON.
    ///
    /// # Errors
    /// A failure with the cause `fault`, if the value cannot be written as JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, Failure> {
        Ok(Self::bytes(serde_json::to_vec(value)?, JSON))
    }

    /// Creates a `refuse`: the request is understood and declined, with the reason as text.
    pub fn refuse(reason: impl Into<String>) -> Self {
        Self::text(reason).performative(Performative::Refuse)
    }

    /// Creates a `not-understood`, with the reason as text.
    pub fn not_understood(reason: impl Into<String>) -> Self {
        Self::text(reason).performative(Performative::NotUnderstood)
    }

    /// Sets the performative, the communicative act of the reply.
    #[must_use]
    pub fn performative(mut self, performative: Performative) -> Self {
        self.performative = performative;
        self
    }

    /// Sets the status for a caller over HTTP, from 200 to 599; by default it follows from the performative. The
    /// message counts as handled with any status. Other senders see it as the header `caxton-status`.
    ///
    /// ```
    /// use caxton_sdk::Reply;
    ///
    /// let reply = Reply::refuse("no such ticket").status(404);
    /// ```
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        // A reply has one status, so the last call counts.
        self.headers.retain(|(name, _)| name != STATUS);
        self.header(STATUS, status.to_string())
    }

    /// Sets the name of the vocabulary that the content uses.
    #[must_use]
    pub fn ontology(mut self, ontology: impl Into<String>) -> Self {
        self.ontology = Some(ontology.into());
        self
    }

    /// Sets the reference that an answer to this reply has to carry in its `in-reply-to`.
    #[must_use]
    pub fn reply_with(mut self, reference: impl Into<String>) -> Self {
        self.reply_with = Some(reference.into());
        self
    }

    /// Sets the time after which an answer to this reply is of no use.
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

/// Converts to milliseconds since 1970, and to 0 before that.
pub(crate) fn millis(time: SystemTime) -> u64 {
    // Times before 1970 are over in any case, as 0 is.
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use crate::Reply;

    #[test]
    fn the_last_status_counts() {
        let reply = Reply::text("none").header("a", "1").status(404).status(410);
        let headers: Vec<(&str, &str)> = reply.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(headers, [("a", "1"), ("caxton-status", "410")]);
    }
}
