//! The rendering of configuration errors: with the lines of the file for people, as JSON for programs.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use caxton_control::config::{ConfigError, Location, Source};
use serde_json::{Value, json};

/// The distance in lines up to which two places of one error are shown in one excerpt.
const NEAR_LINES: usize = 8;

/// The place of a setting, for messages of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A place in the file, both numbers from 1.
    File {
        line: usize,
        /// The column in characters.
        column: usize,
    },
    /// A variable or a flag; empty for a default.
    Elsewhere(String),
}

impl Place {
    /// Returns the place as text, such as `caxton.toml:5:8`.
    pub(crate) fn text(&self, file: &Path) -> String {
        match self {
            Self::File { line, column } => format!("{}:{line}:{column}", file.display()),
            Self::Elsewhere(place) if place.is_empty() => file.display().to_string(),
            Self::Elsewhere(place) => place.clone(),
        }
    }
}

/// The errors of a configuration, with the text to show them in.
///
/// `Display` is [`Self::plain`].
#[derive(Debug, Clone)]
pub(crate) struct ConfigErrors {
    file: PathBuf,
    text: Arc<str>,
    /// The start of each line in bytes.
    lines: Vec<usize>,
    errors: Vec<ConfigError>,
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.plain())
    }
}

impl ConfigErrors {
    /// Wraps the errors of `file`, which contains `text`.
    pub(super) fn new(file: &Path, text: impl Into<Arc<str>>, errors: Vec<ConfigError>) -> Self {
        let text = text.into();
        // Once for all errors: to count lines for each would be quadratic in a file with many.
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        Self { file: file.to_owned(), text, lines, errors }
    }

