//! The output and the exit codes of commands.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};

use super::options::Format;
use crate::bounds::{changes_direction, plain};
use crate::telemetry::logging;

/// The exit code of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Exit {
    /// The command failed.
    Failed = 1,
    /// The exit code for wrong usage, or a configuration with errors.
    Usage = 2,
    /// The object of the command does not exist.
    NotFound = 3,
    /// The object of the command is in a state that does not allow it.
    Conflict = 4,
    /// A timeout has passed.
    Timeout = 5,
    /// A rollout was rolled back.
    RolledBack = 6,
    /// Ctrl-C: 128 + SIGINT, as in shells.
    Interrupted = 130,
    /// The reader of the output has closed it, so that the outcome is unknown: 128 + SIGPIPE, as in shells.
    ReaderGone = 141,
}

/// The error of a command.
#[derive(Debug)]
pub(super) struct CliError {
    pub(super) exit: Exit,
    /// The error and a suggestion. `None` if it was printed already, or there is no reader.
    pub(super) message: Option<String>,
    /// The further details, for programs.
    details: Option<Box<Value>>,
    reader_gone: bool,
}

impl CliError {
    /// Creates an error with a message.
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: Some(message.into()), details: None, reader_gone: false }
    }

    /// Creates an error whose message was printed already.
    pub(super) fn quiet(exit: Exit) -> Self {
        Self { exit, message: None, details: None, reader_gone: false }
    }

    /// Adds details for programs.
    pub(super) fn with_details(self, details: Value) -> Self {
        Self { details: Some(Box::new(details)), ..self }
    }

    /// Reports a closed output as [`Exit::ReaderGone`], for commands whose exit code tells an outcome that is unknown
    /// then.
    pub(super) fn of_outcome(mut self) -> Self {
        if std::mem::take(&mut self.reader_gone) {
            (self.exit, self.message) = (Exit::ReaderGone, None);
        }
        self
    }

    /// Prints the message on stderr and returns the exit code. With `-o json` the error is also printed on stdout,
    /// unless the result was.
    pub(super) fn report(self, out: &mut Out) -> ExitCode {
        if self.reader_gone {
            return ExitCode::SUCCESS;
        }
        // On stderr, so that a script that reads results never parses an error.
        if let Some(message) = &self.message {
            say(&format!("{} {message}", paint("caxton:", Style::Bad, std::io::stderr().is_terminal())));
        }
        // One value on stdout at most: a second one would not parse as JSON.
        if out.format == Format::Json && !out.printed && self.exit != Exit::Interrupted {
            // A reader that has closed stdout does not miss it.
            let _ = out.json_text(&self.to_json().to_string());
        }
        ExitCode::from(self.exit as u8)
    }

    /// Returns the error for programs: `{"error": {"code", "message", "exit", "details"}}`.
    fn to_json(&self) -> Value {
        // The host's code is more precise than that of the exit.
        let code = self.details.as_ref().and_then(|details| details["code"].as_str()).unwrap_or(self.exit.name());
        let message = self.message.as_deref().unwrap_or("stderr says what is wrong");
        let mut error = json!({ "code": code, "message": message, "exit": self.exit as u8 });
        if let Some(details) = &self.details {
            error["details"] = (**details).clone();
        }
        json!({ "error": error })
    }
}

impl Exit {
    /// Returns the code of an error that has none of its own.
    fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::Timeout => "timeout",
            Self::RolledBack => "rolled-back",
            Self::Interrupted => "interrupted",
            Self::ReaderGone => "reader-gone",
        }
    }
}

impl From<anyhow::Error> for CliError {
    fn from(error: anyhow::Error) -> Self {
        // With all causes, since a command has no log to look into.
        Self::new(Exit::Failed, format!("{error:#}"))
    }
}

/// Wraps errors of standard output. A closed pipe (`| head`) is not a failure.
impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        // The startup code of Rust ignores SIGPIPE, so that a closed pipe is an error of the write.
        let gone = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self { reader_gone: gone, ..Self::new(Exit::Failed, format!("writing the output: {error}")) }
    }
}

