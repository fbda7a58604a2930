//! Server-sent events (the HTML standard, section 9.2): reading those of a response, and writing one.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::CallError;
use crate::Failure;

/// The media type of a stream of events.
pub const EVENT_STREAM: &str = "text/event-stream";

/// The largest event that is read by default, in bytes: a server must not fill the memory of the agent.
const MAX_EVENT: usize = 1 << 20;

/// A server-sent event. It displays in the form in which it is sent.
///
/// ```
/// use caxton_sdk::http::Event;
///
/// let event = Event::json(&["a", "b"]).unwrap().named("letters");
/// assert_eq!(event.to_string(), "event: letters\ndata: [\"a\",\"b\"]\n\n");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// The name; `None` means `message` to a browser.
    pub name: Option<String>,
    /// The data, which may have several lines.
    pub data: String,
    /// The id, which a client sends as `last-event-id` when it connects again.
    pub id: Option<String>,
    /// The time after which a client that lost the connection connects again.
    pub retry: Option<Duration>,
}

impl Event {
    /// Creates an event with this data and no name.
    pub fn text(data: impl Into<String>) -> Self {
        Self { data: data.into(), ..Self::default() }
    }

    /// Creates an event with a value as JSON and no name.
    ///
    /// # Errors
    /// A failure with the cause `fault`, if the value cannot be written as JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, Failure> {
        Ok(Self::text(serde_json::to_string(value)?))
    }

    /// Sets the name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the id.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Parses the data as JSON.
    ///
    /// # Errors
    /// A failure with the cause `fault`, if it is no such JSON.
    pub fn data_json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.data)
            .map_err(|error| Failure::fault(format!("the event is not as expected: {error}")))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (field, value) in [("event", &self.name), ("id", &self.id)] {
            if let Some(value) = value {
                // A line feed would begin another field, which the author of a name did not mean.
                writeln!(f, "{field}: {}", value.replace(['\n', '\r', '\0'], " "))?;
            }
        }
        if let Some(retry) = self.retry {
            writeln!(f, "retry: {}", retry.as_millis())?;
        }
        // All three ends of lines that a reader knows, so that none of them ends the event.
        for line in self.data.replace("\r\n", "\n").split(['\n', '\r']) {
            writeln!(f, "data: {line}")?;
        }
        f.write_str("\n")
    }
}

/// The events of a body, in the order in which they come. It waits for the next one; the end of the body, or an error,
/// ends it.
///
/// ```
/// use caxton_sdk::http::{Event, Events};
///
/// let body = ": a comment\n\nevent: tick\ndata: 1\ndata: 2\n\n";
/// let events: Vec<_> = Events::of(body.as_bytes()).collect();
/// assert_eq!(events, [Ok(Event::text("1\n2").named("tick"))]);
/// ```
pub struct Events<R> {
    from: BufReader<R>,
    max_bytes: usize,
    line: Vec<u8>,
    /// The bytes of the event that is being read.
    size: usize,
    /// Set after a line that ended with a carriage return: a line feed that follows belongs to it.
    after_return: bool,
    is_first_line: bool,
    last_id: Option<String>,
    has_ended: bool,
}

impl<R: Read> Events<R> {
    /// Reads the events of a body, with up to 1 MiB each.
    pub fn of(body: R) -> Self {
        Self {
            from: BufReader::new(body),
            max_bytes: MAX_EVENT,
            line: Vec::new(),
            size: 0,
            after_return: false,
            is_first_line: true,
            last_id: None,
            has_ended: false,
        }
    }

    /// Sets the largest event that is read, in bytes. A larger one is an error.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Returns the body. What was read ahead of it, up to 8 KiB, is lost; trailers are not.
    pub fn into_body(self) -> R {
        self.from.into_inner()
    }

    /// Reads a line without its end. Returns `false` at the end of the body.
    fn read_line(&mut self) -> Result<bool, CallError> {
        self.line.clear();
        loop {
            let bytes = match self.from.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(CallError::of_io(error)),
            };
            let Some(first) = bytes.first() else { return Ok(false) };
            // Skipped here and not after the return itself, where it would have to be waited for.
            if std::mem::take(&mut self.after_return) && *first == b'\n' {
                self.from.consume(1);
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &bytes[..end.unwrap_or(bytes.len())];
            self.size += part.len();
            if self.size > self.max_bytes {
                let detail = Some(format!("an event has more than {} bytes", self.max_bytes));
                return Err(CallError { code: "HTTP-response-body-size", detail });
            }
            self.line.extend_from_slice(part);
            self.after_return = end.is_some_and(|end| bytes[end] == b'\r');
            let taken = part.len() + usize::from(end.is_some());
            self.from.consume(taken);
            if end.is_some() {
                return Ok(true);
            }
        }
    }

