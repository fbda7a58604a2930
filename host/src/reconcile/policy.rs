//! The operator's own file and the rules for components: read again when the file changes, and applied to the files of
//! components and to what runs.
//!
//! Digests and signatures are judged at each scan of the files, so that a component is taken up once its signature is
//! there; everything else when a revision is prepared. What runs is judged again when the rules change, and goes on.

use std::sync::Arc;

use caxton_control::AgentName;
use caxton_control::inspection::Finding;
use caxton_control::policy::{ComponentFacts, SignatureCheck};
use serde_json::json;

use super::declaration_file::{DeferredRequest, OperatorSource, file_errors};
use super::reconciler::Reconciler;
use super::signatures::signature_path;
use crate::config::ConfigErrors;

impl Reconciler {
    /// Reads the operator's own file again, if it has changed and is complete. `asked` says that an operator asks for it.
    pub(super) fn reload_policy(&mut self, asked: bool) {
        let Some(source) = self.source.policy.clone() else { return };
        if !self.policy.is_complete(&source, self.files.writing(), asked) {
            return;
        }
        let loaded = match source.load() {
            Ok(loaded) => loaded,
            Err(errors) => return self.refuse_policy(&source, &errors),
        };
        if !std::mem::take(&mut self.policy.errors).is_empty() {
            tracing::info!(file = %source.file.display(), "the file of the operator has no errors any more");
            self.mark_readiness_stale();
        }
        // The digest and not the stamp, because editors write files without changing them.
        if self.policy.text_digest == Some(loaded.text_digest) {
            return;
        }
        tracing::info!(file = %source.file.display(), "the operator's policy has changed");
        self.context.events.emit(None, "policy.taken", json!({ "digest": loaded.text_digest }));
        (self.policy.operator, self.policy.text_digest) = (loaded.operator, Some(loaded.text_digest));
        // Its ceilings bound the declaration, also one that has not changed.
        if self.is_complete_or_defers(DeferredRequest::All) {
            let declared = self.source.load(&self.policy.operator, Some(&self.declared));
            self.load_declaration(declared, false);
        }
        // Also with a declaration that has errors now: the rules for components hold.
        if self.update_rules() {
            self.scan_components(false);
        }
    }

    /// Records the errors of the operator's own file. What it said before stays in force.
    fn refuse_policy(&mut self, source: &OperatorSource, errors: &ConfigErrors) {
        let found = file_errors(errors);
        if found != self.policy.errors {
            let file = source.file.display();
            tracing::error!("{file} has errors; the policy stays as it was:\n{}", errors.plain());
            self.context.events.emit(None, "policy.refused", json!({ "errors": found }));
        }
        self.policy.errors = found;
        self.mark_readiness_stale();
    }

    /// Brings the rules in force up to date with both files. Returns `true` if they have changed.
    pub(super) fn update_rules(&mut self) -> bool {
        let rules = self.policy.operator.policy().stricter(&self.declared.desired.policy);
        if *self.policy.rules == rules {
            return false;
        }
        self.policy.rules = Arc::new(rules);
        let names: Vec<AgentName> = self.managed.keys().cloned().collect();
        names.iter().for_each(|name| self.recheck_policy(name));
        // What was refused may be allowed now.
        self.retry();
        true
    }

    /// Emits `component.refused` for the files that the last scan has refused.
    pub(super) fn report_refused_files(&mut self) {
        for (name, findings) in std::mem::take(&mut self.policy.news) {
            self.context.events.emit(Some(name.as_str()), "component.refused", json!({ "findings": findings }));
        }
    }

    /// Judges the running revision of an agent by the rules in force. One that violates them goes on until it is started
    /// again; that is reported.
    pub(super) fn recheck_policy(&mut self, name: &AgentName) {
        let Some(managed) = self.managed.get_mut(name) else { return };
        let findings = managed.agent.current().map_or_else(Vec::new, |current| {
            let (rules, spec) = (&self.policy.rules, &current.spec);
            let signed = match rules.signatures_required {
                true => {
                    let beside = signature_path(&self.declared.dir.join(&spec.component));
                    let kept = self.archive.signatures(current.digest);
                    self.policy.signatures.check_any(&[&kept, &beside], current.digest)
                }
                false => SignatureCheck::Absent,
            };
            let mut findings = rules.judge_origin(name, &spec.component, current.digest, &signed);
            let summary = &current.pool.program.summary;
            let (imports, exports, size) = (&summary.imports, &summary.exports, summary.size);
            findings.extend(rules.judge_component(ComponentFacts { imports, exports, size }));
            findings
        });
        let violated = (!findings.is_empty())
            .then(|| format!("what runs violates the policy, and is refused at its next start: {}", join(&findings)));
        if violated == managed.policy_error {
            return;
        }
        managed.policy_error = violated;
        if let Some(why) = &managed.policy_error {
            tracing::warn!(agent = %name, "{why}");
            self.context.events.emit(Some(name.as_str()), "policy.violated", json!({ "findings": findings }));
        }
        self.note_unusable(name);
        self.mark_readiness_stale();
    }
}

fn join(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
