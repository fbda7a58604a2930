//! W3C trace context (Recommendation "Trace Context", level 1): read from callers and passed on.

use std::fmt;

/// The longest `tracestate` that is passed on, in bytes (section 3.3.1.5).
const MAX_STATE: usize = 512;

/// The position of a call in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    id: [u8; 16],
    span: [u8; 8],
    flags: u8,
    /// The `tracestate` of the caller, passed on unchanged.
    pub(crate) state: Option<String>,
}

impl Trace {
    /// Starts a new trace, not sampled.
    pub(crate) fn start() -> Self {
        Self { id: nonzero(), span: nonzero(), flags: 0, state: None }
    }

    /// Parses a `traceparent` header; `None` if it is invalid. An invalid `tracestate` is dropped.
    pub(crate) fn parse(header: &str, state: Option<&str>) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let (version, id, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let version: [u8; 1] = hex(version)?;
        // Version 00 has four parts; a later one may have more. 255 is forbidden.
        if version == [0xff] || (version == [0] && parts.next().is_some()) {
            return None;
        }
        let (id, span, [flags]) = (hex::<16>(id)?, hex::<8>(span)?, hex::<1>(flags)?);
        // The recommendation makes ids of zeros invalid.
        if id == [0; 16] || span == [0; 8] {
            return None;
        }
        // Dropped and not cut: a part of an entry would be invalid.
        let state = state.filter(|state| !state.is_empty() && state.len() <= MAX_STATE).map(str::to_owned);
        Some(Self { id, span, flags, state })
    }

    /// Returns a child: the same trace with a new span.
    pub(crate) fn child(&self) -> Self {
        Self { span: nonzero(), ..self.clone() }
    }

    /// Returns the ids of the trace and the span, and the flags.
    pub(crate) fn parts(&self) -> ([u8; 16], [u8; 8], u8) {
        (self.id, self.span, self.flags)
    }

    /// Creates a trace from its [parts](Self::parts).
    pub(crate) fn of((id, span, flags): ([u8; 16], [u8; 8], u8), state: Option<String>) -> Self {
        Self { id, span, flags, state }
    }

    /// Returns the id of the trace as 32 hexadecimal digits.
    pub(crate) fn id(&self) -> String {
        self.id.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Writes the value of a `traceparent` header.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        // Version 00 defines only the sampled flag; other bits must be 0.
        write!(f, "-{:02x}", self.flags & 1)
    }
}

/// Returns random bytes that are not all zero: the recommendation makes those invalid.
fn nonzero<const N: usize>() -> [u8; N]
where
    rand::distr::StandardUniform: rand::distr::Distribution<[u8; N]>,
{
    let mut bytes: [u8; N] = rand::random();
    bytes[N - 1] |= 1;
    bytes
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    // Lower case alone: the recommendation makes other digits invalid.
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_parsed_as_recommended() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (header, valid) in [
            (good, true),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-will-be", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", false),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false),
            ("00-4bf9-00f067aa0ba902b7-01", false),
            ("", false),
        ] {
            assert_eq!(Trace::parse(header, None).is_some(), valid, "{header}");
        }
        let trace = Trace::parse(good, Some("a=b")).unwrap();
        assert_eq!(trace.to_string(), good);
        let child = trace.child();
        assert_eq!(child.id(), trace.id());
        assert_ne!(child.to_string(), good, "a step further has a span of its own");
        assert_eq!(child.state.as_deref(), Some("a=b"));
    }

    #[test]
    fn a_new_trace_is_valid() {
        let trace = Trace::start();
        assert_eq!(Trace::parse(&trace.to_string(), None), Some(trace));
    }
}