/// Prints a line on stderr.
pub(super) fn say(text: &str) {
    let text = &*without_direction(text, |c| format!("\\u{{{:x}}}", u32::from(c)));
    // A host writes it through its log thread, which never blocks. Errors are ignored: there is no other place to
    // report them.
    if !logging::say(text) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// A colour by its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// A state in order.
    Good,
    /// Needs attention.
    Warn,
    /// A failure.
    Bad,
    /// A detail of less importance.
    Dim,
    /// A heading.
    Head,
}

/// Returns the text in a colour, if colours are wanted.
pub(super) fn paint(text: &str, style: Style, colours: bool) -> String {
    if !colours || !colours_wanted() {
        return text.to_owned();
    }
    let code = match style {
        Style::Good => "32",
        Style::Warn => "33",
        Style::Bad => "31",
        Style::Dim => "2",
        Style::Head => "1",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Returns `true` if the environment allows colours (no-color.org).
pub(super) fn colours_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Standard output. A command whose reader has closed it (`| head`) still runs to its end, so that its exit code is
/// right. One that only [follows](Self::follow) something ends.
pub(super) struct Out {
    format: Format,
    terminal: bool,
    /// Set once a JSON result was printed.
    printed: bool,
    follows: bool,
    reader_gone: bool,
}

impl Out {
    pub(super) fn new(format: Format) -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { format, terminal, printed: false, follows: false, reader_gone: false }
    }

    /// Returns the format of results.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Returns `true` if stdout is a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Returns the text in a colour, if stdout is a terminal.
    pub(super) fn paint(&self, text: &str, style: Style) -> String {
        paint(text, style, self.terminal)
    }

    /// Makes a closed output an error from now on, for commands that have nothing to do but print.
    pub(super) fn follow(&mut self) {
        self.follows = true;
    }

    /// Prints a line.
    pub(super) fn line(&mut self, text: &str) -> Result<(), CliError> {
        // Here, so that no command can forget it.
        let text = without_direction(text, |c| format!("\\u{{{:x}}}", u32::from(c)));
        self.write(&[text.as_bytes(), b"\n"])
    }

    /// Prints a line of JSON, in which escapes have another form.
    fn json_text(&mut self, text: &str) -> Result<(), CliError> {
        let text = without_direction(text, |c| format!("\\u{:04x}", u32::from(c)));
        self.write(&[text.as_bytes(), b"\n"])
    }

    /// Prints bytes unchanged.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.write(&[bytes])
    }

    fn write(&mut self, parts: &[&[u8]]) -> Result<(), CliError> {
        if self.reader_gone {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        // Flushed, so that each line of a followed stream appears at once in a pipe.
        let written = parts.iter().try_for_each(|part| out.write_all(part)).and_then(|()| out.flush());
        match written {
            // The command goes on: it may be one that changes the host, and its exit code counts.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe && !self.follows => {
                self.reader_gone = true;
                Ok(())
            }
            written => Ok(written?),
        }
    }

    /// Prints a JSON result, indented.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?;
        self.printed = true;
        self.json_text(&text)
    }

    /// Prints one of many JSON results on a line of its own.
    pub(super) fn json_line(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(value).map_err(anyhow::Error::from)?;
        self.printed = true;
        self.json_text(&text)
    }
}

/// Escapes control characters but tabs and line feeds. Texts of agents and callers could otherwise move the cursor of a
/// terminal or recolour it.
pub(super) fn printable(text: &str) -> String {
    plain(text).into_owned()
}

/// Replaces characters that change the direction of a text.
fn without_direction(text: &str, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    // Most texts are ASCII, and most others have none of them.
    if text.is_ascii() || !text.chars().any(changes_direction) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if changes_direction(c) { shown.push_str(&escape(c)) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// Returns the first line of a text, with `...` if there are more.
pub(super) fn one_line(text: &str) -> String {
    let line = printable(text.lines().next().unwrap_or_default());
    if line == text { line } else { format!("{line} ...") }
}

/// Returns a number with its noun: `1 error`, `2 errors`.
pub(super) fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Returns a number with a noun of two forms: `1 copy was`, `2 copies were`.
pub(super) fn count_of(number: u64, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    style: Option<Style>,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: None }
    }

    pub(super) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style: Some(style) }
    }
}

