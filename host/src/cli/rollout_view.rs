//! A view of a rollout for terminals: lines that fit the window, redrawn in place.

use std::time::Duration;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::output::{Cell, Style, Table, paint, printable};
use super::rollout_text::stats_line;
use super::time::{ago, size};
use crate::api_types::{RolloutStatus, SideStatus};

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TerminalSize {
    /// Characters in a line.
    pub(super) columns: usize,
    pub(super) rows: usize,
}

impl TerminalSize {
    /// Returns the size of the terminal of stdout; 80 by 24 if it is unknown.
    pub(super) fn now() -> Self {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
        // Some terminals report 0 by 0.
        let known = |number: u16, else_number: usize| if number == 0 { else_number } else { usize::from(number) };
        size.map_or(Self { columns: 80, rows: 24 }, |size| Self {
            columns: known(size.ws_col, 80),
            rows: known(size.ws_row, 24),
        })
    }
}

/// The lines of a view that are on the terminal.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// The width of each line, to know how many rows they take in a window that was resized.
    widths: Vec<usize>,
}

impl Screen {
    /// Returns the output that replaces the previous lines by these. The cursor is left on the line after them.
    pub(super) fn draw(&mut self, lines: &[String], window: TerminalSize) -> String {
        // A window that has become narrower has wrapped the lines.
        let up: usize = self.widths.iter().map(|width| width.div_ceil(window.columns.max(1)).max(1)).sum();
        let mut codes = String::new();
        if up > 0 {
            // Lines that have scrolled out at the top cannot be redrawn.
            codes = format!("\x1b[{}A\r\x1b[J", up.min(window.rows.saturating_sub(1)).max(1));
        }
        self.widths = lines.iter().map(|line| width(line)).collect();
        lines.iter().fold(codes, |codes, line| codes + line + "\n")
    }
}

/// Renders a rollout in lines that are not wider than the window, and fewer than it has.
pub(super) fn render(rollout: &RolloutStatus, window: TerminalSize, colours: bool) -> Vec<String> {
    let RolloutStatus { from, to, strategy, status, weight, .. } = rollout;
    let took = ago(Duration::from_millis(rollout.took_ms));
    let style = match status.as_str() {
        "completed" => Style::Good,
        "failed" | "rolled-back" | "rolling-back" => Style::Bad,
        _ => Style::Warn,
    };
    let over = |index: usize| index + 1 < rollout.step || (rollout.ended && status == "completed");
    let step = |(index, step): (usize, &String)| {
        if over(index) {
            paint(&format!("[x] {step}"), Style::Good, colours)
        } else if index + 1 == rollout.step {
            paint(&format!("[>] {step}"), style, colours)
        } else {
            paint(&format!("[ ] {step}"), Style::Dim, colours)
        }
    };
    let steps: Vec<String> = rollout.plan.iter().enumerate().map(step).collect();
    let mut lines = vec![
        format!("{to} after {from}, {strategy}: {} for {took}", paint(status, style, colours)),
        steps.join("  "),
        printable(&rollout.why).replace(['\n', '\t'], " "),
    ];
    if let Some([stable, candidate]) = &rollout.measured {
        let mut table = Table::new(&["REVISION", ">SHARE", ">MESSAGES", ">FAILED", ">P95", ">MEMORY"]);
        table.row(row(from, 100 - weight, stable));
        table.row(row(to, *weight, candidate));
        lines.extend(table.render(colours).lines().map(str::to_owned));
    }
    lines.push(stats_line(rollout));
    // The last row is for the cursor.
    lines.truncate(window.rows.saturating_sub(1).max(1));
    lines.iter().map(|line| cut(line, window.columns)).collect()
}

fn row(revision: &str, share: u8, side: &SideStatus) -> Vec<Cell> {
    let p95 = side.p95_us.map_or_else(|| "-".to_owned(), |us| format!("{:.1}ms", us as f64 / 1_000.0));
    vec![
        Cell::new(revision),
        Cell::new(format!("{share}%")),
        Cell::new(side.messages.to_string()),
        Cell::new(side.failed.to_string()),
        Cell::new(p95),
        Cell::new(size(side.memory_bytes)),
    ]
}

/// The escape sequence that resets colours.
const PLAIN: &str = "\x1b[0m";

/// Splits a text into colour sequences (`true`) and text (`false`).
fn parts(text: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (is_colour, length) = match rest.find("\x1b[") {
            None if rest.is_empty() => return None,
            None => (false, rest.len()),
            // Every sequence here sets colours and ends with `m`: other control characters were escaped.
            Some(0) => (true, rest.find('m').map_or(rest.len(), |end| end + 1)),
            Some(at) => (false, at),
        };
        let (part, after) = rest.split_at(length);
        rest = after;
        Some((is_colour, part))
    })
}

/// Returns the columns that a text takes, without its colours.
fn width(text: &str) -> usize {
    parts(text).filter(|(is_colour, _)| !is_colour).map(|(_, part)| part.width()).sum()
}

