//! Reading a message.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;

use crate::{Failure, Message};

impl Message {
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