    /// Reads an event; `None` at the end of the body. One that is not ended by an empty line is dropped, as the standard
    /// asks for: it may be cut.
    fn read_event(&mut self) -> Result<Option<Event>, CallError> {
        let (mut event, mut has_data) = (Event::default(), false);
        self.size = 0;
        while self.read_line()? {
            let line = String::from_utf8_lossy(&self.line);
            let line =
                if std::mem::take(&mut self.is_first_line) { line.trim_start_matches('\u{feff}') } else { &line };
            if line.is_empty() {
                if has_data {
                    event.id.clone_from(&self.last_id);
                    return Ok(Some(event));
                }
                (event, self.size) = (Event::default(), 0);
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => event.name = Some(value.to_owned()).filter(|name| !name.is_empty()),
                "data" => {
                    if std::mem::replace(&mut has_data, true) {
                        event.data.push('\n');
                    }
                    event.data.push_str(value);
                }
                // It stays for the events that follow, which is what a client asks to go on from.
                "id" if !value.contains('\0') => self.last_id = Some(value.to_owned()),
                "retry" => event.retry = value.parse().ok().map(Duration::from_millis),
                // Comments have no name before their colon, and unknown fields mean nothing.
                _ => {}
            }
        }
        Ok(None)
    }
}

impl<R: Read> Iterator for Events<R> {
    type Item = Result<Event, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let read = self.read_event().transpose();
        // Also after an error: what follows would be read from the middle of an event.
        self.has_ended = !matches!(read, Some(Ok(_)));
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body that comes in parts of one byte, so that every place of it is the end of a part once.
    struct ByteByByte<'a>(&'a [u8]);

    impl Read for ByteByByte<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let most = into.len().min(1);
            self.0.read(&mut into[..most])
        }
    }

    #[test]
    fn events_are_read_as_the_standard_has_them() {
        let event = Event::text;
        let rows: [(&str, Vec<Event>); 11] = [
            ("", vec![]),
            ("data: a\n\ndata: b\n\n", vec![event("a"), event("b")]),
            ("data: a\r\n\r\ndata: b\r\rdata: c\n\n", vec![event("a"), event("b"), event("c")]),
            ("\u{feff}data: a\n\n", vec![event("a")]),
            ("data: a\ndata:b\ndata:  c\ndata\n\n", vec![event("a\nb\n c\n")]),
            (": comment\n\nevent: x\n\ndata: a\n\n", vec![event("a")]),
            ("event: x\ndata: a\n\ndata: b\n\n", vec![event("a").named("x"), event("b")]),
            ("id: 7\ndata: a\n\ndata: b\n\n", vec![event("a").id("7"), event("b").id("7")]),
            ("retry: 10\ndata: a\nother: c\n\n", vec![Event { retry: Some(Duration::from_millis(10)), ..event("a") }]),
            ("data: a\n\ndata: cut", vec![event("a")]),
            ("data: a\n\ndata: cut\n", vec![event("a")]),
        ];
        for (body, expected) in rows {
            let whole: Vec<Event> = Events::of(body.as_bytes()).collect::<Result<_, _>>().unwrap();
            let parts: Vec<Event> = Events::of(ByteByByte(body.as_bytes())).collect::<Result<_, _>>().unwrap();
            assert_eq!((&whole, &parts), (&expected, &expected), "{body:?}");
        }
    }

    #[test]
    fn events_survive_being_written_and_read() {
        for event in [
            Event::text(""),
            Event::text("a\nb\n"),
            Event { retry: Some(Duration::from_secs(3)), ..Event::text("{}").named("n").id("1") },
        ] {
            let read: Vec<Event> = Events::of(event.to_string().as_bytes()).map(Result::unwrap).collect();
            assert_eq!(read, [event]);
        }
        // Nobody can put a second event into a name.
        assert_eq!(Event::text("a\rb").named("x\n\ndata: y").to_string(), "event: x  data: y\ndata: a\ndata: b\n\n");
    }

    #[test]
    fn an_event_beyond_its_bound_ends_the_stream() {
        let body = format!("data: a\n\ndata: {}\n\ndata: b\n\n", "x".repeat(100));
        let mut events = Events::of(body.as_bytes()).max_bytes(50);
        assert_eq!(events.next().unwrap().unwrap(), Event::text("a"));
        assert_eq!(events.next().unwrap().unwrap_err().code, "HTTP-response-body-size");
        assert_eq!(events.next(), None);
    }
}
