//! `caxton up`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::args::UpArgs;
use super::output::{CliError, Exit, Out, say};
use crate::config::ConfigErrors;
use crate::host::{self, StartError, UpOptions};
use crate::telemetry::logging;

/// Runs a host until it is stopped.
pub(super) fn run(up: UpArgs, out: &mut Out) -> Result<ExitCode, CliError> {
    // First, because everything after it may log.
    logging::start(&up.log).map_err(|error| CliError::new(Exit::Usage, error.to_string()))?;
    let mut flags = Vec::new();
    flags.extend(up.listen.map(|address| ("http.listen".to_owned(), address)));
    flags.extend(up.admin.map(|address| ("admin.listen".to_owned(), address)));
    flags.extend(up.probes.map(|address| ("probes.listen".to_owned(), address)));
    // Before the file is read: the path must not be taken relative to the file's folder.
    let data = up.data.as_deref().map(absolute).transpose()?;
    if let Some(data) = &data {
        // The flag is for messages and comparisons only, so that a path that is not UTF-8 may be shown inexactly:
        // `data` has the exact one.
        flags.push(("store.path".to_owned(), data.to_string_lossy().into_owned()));
    }
    let policy = up.file.policy;
    let options = UpOptions {
        file: up.file.file,
        policy,
        data,
        flags,
        build: up.build,
        watch: up.watch,
        ports_file: up.ports_file,
    };
    let ended = host::run(options).map_err(|error| match error {
        StartError::Config(errors) => config_errors(&errors),
        StartError::Other(error) => error.into(),
    });
    let code = ended.unwrap_or_else(|error| error.report(out));
    // The process ends right after this, and the last lines name the reason.
    logging::flush();
    Ok(code)
}

/// Makes a path of the command line absolute. It starts from the working folder, unlike paths in the declaration, which
/// start from the file's folder.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    Ok(std::path::absolute(path).map_err(anyhow::Error::from)?)
}

/// Prints the errors of a configuration with their lines, and returns the error of the command.
pub(super) fn config_errors(errors: &ConfigErrors) -> CliError {
    // Of stderr, where they are printed: stdout may be a file.
    let colours = std::io::stderr().is_terminal() && super::output::colours_wanted();
    let text = if colours { errors.coloured() } else { errors.plain() };
    say(text.trim_end());
    CliError::quiet(Exit::Usage).with_details(serde_json::json!({ "errors": errors.to_json() }))
}
