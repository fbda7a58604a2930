//! The set of files that a declaration asks to follow.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use caxton_control::Desired;
use caxton_control::policy::Policy;

use super::pattern::Pattern;
use super::sources::ExcludedFiles;
use crate::config::TlsTable;
use crate::net::{TlsFiles, ca_files};
use crate::reconcile::signatures::signature_path;
use crate::secrets;

/// The files to follow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WatchSet {
    /// The declaration file.
    pub(crate) file: PathBuf,
    /// The folder of the declaration, from which relative paths start.
    pub(crate) dir: PathBuf,
    /// Components of agents with `reload.watch`.
    pub(crate) components: BTreeSet<PathBuf>,
    /// Files that settings of the host name, such as certificates.
    pub(crate) named: BTreeSet<PathBuf>,
    /// The patterns of sources, by build command.
    pub(crate) builds: BTreeMap<String, BTreeSet<String>>,
    /// Paths that are never sources: built components and the data folder. A build that watched its own output would
    /// run for ever.
    outputs: BTreeSet<PathBuf>,
}

impl WatchSet {
    /// Collects what the declaration in this file asks to follow. `data` is the data folder. All paths are absolute.
    pub(crate) fn new(file: &Path, dir: &Path, data: &Path, desired: &Desired) -> Self {
        let mut followed = Self { file: file.to_owned(), dir: dir.to_owned(), ..Self::default() };
        for spec in TlsTable::ALL.into_iter().filter_map(|table| table.spec(desired)) {
            followed.named.extend(TlsFiles::new(spec, dir).paths());
        }
        followed.named.extend(secrets::files(&desired.secrets, dir));
        followed.named.extend(ca_files(&desired.outgoing, dir));
        // By their text: many agents share a component, and paths are slow to compare.
        let mut components = HashSet::new();
        for spec in desired.agents.values() {
            if spec.reload.watch {
                components.insert(spec.component.as_str());
            }
            if let Some(build) = &spec.build {
                followed.builds.entry(build.command.clone()).or_default().extend(build.watch.iter().cloned());
                followed.outputs.insert(dir.join(&spec.component));
            }
        }
        followed.components.extend(components.into_iter().map(|component| dir.join(component)));
        // Without builds no folder is searched for sources.
        if !followed.builds.is_empty() {
            followed.outputs.insert(data.to_owned());
        }
        followed
    }

    /// Adds the operator's own file, and the signatures of components if `rules` require them.
    #[must_use]
    pub(crate) fn with_policy(mut self, file: Option<&Path>, rules: &Policy) -> Self {
        self.named.extend(file.map(Path::to_owned));
        if rules.signatures_required {
            self.named.extend(self.components.iter().map(|component| signature_path(component)));
        }
        self
    }

    /// Returns the patterns of each build. An invalid pattern is logged and left out.
    pub(crate) fn patterns(&self) -> BTreeMap<String, Vec<Pattern>> {
        let of = |patterns: &BTreeSet<String>| {
            let parsed = patterns.iter().filter_map(|written| {
                Pattern::parse(written, &self.dir)
                    // Not an error of the set: the other patterns are still followed.
                    .inspect_err(|why| tracing::error!("the pattern `{written}` of build.watch is not followed: {why}"))
                    .ok()
            });
            parsed.flatten().collect()
        };
        self.builds.iter().map(|(command, patterns)| (command.clone(), of(patterns))).collect()
    }

    /// Returns the files that are excluded from the sources whatever a pattern says.
    pub(crate) fn excluded(&self) -> ExcludedFiles {
        ExcludedFiles::new(&self.outputs)
    }
}