    /// Creates the error for a file that is missing or cannot be read.
    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        let at = Location { key: String::new(), source: Source::Default };
        let error = match error.kind() {
            std::io::ErrorKind::NotFound => ConfigError::MissingFile { at },
            _ => ConfigError::UnreadableFile { at, reason: error.to_string() },
        };
        Self::new(path, String::new(), vec![error])
    }

    /// Replaces the name of the file by the one that the user gave.
    pub(crate) fn named(self, file: &Path) -> Self {
        Self { file: file.to_owned(), ..self }
    }

    /// Returns the errors in order of place; never empty.
    pub(crate) fn errors(&self) -> &[ConfigError] {
        &self.errors
    }

    /// Returns a place for messages of one line.
    pub(super) fn place(&self, source: &Source) -> Place {
        match self.span(source) {
            Some(span) => {
                let (line, column) = self.line_and_column(&span);
                Place::File { line, column }
            }
            None => Place::Elsewhere(match source {
                Source::Variable(name) => format!("environment variable {name}"),
                Source::Flag(name) => format!("flag {name}"),
                Source::Place(text) => text.to_string(),
                Source::File { .. } | Source::Default => String::new(),
            }),
        }
    }

    /// Renders all errors with their lines, without colours.
    pub(crate) fn plain(&self) -> String {
        self.render(&Renderer::plain())
    }

    /// Renders all errors with their lines, for a terminal.
    pub(crate) fn coloured(&self) -> String {
        self.render(&Renderer::styled().decor_style(DecorStyle::Unicode))
    }

    /// Returns an array of `{code, file, line, column, key, message, help}`. An error in a variable or a flag has
    /// `variable` or `flag` in place of file, line and column.
    pub(crate) fn to_json(&self) -> Value {
        self.errors.iter().map(|error| self.error_json(error)).collect()
    }

    fn render(&self, renderer: &Renderer) -> String {
        let mut text = String::new();
        for error in &self.errors {
            text.push_str(&without_controls(&renderer.render(&[self.group(error)])));
            text.push_str("\n\n");
        }
        let count = match self.errors.len() {
            1 => "1 error".to_owned(),
            count => format!("{count} errors"),
        };
        text.push_str(&format!("{count} in {}\n", self.file.display()));
        text
    }

    /// Builds the report of an error: title, lines, help.
    fn group<'a>(&'a self, error: &'a ConfigError) -> Group<'a> {
        let at = error.at();
        let title = if at.key.is_empty() { error.to_string() } else { format!("{}: {error}", at.key) };
        let group = Group::with_title(Level::ERROR.primary_title(title).id(error.code()));
        let related = error.related().and_then(|(place, label)| Some((self.span(place)?, label)));
        let group = match (self.span(&at.source), related) {
            (Some(span), Some((other, label)))
                if self.line(span.start).abs_diff(self.line(other.start)) <= NEAR_LINES =>
            {
                let first = span.start.min(other.start);
                let (snippet, offset) = self.snippet(first..span.end.max(other.end));
                let mark = AnnotationKind::Primary.span(shift(&span, offset));
                group.element(snippet.annotation(mark).annotation(related_mark(&other, offset, label)))
            }
            (Some(span), related) => {
                let group = group.element(self.marked(&span));
                match related {
                    Some((other, label)) => group.element(self.related(&other, label)),
                    None => group,
                }
            }
            (None, related) => {
                let group = group.element(Origin::path(self.origin(&at.source)));
                match related {
                    Some((other, label)) => group.element(self.related(&other, label)),
                    None => group,
                }
            }
        };
        group.element(Level::HELP.message(error.help()))
    }

    /// Returns the lines of a span, with the span marked.
    fn marked(&self, span: &Range<usize>) -> Snippet<'_, Annotation<'_>> {
        let (snippet, offset) = self.snippet(span.clone());
        snippet.annotation(AnnotationKind::Primary.span(shift(span, offset)))
    }

    /// Returns the lines of the related place.
    fn related<'a>(&'a self, span: &Range<usize>, label: &'a str) -> Snippet<'a, Annotation<'a>> {
        let (snippet, offset) = self.snippet(span.clone());
        snippet.annotation(related_mark(span, offset, label))
    }

    /// Returns the whole lines that contain a span, and their start. Only these are passed to the renderer, which scans
    /// all of its input for each error.
    fn snippet<'a>(&'a self, span: Range<usize>) -> (Snippet<'a, Annotation<'a>>, usize) {
        let (first, last) = (self.line(span.start), self.line(span.end));
        let start = self.lines[first];
        let end = self.lines.get(last + 1).copied().unwrap_or(self.text.len());
        let path = self.file.display().to_string();
        (Snippet::source(&self.text[start..end]).line_start(first + 1).path(path), start)
    }

    /// Returns the byte range of a place within the text; `None` for a variable or a flag.
    fn span(&self, place: &Source) -> Option<Range<usize>> {
        match place {
            Source::File { start, end } => {
                // A parser may point into the middle of a character.
                let start = self.text.floor_char_boundary(*start);
                Some(start..self.text.ceil_char_boundary((*end).clamp(start, self.text.len())))
            }
            Source::Variable(_) | Source::Flag(_) | Source::Place(_) | Source::Default => None,
        }
    }

    /// The line of a byte, from 0.
    fn line(&self, byte: usize) -> usize {
        self.lines.partition_point(|start| *start <= byte).saturating_sub(1)
    }

    /// A place that has no lines.
    fn origin(&self, place: &Source) -> String {
        match place {
            Source::Variable(name) => format!("environment variable {name}"),
            Source::Flag(name) => format!("flag {name}"),
            Source::Place(text) => text.to_string(),
            Source::File { .. } | Source::Default => self.file.display().to_string(),
        }
    }

    fn error_json(&self, error: &ConfigError) -> Value {
        let at = error.at();
        let mut json = json!({
            "code": error.code(),
            "key": at.key,
            "message": error.to_string(),
            "help": error.help(),
        });
        match &at.source {
            Source::Variable(name) => json["variable"] = json!(&**name),
            Source::Flag(name) => json["flag"] = json!(&**name),
            Source::Place(text) => json["file"] = json!(&**text),
            Source::File { .. } | Source::Default => json["file"] = json!(self.file.display().to_string()),
        }
        if let Some(span) = self.span(&at.source) {
            let (line, column) = self.line_and_column(&span);
            json["line"] = json!(line);
            json["column"] = json!(column);
        }
        json
    }

    /// Returns line and column of the start of a span, both from 1.
    fn line_and_column(&self, span: &Range<usize>) -> (usize, usize) {
        let line = self.line(span.start);
        // In characters, as editors count them.
        (line + 1, self.text[self.lines[line]..span.start].chars().count() + 1)
    }
}

/// Replaces the characters that control some terminals or change the direction of a text. The renderer leaves them as they
/// are, and replaces all other control characters.
fn without_controls(text: &str) -> String {
    // One character for each, so that marks stay below what they mark.
    text.replace(
        |c: char| matches!(c, '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'),
        "\u{fffd}",
    )
}

/// Returns the mark of the related place.
fn related_mark<'a>(span: &Range<usize>, offset: usize, label: &'a str) -> Annotation<'a> {
    AnnotationKind::Context.span(shift(span, offset)).label(label)
}

/// Returns the span relative to `offset`.
fn shift(span: &Range<usize>, offset: usize) -> Range<usize> {
    span.start - offset..span.end - offset
}
