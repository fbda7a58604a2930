//! A parser of server-sent events (the HTML standard, section 9.2).

/// An event of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Frame {
    /// The type; empty for the default one.
    pub(super) event: String,
    /// The data lines, joined.
    pub(super) data: String,
}

/// A parser that keeps the incomplete rest of the stream.
#[derive(Debug, Default)]
pub(super) struct SseReader {
    bytes: Vec<u8>,
    frame: Frame,
}

impl SseReader {
    /// Appends a chunk and returns the events that are complete.
    pub(super) fn read(&mut self, chunk: &[u8]) -> Vec<Frame> {
        self.bytes.extend_from_slice(chunk);
        let mut frames = Vec::new();
        let mut start = 0;
        while let Some(length) = self.bytes[start..].iter().position(|byte| *byte == b'\n') {
            // Decoded line by line, because a chunk may end within a character.
            let line = String::from_utf8_lossy(&self.bytes[start..start + length]).into_owned();
            start += length + 1;
            frames.extend(self.line(line.trim_end_matches('\r')));
        }
        // The rest of an incomplete line stays for the next chunk.
        self.bytes.drain(..start);
        frames
    }

    /// Handles one line. An empty line ends an event.
    fn line(&mut self, line: &str) -> Option<Frame> {
        if line.is_empty() {
            let mut frame = std::mem::take(&mut self.frame);
            // The last line feed belongs to the framing (section 9.2.6).
            frame.data.pop();
            return (!frame.data.is_empty()).then_some(frame);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        // One space only: further ones belong to the value.
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.frame.event),
            "data" => {
                self.frame.data.push_str(value);
                self.frame.data.push('\n');
            }
            // Comments keep the connection alive. Ids and retry times are not used here.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_parsed_from_any_chunks() {
        let stream =
            ": hello\n\nid: 7\ndata: {\"a\":\"ä\"}\n\nevent: missed\r\ndata: 1\r\ndata: 2\r\n\r\n: bye\n\ndata: cut";
        let frame = |event: &str, data: &str| Frame { event: event.to_owned(), data: data.to_owned() };
        let expected = [frame("", "{\"a\":\"ä\"}"), frame("missed", "1\n2")];
        for size in [1, 2, 3, 7, 1_000] {
            let mut reader = SseReader::default();
            let frames: Vec<Frame> = stream.as_bytes().chunks(size).flat_map(|chunk| reader.read(chunk)).collect();
            assert_eq!(frames, expected, "in pieces of {size}");
        }
    }
}
