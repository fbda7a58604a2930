//! The bounds of the texts that guests and callers name.
//!
//! A text is bounded where it enters the host, so that no message, event, log line, dead letter or response holds more
//! of it. A text for a person is [cut]. A text that is compared, such as an id, is refused: its beginning would be
//! another id. Contents, values, bodies and the heads of requests have settings of their own (`limits.message`,
//! `limits.state`, `http.max-body`, `http.max-head`).

use std::borrow::Cow;

/// The reason of a failure, in characters (SPEC §7): of a handler, a migration, a health check or a snapshot; and the
/// message of a trap.
pub(crate) const REASON: usize = 1_000;
/// The error of an attempt or of a start, in characters: a reason, with the backtrace and the last lines on stderr.
pub(crate) const ERROR: usize = 8_192;
/// The content type, the ontology, the protocol and the name of a timer, in bytes (SPEC §7).
pub(crate) const WORD: usize = 100;
/// An id of a conversation, a `reply-with`, an `in-reply-to` and an idempotency key, in bytes.
pub(crate) const ID: usize = 256;
/// The receiver of a draft, in bytes: a name has 63, and a key may follow.
pub(crate) const RECEIVER: usize = 512;
/// The number of headers of a message.
pub(crate) const HEADERS: usize = 64;
/// The bytes of all headers of a message that an agent sends.
pub(crate) const HEADER_BYTES: usize = 16 << 10;
/// The method of a request, in bytes: it is part of the sender of a message, which conversations keep. The longest of the
/// registered ones has 17.
pub(crate) const METHOD: usize = 32;
/// The context of a log line, in characters.
pub(crate) const LOG_CONTEXT: usize = 100;
/// The text of a log line, in characters.
pub(crate) const LOG_TEXT: usize = 8_192;
/// The name of a function, a module or a source file in a backtrace, in characters.
pub(crate) const FRAME_NAME: usize = 300;
/// The bytes in which a name is demangled: mangled names may refer to their own parts, and so expand without bound.
pub(crate) const DEMANGLED: usize = 16 << 10;
/// A text of a guest or caller that is quoted in an error or a log line, in characters.
pub(crate) const QUOTED: usize = 200;
/// The bytes of one response of the management API that lists things. A page ends before it exceeds them.
pub(crate) const PAGE_BYTES: usize = 4 << 20;

/// The end of a text that was cut.
const ELLIPSIS: &str = "...";

/// Cuts a text to a number of characters, the last of which then say that it was cut.
pub(crate) fn cut(mut text: String, most: usize) -> String {
    // A text with no more bytes than that has no more characters, and most texts are short.
    if text.len() <= most {
        return text;
    }
    let at = |count: usize| text.char_indices().nth(count).map(|(at, _)| at);
    if at(most).is_some() {
        let end = at(most.saturating_sub(ELLIPSIS.len())).unwrap_or_default();
        text.truncate(end);
        text.push_str(ELLIPSIS);
    }
    // A guest may return as much as its memory holds, and this text may be kept for long.
    text.shrink_to_fit();
    text
}

/// Returns the beginning of a text, of at most so many characters.
pub(crate) fn beginning(text: &str, most: usize) -> &str {
    match text.char_indices().nth(most) {
        Some((end, _)) if text.len() > most => &text[..end],
        _ => text,
    }
}

/// Quotes a text of a guest or caller: cut, with characters escaped that would control a terminal.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted: String = beginning(text, QUOTED).escape_debug().collect();
    if beginning(text, QUOTED).len() < text.len() {
        quoted.push_str(ELLIPSIS);
    }
    quoted
}

/// Returns `true` for a character that changes the direction or the order of what follows, or breaks the line: a text with
/// one is shown as another.
pub(crate) fn changes_direction(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes what controls a terminal or changes the direction of a text, but tabs and line feeds. For texts that the host
/// makes for people, which quote guests, callers and files.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| (!c.is_control() && !changes_direction(c)) || c == '\t' || c == '\n';
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_plain(c) { shown.push(c) } else { shown.extend(c.escape_default()) }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_by_characters() {
        for (text, most, expected) in [
            ("short", 9, "short"),
            ("short", 5, "short"),
            ("longer", 5, "lo..."),
            ("üüüüü", 5, "üüüüü"),
            ("üüüüüü", 5, "üü..."),
            ("longer", 2, "..."),
            ("", 0, ""),
        ] {
            assert_eq!(cut(text.to_owned(), most), expected, "{text} in {most}");
        }
        assert!(cut("x".repeat(1 << 20), REASON).capacity() < 2 * REASON);
    }

    #[test]
    fn plain_texts_neither_move_a_cursor_nor_turn_around() {
        for (text, expected) in [
            ("a\tb\nc", "a\tb\nc"),
            ("grün", "grün"),
            ("a\u{202e}b\u{2066}c\u{200f}d\u{2028}e", "a\\u{202e}b\\u{2066}c\\u{200f}d\\u{2028}e"),
            ("\u{1b}[2J\r\u{9b}", "\\u{1b}[2J\\r\\u{9b}"),
        ] {
            assert_eq!(plain(text), expected, "{text:?}");
        }
    }

    #[test]
    fn quoted_texts_are_short_and_plain() {
        assert_eq!(quoted("a\u{1b}[2J\u{202e}"), "a\\u{1b}[2J\\u{202e}");
        assert_eq!(quoted(&"z".repeat(QUOTED)), "z".repeat(QUOTED));
        assert_eq!(quoted(&"z".repeat(QUOTED + 1)), "z".repeat(QUOTED) + "...");
    }
}
