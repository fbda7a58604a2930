//! The rules in force, and what they refuse of the files of components.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use caxton_control::config::Operator;
use caxton_control::files::{FileReadiness, StabilityCheck};
use caxton_control::inspection::Finding;
use caxton_control::plan::ComponentFile;
use caxton_control::policy::{Policy, SignatureCheck};
use caxton_control::{AgentName, AgentSpec, Digest};

use super::declaration_file::OperatorSource;
use super::file_stamp::{FileProbe, FileStamp, OpenWrites};
use super::signatures::{SignatureFiles, signature_path};
use crate::api_types::FileError;
use crate::config::LoadedOperator;
use crate::wasm::ProgramError;

/// The rules in force.
pub(super) struct PolicyInForce {
    /// The meaning of the operator's own file when it was last without errors.
    pub(super) operator: Operator,
    /// The SHA-256 of that file.
    pub(super) text_digest: Option<Digest>,
    /// The rules for components, of both files.
    pub(super) rules: Arc<Policy>,
    /// The errors of the operator's own file as it is now.
    pub(super) errors: Vec<FileError>,
    settle: StabilityCheck<FileStamp>,
    origin: Instant,
    /// The time of the next look at the file, while it is being written.
    pub(super) next_look: Option<Instant>,
    pub(super) signatures: SignatureFiles,
    /// The agents whose files are refused, with the reason.
    refused: BTreeMap<AgentName, String>,
    /// Those that were refused since the last report.
    pub(super) news: Vec<(AgentName, Vec<Finding>)>,
}

impl PolicyInForce {
    pub(super) fn new(operator: Option<LoadedOperator>, declared: &Policy) -> Self {
        let (operator, text_digest) =
            operator.map_or_else(Default::default, |loaded| (loaded.operator, Some(loaded.text_digest)));
        Self {
            rules: Arc::new(operator.policy().stricter(declared)),
            operator,
            text_digest,
            errors: Vec::new(),
            settle: StabilityCheck::default(),
            origin: Instant::now(),
            next_look: None,
            signatures: SignatureFiles::default(),
            refused: BTreeMap::new(),
            news: Vec::new(),
        }
    }

    /// Returns `true` if the file is complete; otherwise sets the time of the next look.
    pub(super) fn is_complete(&mut self, source: &OperatorSource, writing: &OpenWrites, asked: bool) -> bool {
        let now = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let readiness = self.settle.check(FileProbe::new(writing).at(&source.at, None), asked, now);
        self.next_look = match readiness {
            FileReadiness::Ready => None,
            FileReadiness::Wait(time) => Some(Instant::now() + time),
        };
        self.next_look.is_none()
    }

    /// Returns the file of a component as the rules about its origin leave it.
    pub(super) fn judge_file(&mut self, spec: &AgentSpec, path: &Path, found: ComponentFile) -> ComponentFile {
        let findings = match &found {
            ComponentFile::Found(digest) if judges_origin(&self.rules) => {
                let signed = match self.rules.signatures_required {
                    true => self.signatures.check_any(&[&signature_path(path)], *digest),
                    false => SignatureCheck::Absent,
                };
                self.rules.judge_origin(&spec.name, &spec.component, *digest, &signed)
            }
            ComponentFile::Found(_) | ComponentFile::Unusable(_) => Vec::new(),
        };
        if findings.is_empty() {
            self.refused.remove(&spec.name);
            return found;
        }
        let why = refusal(&spec.component, &findings);
        // Reported once, although every scan judges again.
        if self.refused.insert(spec.name.clone(), why.clone()).as_ref() != Some(&why) {
            self.news.push((spec.name.clone(), findings));
        }
        ComponentFile::Unusable(why)
    }
}

/// Returns `true` if rules are about the origin of bytes.
fn judges_origin(rules: &Policy) -> bool {
    !rules.digests.is_empty() || rules.signatures_required
}

/// Returns the reason why a component is refused. `shown` is its path in the declaration.
pub(super) fn refusal(shown: &str, findings: &[Finding]) -> String {
    format!("{shown}: {}", ProgramError::Findings(findings.to_vec()))
}
