//! The percent-encoding of paths: normal form and decoding.

use std::borrow::Cow;

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// Returns the path in the normal form of RFC 3986, section 6.2.2: hex digits in upper case, unreserved characters
/// decoded. Routes are stored in this form. Most paths have it already and are not copied.
pub(super) fn normal(path: &str) -> Cow<'_, str> {
    // The usual case allocates nothing.
    if path.bytes().all(|byte| byte != b'%' && byte.is_ascii()) {
        return Cow::Borrowed(path);
    }
    let mut text = String::with_capacity(path.len() + 8);
    let mut rest = path.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match encoded(*byte, tail) {
            Some(byte) => {
                rest = &tail[2..];
                // Reserved characters stay encoded: `%2F` is part of a segment and separates nothing.
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    text.push(char::from(byte));
                } else {
                    encode(byte, &mut text);
                }
            }
            None if byte.is_ascii() => text.push(char::from(*byte)),
            // Not allowed in a URI, but sent by some clients as it is.
            None => encode(*byte, &mut text),
        }
    }
    Cow::Owned(text)
}

/// Returns the path without dot segments (RFC 3986, section 5.2.4), or `None` if it has none. `%2e` is a dot as well.
pub(super) fn without_dots(path: &str) -> Option<String> {
    if !path.split('/').any(|part| is_dots(part).is_some()) {
        return None;
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut parts = path.split('/').skip(usize::from(path.starts_with('/'))).peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        match is_dots(part) {
            None => kept.push(part),
            Some(dots) => {
                // Above the root is the root.
                if dots == Dots::Parent {
                    kept.pop();
                }
                // What remains is a folder, whose path ends with a slash.
                if is_last {
                    kept.push("");
                }
            }
        }
    }
    Some(format!("/{}", kept.join("/")))
}

/// Returns the path in normal form and without dot segments, as agents are looked up by.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn plain_path(path: &str) -> String {
    let dotless = without_dots(path).unwrap_or_else(|| path.to_owned());
    normal(&dotless).into_owned()
}

/// A segment of dots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dots {
    /// `.`
    Same,
    /// `..`
    Parent,
}

fn is_dots(part: &str) -> Option<Dots> {
    // Longer than the longest form, `%2e%2e`: no other segment is decoded.
    if part.is_empty() || part.len() > 6 {
        return None;
    }
    let mut rest = part;
    let mut dots = 0;
    while !rest.is_empty() {
        rest = [".", "%2e", "%2E"].iter().find_map(|dot| rest.strip_prefix(dot))?;
        dots += 1;
    }
    match dots {
        1 => Some(Dots::Same),
        2 => Some(Dots::Parent),
        _ => None,
    }
}

fn encode(byte: u8, text: &mut String) {
    text.push('%');
    text.push(char::from(DIGITS[usize::from(byte >> 4)]));
    text.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// Returns the byte encoded by `%` and the two hex digits at the start of `tail`.
fn encoded(percent: u8, tail: &[u8]) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match tail {
        [high, low, ..] if percent == b'%' => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    }
}

/// Returns the decoded text of a path segment; `None` if it is not UTF-8 or has control characters.
pub(super) fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [byte, tail @ ..] = rest {
        let decoded = encoded(*byte, tail);
        rest = if decoded.is_some() { &tail[2..] } else { tail };
        bytes.push(decoded.unwrap_or(*byte));
    }
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalized() {
        for (path, expected) in [
            ("/tickets/7", "/tickets/7"),
            ("/t%c3%bcr", "/t%C3%BCr"),
            ("/t%C3%BCr", "/t%C3%BCr"),
            ("/t\u{fc}r", "/t%C3%BCr"),
            ("/%74ickets%2f%7E", "/tickets%2F~"),
            ("/100%", "/100%"),
            ("/100%2", "/100%2"),
            ("/%zz", "/%zz"),
            ("/%25zz", "/%25zz"),
            ("", ""),
        ] {
            assert_eq!(normal(path), expected, "{path}");
        }
        assert!(matches!(normal("/tickets"), Cow::Borrowed(_)));
    }

    #[test]
    fn dot_segments_are_removed() {
        for (path, expected) in [
            ("/a/b/c/./../../g", Some("/a/g")),
            ("/a/..", Some("/")),
            ("/a/.", Some("/a/")),
            ("/../../etc", Some("/etc")),
            ("/open/%2e%2E/admin", Some("/admin")),
            ("/open/.%2e/admin", Some("/admin")),
            ("/.", Some("/")),
            ("/a//../b", Some("/a/b")),
            ("/a/.../b", None),
            ("/a/.hidden", None),
            ("/a%2Fb..", None),
            ("/%2e%2e%2e", None),
            ("/", None),
            ("*", None),
        ] {
            assert_eq!(without_dots(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn segments_are_decoded() {
        for (part, expected) in [
            ("7", Some("7")),
            ("J%C3%BCrgen", Some("J\u{fc}rgen")),
            ("a%2Fb%20c", Some("a/b c")),
            ("100%", Some("100%")),
            ("%FF", None),
            ("a%0Ab", None),
            ("%00", None),
        ] {
            assert_eq!(decoded(part).as_deref(), expected, "{part}");
        }
    }
}
