//! The declaration file. It is not read while it is being written, and agents that it lacks are not removed at once.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use caxton_control::config::Operator;
use caxton_control::files::{FileReadiness, StabilityCheck};
use caxton_control::{AgentName, Desired, Digest};

use super::file_stamp::{FileProbe, FileStamp, OpenWrites, log_late_write};
use super::handle::Request;
use crate::api_types::FileError;
use crate::bounds;
use crate::config::{self, ConfigErrors, Loaded};

/// The time for which a file has to lack agents before they are removed: a program that writes the file in several
/// steps may close it in between.
const REMOVAL_DELAY: Duration = Duration::from_secs(2);

/// The state of the declaration file at the last look.
#[derive(Default)]
pub(super) struct DeclarationFile {
    pub(super) settle: StabilityCheck<FileStamp>,
    origin: Option<Instant>,
    /// The digest of its bytes when it was last read for a wake-up; the inner `None` is a file that is missing. `None`
    /// if it was read for another reason since.
    pub(super) read: Option<Option<Digest>>,
    /// The bytes when the file was last read, to recognise a truncated one.
    pub(super) text: Vec<u8>,
    /// The time since which it lacks agents.
    pub(super) incomplete_since: Option<Instant>,
    /// The time of the next look.
    pub(super) next_look: Option<Instant>,
    /// The requests that wait until it is complete.
    pub(super) deferred: Vec<DeferredRequest>,
}

/// A request that needs the complete file.
pub(super) enum DeferredRequest {
    /// A request to read everything again.
    All,
    /// A request to the reconciler.
    Request(Request),
}

impl DeclarationFile {
    /// Defers a request until the file is complete.
    pub(super) fn defer(&mut self, asked: DeferredRequest) {
        self.deferred.push(asked);
    }

    /// Forgets the history of the file, because it is being loaded as it is now.
    pub(super) fn reset(&mut self) {
        (self.incomplete_since, self.next_look, self.read) = (None, None, None);
        // A load by request accepts the file as it is, and makes no prefix of it suspect.
        self.text.clear();
    }

    /// Returns the decision to read the file now or later. `asked` is set for a request of an operator.
    pub(super) fn probe(&mut self, source: &DeclarationSource, writing: &OpenWrites, asked: bool) -> FileReadiness {
        let origin = *self.origin.get_or_insert_with(Instant::now);
        let now = u64::try_from(origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let verdict = self.settle.check(FileProbe::new(writing).at(&source.at, None), asked, now);
        if self.settle.is_late(now) {
            log_late_write(&source.file.display().to_string());
        }
        self.next_look = match verdict {
            // A file that lacks agents is complete and still needs another look.
            FileReadiness::Ready => self.next_look.filter(|_| self.incomplete_since.is_some()),
            FileReadiness::Wait(time) => Some(Instant::now() + time),
        };
        verdict
    }

    /// Returns the rest of the time for which a file that lacks agents is not applied; `None` if it lacks none, or that
    /// time has passed.
    pub(super) fn removal_delay(&mut self, text: &[u8], before: &Desired, now: &Desired) -> Option<Duration> {
        // Most changes leave the names as they are, which a walk along both shows faster than a look for each.
        let has_same_names = before.agents.keys().eq(now.agents.keys());
        let lacks = !has_same_names && before.agents.keys().any(|name| !now.agents.contains_key(name));
        // A file that is written from its beginning is a prefix of the last one for a moment.
        let is_beginning = text.len() < self.text.len() && self.text.starts_with(text);
        if !lacks && !is_beginning {
            self.incomplete_since = None;
            return None;
        }
        let since = *self.incomplete_since.get_or_insert_with(|| {
            let gone: Vec<&str> =
                before.agents.keys().filter(|name| !now.agents.contains_key(*name)).map(AgentName::as_str).collect();
            tracing::info!("the file lacks agents or what came last in it ({}); it is looked at again before anything is taken out", gone.join(", "));
            Instant::now()
        });
        Some(REMOVAL_DELAY.saturating_sub(since.elapsed())).filter(|left| !left.is_zero())
    }
}

/// The source of the declaration.
#[derive(Debug, Clone)]
pub(crate) struct DeclarationSource {
    /// The path as given by the user, for messages.
    pub(crate) file: PathBuf,
    /// The absolute path, which does not depend on the working folder.
    pub(crate) at: PathBuf,
    /// Settings of the command line, which override those of the file.
    pub(crate) flags: Vec<(String, String)>,
    /// The operator's own file.
    pub(crate) policy: Option<OperatorSource>,
}

impl DeclarationSource {
    /// Reads and validates the declaration, within what the operator's own file says. Of `before`, an earlier state of it,
    /// the agents are taken that have not changed.
    pub(crate) fn load(&self, operator: &Operator, before: Option<&Loaded>) -> Result<Loaded, ConfigErrors> {
        let flags: Vec<(&str, String)> = self.flags.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        let loaded = config::load_after(before, &self.at, std::env::vars_os(), &flags, operator);
        loaded.map(|loaded| loaded.named(&self.file)).map_err(|errors| errors.named(&self.file))
    }
}

impl DeclarationSource {
    /// Waits until no program writes the file, up to the limit for open files.
    pub(crate) async fn until_complete(&self) {
        let (mut declaration, mut told) = (DeclarationFile::default(), false);
        while let FileReadiness::Wait(time) = declaration.probe(self, &OpenWrites::default(), true) {
            if !std::mem::replace(&mut told, true) {
                tracing::info!("{} is being written; it is read when that is done", self.file.display());
            }
            tokio::time::sleep(time).await;
        }
    }
}

/// The operator's own file.
#[derive(Debug, Clone)]
pub(crate) struct OperatorSource {
    /// The path as given by the user, for messages.
    pub(crate) file: PathBuf,
    /// The absolute path, which does not depend on the working folder.
    pub(crate) at: PathBuf,
}

impl OperatorSource {
    /// Names a file.
    pub(crate) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), at: std::path::absolute(file).unwrap_or_else(|_| file.to_owned()) }
    }

    /// Reads and checks the file.
    pub(crate) fn load(&self) -> Result<config::LoadedOperator, ConfigErrors> {
        config::load_operator(&self.at, &self.file)
    }
}

/// Converts the errors of a declaration to those of the API.
pub(super) fn file_errors(errors: &ConfigErrors) -> Vec<FileError> {
    let list = errors.to_json();
    // Plain, as they quote the file, and are shown by whatever shows a response.
    let text = |error: &serde_json::Value, key: &str| {
        error.get(key).and_then(|text| text.as_str()).map(|text| bounds::plain(text).into_owned())
    };
    let place = |error: &serde_json::Value| {
        let number = |key: &str| error.get(key).and_then(serde_json::Value::as_u64);
        match (text(error, "file"), number("line"), number("column")) {
            (Some(file), Some(line), Some(column)) => format!("{file}:{line}:{column}"),
            (Some(file), ..) => file,
            (None, ..) => text(error, "variable").or_else(|| text(error, "flag")).unwrap_or_default(),
        }
    };
    list.as_array()
        .into_iter()
        .flatten()
        .map(|error| FileError {
            code: text(error, "code").unwrap_or_default(),
            place: place(error),
            key: text(error, "key").unwrap_or_default(),
            message: text(error, "message").unwrap_or_default(),
            help: text(error, "help"),
        })
        .collect()
}
