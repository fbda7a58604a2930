//! Readers of JSON and of server-sent events that take bytes as they come and keep none but those of the value at hand.
//!
//! They find numbers by their path and judge nothing else: a text that is no JSON gives no numbers, or wrong ones, as a
//! server that lies could give as well.

use super::figures::{JsonStep, MeterFigures};

/// The deepest nesting that is followed. What is deeper is passed over.
const MAX_DEPTH: usize = 64;
/// The longest key that is compared, and the longest number.
const MAX_TEXT: usize = 256;

#[derive(Debug, Default)]
enum JsonToken {
    /// Between two tokens.
    #[default]
    Between,
    /// In a text. `is_escaped` is set after a backslash.
    Text { is_escaped: bool },
    /// In a number, `true`, `false` or `null`.
    Word,
}

/// A reader of one JSON text.
#[derive(Debug, Default)]
pub(super) struct JsonScan {
    path: Vec<JsonStep>,
    /// The depth beyond [`MAX_DEPTH`].
    beyond: u64,
    token: JsonToken,
    /// Set where a text is the key of an object's member.
    awaits_key: bool,
    /// The bytes of the key or number at hand, `None` if there are too many.
    text: Option<Vec<u8>>,
}

impl JsonScan {
    /// Reads the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8], found: &mut MeterFigures) {
        bytes.iter().for_each(|byte| self.step(*byte, found));
    }

    /// Ends the text.
    pub(super) fn end(&mut self, found: &mut MeterFigures) {
        // A number may be the last of it.
        self.step(b' ', found);
    }

    fn step(&mut self, byte: u8, found: &mut MeterFigures) {
        match &mut self.token {
            JsonToken::Text { is_escaped } => {
                let was_escaped = std::mem::replace(is_escaped, byte == b'\\' && !*is_escaped);
                if byte == b'"' && !was_escaped {
                    self.end_text();
                } else if self.awaits_key {
                    self.push(byte);
                }
            }
            JsonToken::Word if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.') => self.push(byte),
            JsonToken::Word => {
                self.end_word(found);
                self.between(byte);
            }
            JsonToken::Between => self.between(byte),
        }
    }

    fn between(&mut self, byte: u8) {
        match byte {
            b'"' => (self.token, self.text) = (JsonToken::Text { is_escaped: false }, Some(Vec::new())),
            b'{' => self.open(JsonStep::Key(None)),
            b'[' => self.open(JsonStep::Index(0)),
            b'}' | b']' => self.close(),
            b',' if self.beyond == 0 => match self.path.last_mut() {
                Some(JsonStep::Index(index)) => *index = index.saturating_add(1),
                Some(JsonStep::Key(_)) => self.awaits_key = true,
                None => {}
            },
            b'-' | b'0'..=b'9' | b'a'..=b'z' => {
                (self.token, self.text) = (JsonToken::Word, Some(Vec::new()));
                self.push(byte);
            }
            // Colons and white space.
            _ => {}
        }
    }

    fn open(&mut self, step: JsonStep) {
        if self.path.len() == MAX_DEPTH {
            self.beyond = self.beyond.saturating_add(1);
            self.awaits_key = false;
            return;
        }
        self.awaits_key = matches!(step, JsonStep::Key(_));
        self.path.push(step);
    }

    fn close(&mut self) {
        self.awaits_key = false;
        if self.beyond > 0 {
            self.beyond -= 1;
        } else {
            self.path.pop();
        }
    }

    fn push(&mut self, byte: u8) {
        let has_room = self.text.as_ref().is_some_and(|text| text.len() < MAX_TEXT);
        match &mut self.text {
            Some(text) if has_room => text.push(byte),
            _ => self.text = None,
        }
    }

    fn end_text(&mut self) {
        self.token = JsonToken::Between;
        if !std::mem::take(&mut self.awaits_key) {
            return;
        }
        let key = self.text.take().and_then(|raw| {
            // With its quotes, so that escapes are read as JSON has them.
            let quoted = [&b"\""[..], &raw, b"\""].concat();
            serde_json::from_slice::<String>(&quoted).ok()
        });
        if let Some(JsonStep::Key(member)) = self.path.last_mut() {
            *member = key;
        }
    }

    fn end_word(&mut self, found: &mut MeterFigures) {
        self.token = JsonToken::Between;
        let text = self.text.take().and_then(|raw| String::from_utf8(raw).ok());
        if self.beyond == 0 {
            // A number too long to be one of a figure is none.
            found.note(&self.path, text.as_deref().unwrap_or_default());
        }
    }
}

/// The field of an event that has its data.
const DATA: &[u8] = b"data";

#[derive(Debug, Default)]
enum EventLine {
    /// At the begin of a line.
    #[default]
    Begin,
    /// In the name of a field, of which so many bytes are those of `data`.
    Name(usize),
    /// Behind the colon of the field `data`, where a space is not part of it.
    Colon,
    /// In the data.
    Data,
    /// In another field or a comment.
    Other,
}

/// A reader of server-sent events, each of which may have a JSON text as its data.
#[derive(Debug, Default)]
pub(super) struct EventScan {
    json: JsonScan,
    line: EventLine,
    /// Set after a carriage return, with which a line feed is one end of a line.
    after_return: bool,
}

impl EventScan {
    /// Reads the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8], found: &mut MeterFigures) {
        for byte in bytes {
            let after_return = std::mem::replace(&mut self.after_return, *byte == b'\r');
            if *byte == b'\n' && after_return {
                continue;
            }
            match (&self.line, byte) {
                (EventLine::Begin, b'\n' | b'\r') => {
                    // An empty line ends the event.
                    self.end(found);
                    self.json = JsonScan::default();
                }
                (EventLine::Data | EventLine::Colon, b'\n' | b'\r') => {
                    self.json.feed(b"\n", found);
                    self.line = EventLine::Begin;
                }
                (EventLine::Name(_) | EventLine::Other, b'\n' | b'\r') => self.line = EventLine::Begin,
                (EventLine::Begin, byte) if *byte == DATA[0] => self.line = EventLine::Name(1),
                (EventLine::Name(known), b':') if *known == DATA.len() => self.line = EventLine::Colon,
                (EventLine::Name(known), byte) if DATA.get(*known) == Some(byte) => {
                    self.line = EventLine::Name(known + 1);
                }
                (EventLine::Begin | EventLine::Name(_) | EventLine::Other, _) => self.line = EventLine::Other,
                (EventLine::Colon, b' ') => self.line = EventLine::Data,
                (EventLine::Colon | EventLine::Data, byte) => {
                    self.line = EventLine::Data;
                    self.json.feed(&[*byte], found);
                }
            }
        }
    }

    /// Ends the stream.
    pub(super) fn end(&mut self, found: &mut MeterFigures) {
        self.json.end(found);
    }
}
