//! A ticket as it comes in: plain text, a mail with its head, or JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A first line longer than this is the beginning of the text and not its subject.
const LONGEST_SUBJECT: usize = 120;

/// The part of a body that is passed on, in bytes: a call to the desks stays well below the limit of a message.
const LONGEST_BODY: usize = 16 * 1024;

/// A request for help.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    pub subject: String,
    #[serde(alias = "text", alias = "message", default)]
    pub body: String,
    #[serde(default)]
    pub from: Option<String>,
}

/// The reason why a ticket cannot be read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TicketError {
    Empty,
}

impl fmt::Display for TicketError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => formatter
                .write_str("a ticket needs text: post what is wrong, as plain text or as {\"subject\", \"body\"}"),
        }
    }
}

impl Ticket {
    /// Reads plain text. Lines such as `Subject: ...` and `From: ...` before the first empty line are its head;
    /// without one, a short first line is the subject, and else the first sentence is.
    ///
    /// # Errors
    /// The text is empty.
    pub fn from_text(text: &str) -> Result<Self, TicketError> {
        let text = text.replace("\r\n", "\n");
        let (subject, from, body) = match read_head(&text) {
            Some((subject, from, body)) => (subject, from, body),
            None => (None, None, text.trim()),
        };
        let (subject, body) = match subject {
            Some(subject) => (subject, body),
            None => split_subject(body),
        };
        Self { subject: subject.to_owned(), body: body.to_owned(), from: from.map(str::to_owned) }.checked()
    }

    /// The ticket with no more of its body than a desk needs.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        self.body.truncate(cut(&self.body, LONGEST_BODY).len());
        self
    }

    /// A ticket that has text; its parts without the white space around them.
    ///
    /// # Errors
    /// It has none.
    pub fn checked(mut self) -> Result<Self, TicketError> {
        self.subject = self.subject.trim().to_owned();
        self.body = self.body.trim().to_owned();
        self.from = self.from.map(|from| from.trim().to_owned()).filter(|from| !from.is_empty());
        if self.subject.is_empty() && self.body.is_empty() {
            return Err(TicketError::Empty);
        }
        if self.subject.is_empty() {
            let (subject, _) = split_subject(&self.body);
            self.subject = subject.to_owned();
        }
        Ok(self)
    }
}

/// Splits a text into subject, sender and body; `None` if it does not begin with a head.
fn read_head(text: &str) -> Option<(Option<&str>, Option<&str>, &str)> {
    let (mut subject, mut from) = (None, None);
    let mut rest = text.trim_start();
    loop {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        if line.trim().is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "subject" => subject = Some(value.trim()),
            "from" => from = Some(value.trim()),
            "to" | "date" | "cc" | "reply-to" | "message-id" => {}
            _ => break,
        }
        rest = after;
    }
    (subject.is_some() || from.is_some()).then(|| (subject, from, rest.trim()))
}

/// The subject that a text without one has, and the text that is left.
fn split_subject(text: &str) -> (&str, &str) {
    let text = text.trim();
    if let Some((first, rest)) = text.split_once('\n')
        && first.trim().len() <= LONGEST_SUBJECT
    {
        return (first.trim(), rest.trim());
    }
    // The whole text stays: its first sentence may be all there is.
    (cut(text[..end_of_sentence(text)].trim(), LONGEST_SUBJECT), text)
}

fn end_of_sentence(text: &str) -> usize {
    let mut marks = text.match_indices(['.', '!', '?']).map(|(place, _)| place + 1);
    // A dot inside an address or a number ends nothing.
    marks.find(|end| text[*end..].starts_with(char::is_whitespace)).unwrap_or(text.len())
}

/// Returns the beginning of a text: at most this many bytes, and whole letters.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_plain_text() {
        type Parts<'a> = (&'a str, &'a str, Option<&'a str>);
        let rows: [(&str, Option<Parts>); 9] = [
            ("", None),
            (" \n\t ", None),
            ("Wifi is down", Some(("Wifi is down", "Wifi is down", None))),
            ("No wifi. It went at noon.", Some(("No wifi.", "No wifi. It went at noon.", None))),
            ("Host 10.0.0.1 is gone? Yes", Some(("Host 10.0.0.1 is gone?", "Host 10.0.0.1 is gone? Yes", None))),
            ("No wifi\n\nIt went at noon.\n", Some(("No wifi", "It went at noon.", None))),
            (
                "Subject: No wifi\r\nFrom: ann@example.org\r\n\r\nSince noon.",
                Some(("No wifi", "Since noon.", Some("ann@example.org"))),
            ),
            ("From: ann\n\nNo wifi\nSince noon.", Some(("No wifi", "Since noon.", Some("ann")))),
            ("Hello: this is no head", Some(("Hello: this is no head", "Hello: this is no head", None))),
        ];
        for (text, expected) in rows {
            let ticket = Ticket::from_text(text).ok();
            let found =
                ticket.as_ref().map(|ticket| (ticket.subject.as_str(), ticket.body.as_str(), ticket.from.as_deref()));
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn cuts_a_long_first_line_between_letters() {
        let ticket = Ticket::from_text(&"ä".repeat(500)).expect("it has text");
        assert_eq!(ticket.subject.chars().count(), LONGEST_SUBJECT / 2);
    }
}
