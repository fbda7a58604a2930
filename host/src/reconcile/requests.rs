//! The requests of others to the reconciler.

use caxton_control::plan::ComponentFile;

use super::declaration_file::{DeferredRequest, file_errors};
use super::handle::{AgentSelection, Request, Wake};
use super::reconciler::Reconciler;
use super::settings_check::check_settings;
use crate::api_types::FileError;
use crate::config::Loaded;

impl Reconciler {
    /// Carries out a request and answers it, now or later.
    pub(super) fn handle_request(&mut self, request: Request) {
        // Errors of `send` are ignored: the caller may have gone away before the answer.
        match request {
            // Half a file would remove the agents of the other half.
            Request::Apply(_) | Request::Diff(_) if !self.is_complete() => {
                self.declaration.defer(DeferredRequest::Request(request));
            }
            Request::Apply(answer) => {
                self.reload_policy(true);
                let loaded = self.source.load(&self.policy.operator, Some(&self.declared));
                let unusable = loaded.as_ref().map_or_else(|_| Vec::new(), |loaded| self.unusable_settings(loaded));
                if !unusable.is_empty() {
                    let _ = answer.send(Err(unusable));
                    return;
                }
                // Compared with what runs and not with the last declaration, which may be this one already.
                let changes = loaded.as_ref().map_or_else(|_| Vec::new(), |loaded| self.changes_with(&loaded.desired));
                self.load_declaration(loaded, true);
                if self.file_errors.is_empty() {
                    self.retry();
                    self.scan_components(true);
                    self.pending_applies.push((answer, changes));
                } else {
                    let _ = answer.send(Err(self.file_errors.clone()));
                }
            }
            Request::Reload(answer) => {
                self.wake(Wake::All);
                self.pending_applies.push((answer, Vec::new()));
            }
            Request::Diff(answer) => {
                let found = self
                    .source
                    .load(&self.policy.operator, Some(&self.declared))
                    .map_err(|errors| file_errors(&errors));
                let _ = answer.send(found.map(|loaded| self.changes_with(&loaded.desired)));
            }
            Request::Status(answer) => {
                self.reconcile_timed();
                let _ = answer.send(self.status());
            }
            Request::Agents(AgentSelection::After { name, count }, answer) => {
                self.reconcile_timed();
                let _ = answer.send(self.agents_after(name.as_deref(), count));
            }
            Request::Rollouts(agents, answer) => {
                // A pass first, so that the statistics are current.
                match &agents {
                    AgentSelection::Named(name) => self.mark(name),
                    AgentSelection::After { .. } => self.mark_rolling_out(),
                }
                self.reconcile();
                let _ = answer.send(self.rollouts(&agents));
            }
            Request::Rollout(request, answer) => {
                let _ = answer.send(self.command_rollout(request));
            }
            Request::Rehearse(request, answer) => self.rehearse_on_request(request, answer),
            Request::Agents(AgentSelection::Named(name), answer) => {
                self.mark(&name);
                self.reconcile();
                let _ = answer.send(self.agent_status(&name, &self.turn()).into_iter().collect());
            }
        }
    }

    /// Returns the settings that cannot act on the running components, as errors of the file. Settings for another
    /// component are checked when its revision is prepared.
    fn unusable_settings(&mut self, loaded: &Loaded) -> Vec<FileError> {
        self.files.begin(true);
        let mut unusable = Vec::new();
        for (name, spec) in &loaded.desired.agents {
            let Some(current) = self.managed.get(name).and_then(|managed| managed.agent.current()) else { continue };
            let Err(message) = check_settings(spec, &current.pool.program.summary) else { continue };
            let found = self.files.component_at(&loaded.dir.join(&spec.component), &spec.component);
            if found == ComponentFile::Found(current.digest) {
                unusable.push(FileError {
                    code: "settings".to_owned(),
                    place: self.source.file.display().to_string(),
                    key: format!("agents.{name}"),
                    message,
                    help: Some("change the setting, or the component".to_owned()),
                });
            }
        }
        unusable
    }
}
