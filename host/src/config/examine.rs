//! A file read for its own sake: what tests of malformed files and the fuzz target share.

use std::path::Path;

use caxton_control::config::Operator;

use super::variables::Variables;
use super::{ConfigErrors, parse, parts};

/// Parses a text and renders all that is said of it.
///
/// # Panics
/// It means something else when it is read in parts. It is refused without a reason, with a place outside of it, or with a character that controls a terminal.
pub(crate) fn examine(text: &str) {
    let operator = Operator::default();
    let in_parts = parts::read(&text.into(), &[], &[], &operator, None).map(|(desired, _)| desired);
    let errors = match parse(text, Variables::default(), &[], &operator) {
        Ok(parsed) => {
            assert!(in_parts.is_none_or(|desired| desired == parsed.desired), "read in parts it means something else");
            return drop(parsed.desired.warnings());
        }
        Err(errors) => errors,
    };
    assert!(!errors.is_empty(), "refused without a reason");
    assert!(in_parts.is_none(), "read in parts it has no errors: {errors:?}");
    let lines = text.lines().count() as u64 + 1;
    let report = ConfigErrors::new(Path::new("caxton.toml"), text.to_owned(), errors);
    for error in report.to_json().as_array().into_iter().flatten() {
        let line = error["line"].as_u64().unwrap_or(1);
        assert!((1..=lines).contains(&line), "line {line} of {lines}: {error}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
    }
    let plain = report.plain();
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let controls = |c: char| (c.is_control() && c != '\n') || turns(c);
    assert!(!plain.contains(controls), "{plain:?} controls a terminal");
}
