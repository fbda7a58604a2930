//! `caxton up`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::args::Up;
use super::output::{CliError, Exit, Out, say};
use crate::config::ConfigErrors;
use crate::host::{self, StartError, UpOptions};
use crate::telemetry;

/// Runs a host until it is told to stop.
pub(super) fn run(up: Up, out: &mut Out) -> Result<ExitCode, CliError> {
    telemetry::start(&up.log).map_err(|error| CliError::new(Exit::Usage, error.to_string()))?;
    let mut flags = Vec::new();
    flags.extend(up.listen.map(|address| ("http.listen".to_owned(), address)));
    flags.extend(up.admin.map(|address| ("admin.listen".to_owned(), address)));
    flags.extend(up.probes.map(|address| ("probes.listen".to_owned(), address)));
    let data = up.data.as_deref().map(absolute).transpose()?;
    if let Some(data) = &data {
        // For what is shown and compared: a path need not be text.
        flags.push(("store.path".to_owned(), data.to_string_lossy().into_owned()));
    }
    let options =
        UpOptions { file: up.file.file, data, flags, build: up.build, watch: up.watch, ports_file: up.ports_file };
    let ended = host::run(options).map_err(|error| match error {
        StartError::Config(errors) => config_errors(&errors),
        StartError::Other(error) => error.into(),
    });
    let code = ended.unwrap_or_else(|error| error.report(out));
    telemetry::flush();
    Ok(code)
}

/// A path of the command line starts from where the command is run, one of the file from the file's folder.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    Ok(std::path::absolute(path).map_err(anyhow::Error::from)?)
}

/// Says what is wrong with a configuration, with its lines.
pub(super) fn config_errors(errors: &ConfigErrors) -> CliError {
    let colours = std::io::stderr().is_terminal() && super::output::colours_wanted();
    let text = if colours { errors.coloured() } else { errors.plain() };
    say(text.trim_end());
    CliError::quiet(Exit::Usage).with_details(serde_json::json!({ "errors": errors.to_json() }))
}
