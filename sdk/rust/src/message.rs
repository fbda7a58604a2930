//! Reading a message.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;

use crate::{Failure, Message};

/// The header that names a timer.
pub(crate) const TIMER: &str = "timer";

impl Message {
    /// The name of the timer that this message is; none if it is none, or has no name.
    pub fn timer(&self) -> Option<&str> {
        self.header(TIMER)
    }

    /// The content read as JSON, whatever its media type says.
    ///
    /// # Errors
    /// A failure with the cause `rejected`, since the same bytes will never be readable.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.content)
            .map_err(|error| Failure::rejected(format!("the content is not as expected: {error}")))
    }

    /// The content read as UTF-8 text, whatever its media type says.
    ///
    /// # Errors
    /// A failure with the cause `rejected`, since the same bytes will never be readable.
    pub fn text(&self) -> Result<&str, Failure> {
        std::str::from_utf8(&self.content)
            .map_err(|error| Failure::rejected(format!("the content is not UTF-8 text: {error}")))
    }

    /// The first header of this name. Names are lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// When an answer is of no use any more.
    pub fn deadline(&self) -> Option<SystemTime> {
        self.reply_by.map(|millis| UNIX_EPOCH + Duration::from_millis(millis))
    }

    /// What an answer to this message carries in its `in-reply-to`: its `reply-with`, or else its id.
    pub fn reference(&self) -> &str {
        self.reply_with.as_deref().unwrap_or(&self.id)
    }

    /// The key that follows the agent's name in the receiver, if one does.
    pub fn key(&self) -> Option<&str> {
        self.receiver.split_once('/').map(|(_, key)| key)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::{Cause, Message, Performative, Priority};

    /// A message with this content, and something in every other field that most messages have.
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
    fn content_that_cannot_be_read_is_the_message_s_fault() {
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
