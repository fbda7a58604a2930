//! Macros that log to this agent's log, with the module's path as context.
//!
//! ```no_run
//! use caxton_sdk::log;
//! log::info!("{} tickets wait", 3);
//! ```

pub use crate::{log_critical as critical, log_debug as debug, log_error as error};
pub use crate::{log_info as info, log_trace as trace, log_warn as warn};

pub use crate::bindings::wasi::logging::logging::{Level, log};

/// Logs with any of the [levels](Level).
#[doc(hidden)]
#[macro_export]
macro_rules! log_at {
    ($level:ident, $($text:tt)+) => {
        $crate::log::log($crate::log::Level::$level, ::core::module_path!(), &::std::format!($($text)+))
    };
}

/// Logs the single steps of the agent's work.
#[doc(hidden)]
#[macro_export]
macro_rules! log_trace { ($($text:tt)+) => { $crate::log_at!(Trace, $($text)+) }; }

/// Logs details for finding errors.
#[doc(hidden)]
#[macro_export]
macro_rules! log_debug { ($($text:tt)+) => { $crate::log_at!(Debug, $($text)+) }; }

/// Logs events of interest to operators.
#[doc(hidden)]
#[macro_export]
macro_rules! log_info { ($($text:tt)+) => { $crate::log_at!(Info, $($text)+) }; }

/// Logs a possible problem.
#[doc(hidden)]
#[macro_export]
macro_rules! log_warn { ($($text:tt)+) => { $crate::log_at!(Warn, $($text)+) }; }

/// Logs an error.
#[doc(hidden)]
#[macro_export]
macro_rules! log_error { ($($text:tt)+) => { $crate::log_at!(Error, $($text)+) }; }

/// Logs an error after which the agent is of no use.
#[doc(hidden)]
#[macro_export]
macro_rules! log_critical { ($($text:tt)+) => { $crate::log_at!(Critical, $($text)+) }; }
