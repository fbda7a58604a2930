//! The host's own log: text for people on a terminal, JSON elsewhere. All of it goes to stderr.
//!
//! Logging never blocks and never fails; see [`sink`].

mod sink;

use std::io::IsTerminal;

use caxton_control::config::nearest;
use tracing_subscriber::EnvFilter;

use self::sink::Sink;
pub(crate) use self::sink::{dropped, flush, restarts, say};

/// The filter used if none is set.
pub(crate) const DEFAULT_FILTER: &str = "info";
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The reason why a log filter is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    /// The filter cannot be parsed.
    #[error(
        "`{filter}` is no log filter ({reason}); try a level (`debug`), or levels of parts (`info,caxton::store=debug`)"
    )]
    Form {
        /// The filter as given.
        filter: String,
        /// The parser's message.
        reason: String,
    },
    /// A directive ends in something that is not a level. The parser would take it for the name of a target and log
    /// nothing.
    #[error("`{given}` is no log level; {}", match meant {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("take one of {}, or a part with its level (`caxton::store=debug`)", LEVELS.join(", ")),
    })]
    Level {
        /// The text in place of a level.
        given: String,
        /// The level with the nearest name, if there is one.
        meant: Option<&'static str>,
    },
}

/// Installs the logger and the panic hook.
///
/// # Errors
/// The filter is invalid. Nothing is installed then.
pub(crate) fn start(filter: &str) -> Result<(), FilterError> {
    // An empty variable counts as not set.
    let filter = parse(if filter.is_empty() { DEFAULT_FILTER } else { filter })?;
    let terminal = std::io::stderr().is_terminal();
    // Without a thread there is no log. A system that cannot start one fails the host's start soon enough.
    let Ok(sink) = Sink::of_process() else { return Ok(()) };
    // Errors of the subscriber would be printed to stderr directly, which may block.
    let lines = tracing_subscriber::fmt().with_writer(sink).log_internal_errors(false).with_env_filter(filter);
    // Tests start several hosts in one process: the second subscriber is refused and the first stays.
    let _ = if terminal {
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        // Colours and short lines are for people.
        lines.with_target(false).with_ansi(colours).try_init()
    } else {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Logs a panic. The hook of the standard library would write to stderr directly, and block if its reader has stopped.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("without a name").to_owned();
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = match backtrace.status() {
        std::backtrace::BacktraceStatus::Captured => format!("\n{backtrace}"),
        _ => String::new(),
    };
    tracing::error!("the thread {thread} panicked at {place}: {}{backtrace}", reason(panic.payload()));
}

/// Returns the message of a panic.
pub(crate) fn reason(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<&'static str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without words")
}

fn parse(filter: &str) -> Result<EnvFilter, FilterError> {
    for part in filter.split(',') {
        let level = part.rsplit('=').next().unwrap_or(part).trim();
        let known = LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level));
        let meant = nearest(level, LEVELS).and_then(|near| LEVELS.into_iter().find(|level| *level == near));
        // A span filter in brackets may contain `=` itself, so that the part after the last one need not be a level.
        if !known && (meant.is_some() || !part.contains('[')) {
            return Err(FilterError::Level { given: level.to_owned(), meant });
        }
    }
    EnvFilter::builder()
        .parse(filter)
        .map_err(|error| FilterError::Form { filter: filter.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_parsed_or_refused_with_a_reason() {
        for (filter, refused) in [
            ("info", None),
            ("DEBUG", None),
            ("info,caxton::store=debug", None),
            ("caxton=trace,wasmtime=off", None),
            (
                "warning",
                Some(
                    "`warning` is no log level; take one of off, error, warn, info, debug, trace, or a part with its level (`caxton::store=debug`)",
                ),
            ),
            ("debgu", Some("`debgu` is no log level; did you mean `debug`?")),
            ("caxton=inof", Some("`inof` is no log level; did you mean `info`?")),
            (
                "caxton",
                Some(
                    "`caxton` is no log level; take one of off, error, warn, info, debug, trace, or a part with its level (`caxton::store=debug`)",
                ),
            ),
            (
                "caxton[{=info",
                Some(
                    "`caxton[{=info` is no log filter (invalid filter directive); try a level (`debug`), or levels of parts (`info,caxton::store=debug`)",
                ),
            ),
        ] {
            let found = parse(filter).err().map(|error| error.to_string());
            assert_eq!(found.as_deref(), refused, "{filter}");
        }
    }
}
