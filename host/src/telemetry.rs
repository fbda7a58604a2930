//! What the host says while it runs: lines for people on a terminal, JSON for programs elsewhere; all on stderr.
//!
//! Saying something never blocks and never fails: see [`sink`].

mod sink;

use std::io::IsTerminal;

use caxton_control::config::nearest;
use tracing_subscriber::EnvFilter;

use self::sink::Sink;
pub(crate) use self::sink::{dropped, flush, restarts, say};

/// What is said when nobody asks for more or less.
pub(crate) const DEFAULT_FILTER: &str = "info";
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Why a filter cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    /// It is not of the form that filters have.
    #[error(
        "`{filter}` is no log filter ({reason}); try a level (`debug`), or levels of parts (`info,caxton::store=debug`)"
    )]
    Form {
        /// The filter.
        filter: String,
        /// What the parser says.
        reason: String,
    },
    /// What should be a level is none. Alone it would be taken for the name of a part of the program.
    #[error("`{given}` is no log level; {}", match meant {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("take one of {}, or a part with its level (`caxton::store=debug`)", LEVELS.join(", ")),
    })]
    Level {
        /// The part.
        given: String,
        /// The level that was probably meant.
        meant: Option<&'static str>,
    },
}

/// Begins to write what the host says, as far as the filter lets it through.
///
/// # Errors
/// The filter is not one. Nothing is written then.
pub(crate) fn start(filter: &str) -> Result<(), FilterError> {
    // An empty variable is one that is not set.
    let filter = parse(if filter.is_empty() { DEFAULT_FILTER } else { filter })?;
    let terminal = std::io::stderr().is_terminal();
    // A system that has no thread to give ends the host soon enough; until then nothing is said.
    let Ok(sink) = Sink::of_process() else { return Ok(()) };
    let lines = tracing_subscriber::fmt().with_writer(sink).log_internal_errors(false).with_env_filter(filter);
    // A second subscriber is refused, and the first goes on: tests run several hosts in a process.
    let _ = if terminal {
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        lines.with_target(false).with_ansi(colours).try_init()
    } else {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
    std::panic::set_hook(Box::new(say_panic));
    Ok(())
}

/// Says that a thread panicked, as all else is said: the hook of the standard library writes to stderr itself, and would
/// block where a reader has stopped.
fn say_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("without a name").to_owned();
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = match backtrace.status() {
        std::backtrace::BacktraceStatus::Captured => format!("\n{backtrace}"),
        _ => String::new(),
    };
    tracing::error!("the thread {thread} panicked at {place}: {}{backtrace}", reason(panic.payload()));
}

/// Returns the text of a panic.
pub(crate) fn reason(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<&'static str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without words")
}

fn parse(filter: &str) -> Result<EnvFilter, FilterError> {
    for part in filter.split(',') {
        let level = part.rsplit('=').next().unwrap_or(part).trim();
        let known = LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level));
        let meant = nearest(level, LEVELS).and_then(|near| LEVELS.into_iter().find(|level| *level == near));
        // What stands in brackets may have a `=` of its own.
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
    fn filters_are_read_or_refused_with_a_reason() {
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