/// Cuts a line to the width of the window, with `…` at its end. Colours are reset.
fn cut(line: &str, columns: usize) -> String {
    if width(line) <= columns {
        return line.to_owned();
    }
    let (mut shown, mut left, mut coloured) = (String::new(), columns.saturating_sub(1), false);
    for (is_colour, part) in parts(line) {
        if is_colour {
            coloured = part != PLAIN;
            shown.push_str(part);
            continue;
        }
        for c in part.chars() {
            let wide = c.width().unwrap_or(0);
            // A wide character that does not fit is left out as a whole.
            if wide > left {
                shown.push('…');
                return if coloured { shown + PLAIN } else { shown };
            }
            left -= wide;
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A rollout in the middle of its steps.
    pub(in crate::cli) fn rollout(why: &str) -> RolloutStatus {
        let side = |messages| SideStatus { messages, failed: 1, p95_us: Some(1_500), memory_bytes: 1 << 20 };
        RolloutStatus {
            agent: "echo".to_owned(),
            rollout: 1,
            from: "echo@1".to_owned(),
            to: "echo@2".to_owned(),
            strategy: "canary".to_owned(),
            status: "in-progress".to_owned(),
            ended: false,
            why: why.to_owned(),
            step: 2,
            steps: 3,
            moved: false,
            weight: 25,
            who: "reconcile".to_owned(),
            began_at: 0,
            took_ms: 90_000,
            stable_messages: 30,
            candidate_messages: 10,
            started_instances: 1,
            failed_instances: 0,
            peak_memory_bytes: 1 << 20,
            probes_passed: 2,
            probes_failed: 0,
            plan: ["prepare", "25% for 5m", "100%"].map(str::to_owned).to_vec(),
            measured: Some([side(30), side(10)]),
            longest_pause_ms: 0,
            lost_messages: None,
            copies: 0,
            copies_alike: 0,
            copies_set_aside: 0,
            rehearsed: 0,
            rehearsed_alike: 0,
            rehearsed_not_compared: 0,
            held_conversations: 0,
        }
    }

    #[test]
    fn views_fit_any_window() {
        let why = "it has 10 of 100 messages, 逐次 \u{1b}[2J and\nmore of them, and so on for quite a while longer";
        for (columns, rows) in [(200, 50), (80, 24), (40, 24), (20, 7), (7, 3), (1, 2), (1, 1)] {
            for colours in [false, true] {
                let lines = render(&rollout(why), TerminalSize { columns, rows }, colours);
                assert!(lines.len() < rows.max(2), "{columns}x{rows}: {lines:?}");
                for line in &lines {
                    assert!(width(line) <= columns && !line.contains(['\n', '\r', '\t']), "{columns}x{rows}: {line:?}");
                }
            }
        }
        let wide = render(&rollout("so"), TerminalSize { columns: 200, rows: 50 }, false);
        assert_eq!(
            wide[..3],
            ["echo@2 after echo@1, canary: in-progress for 1m", "[x] prepare  [>] 25% for 5m  [ ] 100%", "so"]
        );
        assert_eq!(wide.len(), 7, "{wide:?}");
    }

    #[test]
    fn long_lines_are_cut() {
        for (line, columns, expected) in [
            ("whole", 5, "whole"),
            ("longer", 5, "long…"),
            ("逐次逐", 5, "逐次…"),
            ("逐次逐", 4, "逐…"),
            ("\x1b[32mgreen\x1b[0m", 5, "\x1b[32mgreen\x1b[0m"),
            ("\x1b[32mgreener\x1b[0m", 5, "\x1b[32mgree…\x1b[0m"),
            ("\x1b[32mab\x1b[0m cdef", 4, "\x1b[32mab\x1b[0m …"),
        ] {
            assert_eq!(cut(line, columns), expected, "{line:?} in {columns}");
        }
    }

    #[test]
    fn lines_are_redrawn_in_place() {
        let mut drawn = Screen::default();
        let window = TerminalSize { columns: 10, rows: 24 };
        let lines = |texts: &[&str]| -> Vec<String> { texts.iter().map(|text| (*text).to_owned()).collect() };
        assert_eq!(drawn.draw(&lines(&["0123456789", "", "x"]), window), "0123456789\n\nx\n");
        assert_eq!(drawn.draw(&lines(&["y"]), window), "\x1b[3A\r\x1b[Jy\n");
        drawn.draw(&lines(&["0123456789", "", "x"]), window);
        // The first line takes three rows of the narrower window.
        assert_eq!(drawn.draw(&lines(&["z"]), TerminalSize { columns: 4, rows: 24 }), "\x1b[5A\r\x1b[Jz\n");
        drawn.draw(&lines(&["0123456789"; 5]), window);
        assert_eq!(
            drawn.draw(&lines(&["z"]), TerminalSize { columns: 10, rows: 3 }),
            "\x1b[2A\r\x1b[Jz\n",
            "no higher"
        );
    }
}