/// A table with columns as wide as their content. A heading with `>` in front aligns its column to the right.
pub(super) struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) fn new(heads: &[&'static str]) -> Self {
        Self { heads: heads.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, with one cell for each heading.
    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.heads.len());
        self.rows.push(cells);
    }

    /// Renders the table as lines.
    pub(super) fn render(&self, colours: bool) -> String {
        let right: Vec<bool> = self.heads.iter().map(|head| head.starts_with('>')).collect();
        let heads: Vec<&str> = self.heads.iter().map(|head| head.trim_start_matches('>')).collect();
        // In characters; wide ones are rare in names of agents.
        let width = |text: &str| text.chars().count();
        let widths: Vec<usize> = (0..heads.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| width(&row[column].text));
                cells.chain([width(heads[column])]).max().unwrap_or(0)
            })
            .collect();
        let line = |cells: Vec<(&str, Option<Style>)>| {
            let mut text = String::new();
            for (column, (cell, style)) in cells.into_iter().enumerate() {
                // Padded outside of the colours, whose codes would count as characters.
                let gap = " ".repeat(widths[column] - width(cell));
                let cell = style.map_or_else(|| cell.to_owned(), |style| paint(cell, style, colours));
                let (before, after) = if right[column] { (gap, String::new()) } else { (String::new(), gap) };
                text.push_str(&format!("{before}{cell}{after}  "));
            }
            // Spaces at the end of a line would wrap in a narrow terminal.
            text.trim_end().to_owned()
        };
        let mut lines = vec![line(heads.iter().map(|head| (*head, Some(Style::Head))).collect())];
        lines.extend(
            self.rows.iter().map(|row| line(row.iter().map(|cell| (cell.text.as_str(), cell.style)).collect())),
        );
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_rendered_as_json() {
        let plain = CliError::new(Exit::NotFound, "there is no agent `x`");
        let expected = json!({ "error": { "code": "not-found", "message": "there is no agent `x`", "exit": 3 } });
        assert_eq!(plain.to_json(), expected);
        let detailed = CliError::new(Exit::Failed, "trapped").with_details(json!({ "code": "trap", "agent": "a" }));
        let expected = json!({ "error": {
            "code": "trap", "message": "trapped", "exit": 1, "details": { "code": "trap", "agent": "a" },
        } });
        assert_eq!(detailed.to_json(), expected);
        assert_eq!(CliError::quiet(Exit::Usage).to_json()["error"]["message"], "stderr says what is wrong");
    }

    #[test]
    fn tables_are_aligned() {
        let mut table = Table::new(&["AGENT", ">DEPTH", "WHY"]);
        table.row(vec![Cell::new("echo"), Cell::new("7"), Cell::new("")]);
        table.row(vec![Cell::styled("rücksendung", Style::Bad), Cell::new("10000"), Cell::new("it waits")]);
        let expected = "\
AGENT        DEPTH  WHY
echo             7
rücksendung  10000  it waits";
        assert_eq!(table.render(false), expected);
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\tb\nc"), "a\tb\nc");
        assert_eq!(printable("\x1b[2Jhi\r\u{9b}x"), "\\u{1b}[2Jhi\\r\\u{9b}x");
        assert_eq!(printable("a\u{202e}b\u{2066}c\u{200f}d\u{2028}e"), "a\\u{202e}b\\u{2066}c\\u{200f}d\\u{2028}e");
        assert_eq!(printable("R\u{fc}cksendung \u{5d0}\u{200d}"), "R\u{fc}cksendung \u{5d0}\u{200d}");
    }

    #[test]
    fn json_has_the_escapes_of_json() {
        let text = serde_json::to_string("a\u{202e}b").unwrap();
        let shown = without_direction(&text, |c| format!("\\u{:04x}", u32::from(c)));
        assert_eq!(shown, "\"a\\u202eb\"");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), "a\u{202e}b");
    }
}
