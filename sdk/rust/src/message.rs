//! The parts of a received message.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;

use crate::{Failure, Message};

/// The header with the name of a timer.
pub(crate) const TIMER: &str = "timer";

impl Message {
    /// Returns the name of the timer that sent this message; `None` if it is no timer's message, or the timer has no
    /// name.
    pub fn timer(&self) -> Option<&str> {
        self.header(TIMER)
    }

    /// Parses the content as JSON, regardless of its media type.
    ///
    /// # Errors
    /// A failure with the cause `rejected`, since the same bytes will never be readable.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        // Regardless of the media type, because clients such as `curl` send their default one.
        serde_json::from_slice(&self.content)
            .map_err(|error| Failure::rejected(format!("the content is not as expected: {error}")))
    }

    /// Returns the content as UTF-8 text, regardless of its media type.
    ///
    /// # Errors
    /// A failure with the cause `rejected`, since the same bytes will never be readable.
    pub fn text(&self) -> Result<&str, Failure> {
        std::str::from_utf8(&self.content)
            .map_err(|error| Failure::rejected(format!("the content is not UTF-8 text: {error}")))
    }

    /// Returns the first header of this name, which has to be in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        // No conversion of case: the host stores the names in lower case.
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Returns the time after which an answer is of no use, if the sender set one.
    pub fn deadline(&self) -> Option<SystemTime> {
        self.reply_by.map(|millis| UNIX_EPOCH + Duration::from_millis(millis))
    }

    /// Returns the `in-reply-to` for an answer to this message: its `reply-with`, or else its id.
    pub fn reference(&self) -> &str {
        // The id as a fallback, so that an answer is matched also if the sender set no reference.
        self.reply_with.as_deref().unwrap_or(&self.id)
    }

    /// Returns the key after the agent's name in the receiver, if there is one.
    pub fn key(&self) -> Option<&str> {
        self.receiver.split_once('/').map(|(_, key)| key)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::{Cause, Message, Performative, Priority};

    /// A message with this content and typical values in all other fields.
    pub(crate) fn message(content: &[u8]) -> Message {
        Message {
            id: String::from("m1"),
            performative: Performative::Request,
            sender: String::from("ann"),
            receiver: String::from("shop/7"),
            content: content.to_vec(),
            content_type: String::from("application/json"),
            ontology: None,
            protocol: None,
            conversation_id: String::from("c1"),
            reply_with: None,
            in_reply_to: None,
            reply_by: None,
            priority: Priority::Normal,
            sent_at: 0,
            attempt: 1,
            headers: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
        }
    }

    #[test]
    fn unreadable_content_is_rejected() {
        let rows: [&[u8]; 4] = [b"", b"{", b"\"x\"", b"\xff"];
        for content in rows {
            let failure = message(content).json::<u32>().unwrap_err();
            assert_eq!(failure.cause, Cause::Rejected, "{content:?}");
        }
        assert_eq!(message(b"7").json::<u32>(), Ok(7));
        assert_eq!(message(b"\xff").text().unwrap_err().cause, Cause::Rejected);
        assert_eq!(message(b"ok").text(), Ok("ok"));
    }

    #[test]
    fn parts_are_found() {
        let mut message = message(b"");
        assert_eq!((message.header("a"), message.header("b")), (Some("1"), None));
        assert_eq!((message.key(), message.reference()), (Some("7"), "m1"));
        message.reply_with = Some(String::from("r1"));
        assert_eq!(message.reference(), "r1");
    }
}
