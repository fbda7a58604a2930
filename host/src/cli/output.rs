//! What commands print, and how they end.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};

use super::args::Format;
use crate::telemetry;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Exit {
    /// It did not do what it was to do.
    Failed = 1,
    /// It was called wrongly, or the configuration has errors.
    Usage = 2,
    /// What it is about is not there.
    NotFound = 3,
    /// What it is about is not as it would have to be.
    Conflict = 4,
    /// It took too long.
    Timeout = 5,
    /// A rollout was taken back.
    RolledBack = 6,
    /// Ctrl-C, as shells count it.
    Interrupted = 130,
    /// Nobody reads any more, as shells count it, and so how it ended is not known.
    ReaderGone = 141,
}

/// Why a command did not do what it was to do.
#[derive(Debug)]
pub(super) struct CliError {
    pub(super) exit: Exit,
    /// What is wrong and what to try; none when it has been said, or nobody reads any more.
    pub(super) message: Option<String>,
    /// What is known of it, for programs.
    details: Option<Box<Value>>,
    reader_gone: bool,
}

impl CliError {
    /// With words for a person.
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: Some(message.into()), details: None, reader_gone: false }
    }

    /// Everything was said already.
    pub(super) fn quiet(exit: Exit) -> Self {
        Self { exit, message: None, details: None, reader_gone: false }
    }

    /// With more for programs to read than the words say.
    pub(super) fn with_details(self, details: Value) -> Self {
        Self { details: Some(Box::new(details)), ..self }
    }

    /// The same for a command whose exit code says how something went, which is not known if nobody read it to its end.
    pub(super) fn of_outcome(mut self) -> Self {
        if std::mem::take(&mut self.reader_gone) {
            (self.exit, self.message) = (Exit::ReaderGone, None);
        }
        self
    }

    /// Says it on stderr, and gives the code to end with. A program that asked for JSON gets that on stdout as well,
    /// unless it has the result already.
    pub(super) fn report(self, out: &mut Out) -> ExitCode {
        if self.reader_gone {
            return ExitCode::SUCCESS;
        }
        if let Some(message) = &self.message {
            say(&format!("{} {message}", paint("caxton:", Style::Bad, std::io::stderr().is_terminal())));
        }
        if out.format == Format::Json && !out.printed && self.exit != Exit::Interrupted {
            // Where nobody reads, nobody misses it.
            let _ = out.line(&self.to_json().to_string());
        }
        ExitCode::from(self.exit as u8)
    }

    /// The error for programs: `{"error": {"code", "message", "exit", "details"}}`.
    fn to_json(&self) -> Value {
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
    /// The code of an error that has none of its own.
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
        Self::new(Exit::Failed, format!("{error:#}"))
    }
}

/// Of standard output: a reader that is gone (`| head`) is no failure.
impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        let gone = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self { reader_gone: gone, ..Self::new(Exit::Failed, format!("writing the output: {error}")) }
    }
}

/// Says something on stderr.
pub(super) fn say(text: &str) {
    // A host says it as all else, without waiting. Where nobody reads, nobody misses it.
    if !telemetry::say(text) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// A colour with a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// As it should be.
    Good,
    /// To be looked at.
    Warn,
    /// Wrong.
    Bad,
    /// Of less weight.
    Dim,
    /// A heading.
    Head,
}

/// The text in a colour, if there are colours.
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

/// Whether colours are wanted (no-color.org) and possible.
pub(super) fn colours_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Standard output. A command whose reader is gone (`| head`) goes on: its exit code says what came of it. One that only
/// [follows](Self::follow) something ends.
pub(super) struct Out {
    format: Format,
    terminal: bool,
    /// Whether a program has its result.
    printed: bool,
    follows: bool,
    reader_gone: bool,
}

impl Out {
    pub(super) fn new(format: Format) -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { format, terminal, printed: false, follows: false, reader_gone: false }
    }

    /// How results are to be printed.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Whether a person reads.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The text in a colour, if a person reads.
    pub(super) fn paint(&self, text: &str, style: Style) -> String {
        paint(text, style, self.terminal)
    }

    /// From now on what is printed is all that is done: nobody reads, nothing to do.
    pub(super) fn follow(&mut self) {
        self.follows = true;
    }

    /// Prints a line.
    pub(super) fn line(&mut self, text: &str) -> Result<(), CliError> {
        self.write(&[text.as_bytes(), b"\n"])
    }

    /// Prints bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.write(&[bytes])
    }

    fn write(&mut self, parts: &[&[u8]]) -> Result<(), CliError> {
        if self.reader_gone {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        let written = parts.iter().try_for_each(|part| out.write_all(part)).and_then(|()| out.flush());
        match written {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe && !self.follows => {
                self.reader_gone = true;
                Ok(())
            }
            written => Ok(written?),
        }
    }

    /// Prints a result for programs, in several lines.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?;
        self.printed = true;
        self.line(&text)
    }

    /// Prints a result for programs that is one of many: in a line of its own.
    pub(super) fn json_line(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(value).map_err(anyhow::Error::from)?;
        self.printed = true;
        self.line(&text)
    }
}

/// Text that a terminal shows as it is: what would move its cursor or colour it is written out. Agents and
/// callers chose these texts.
pub(super) fn printable(text: &str) -> String {
    let plain = |c: char| !c.is_control() || c == '\t' || c == '\n';
    if text.chars().all(plain) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if plain(c) { shown.push(c) } else { shown.extend(c.escape_default()) }
    }
    shown
}

/// The first line of a text, and whether there are more.
pub(super) fn one_line(text: &str) -> String {
    let line = printable(text.lines().next().unwrap_or_default());
    if line == text { line } else { format!("{line} ...") }
}

/// A number of things in words: `1 error`, `2 errors`.
pub(super) fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// A cell of a table.
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

/// A table with columns as wide as they need to be. A heading that begins with `>` stands, with its column, at the
/// right.
pub(super) struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) fn new(heads: &[&'static str]) -> Self {
        Self { heads: heads.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with as many cells as there are headings.
    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.heads.len());
        self.rows.push(cells);
    }

    /// The table in lines.
    pub(super) fn render(&self, colours: bool) -> String {
        let right: Vec<bool> = self.heads.iter().map(|head| head.starts_with('>')).collect();
        let heads: Vec<&str> = self.heads.iter().map(|head| head.trim_start_matches('>')).collect();
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
                let gap = " ".repeat(widths[column] - width(cell));
                let cell = style.map_or_else(|| cell.to_owned(), |style| paint(cell, style, colours));
                let (before, after) = if right[column] { (gap, String::new()) } else { (String::new(), gap) };
                text.push_str(&format!("{before}{cell}{after}  "));
            }
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
    fn errors_are_told_to_programs() {
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
    fn what_others_chose_cannot_steer_a_terminal() {
        assert_eq!(printable("a\tb\nc"), "a\tb\nc");
        assert_eq!(printable("\x1b[2Jhi\r\u{9b}x"), "\\u{1b}[2Jhi\\r\\u{9b}x");
    }
}
