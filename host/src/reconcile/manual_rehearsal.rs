//! The rehearsal of a component on request, beside what runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use caxton_control::policy::{ComponentFacts, Policy};
use caxton_control::rollout::MemoryHandover;
use caxton_control::{AgentSpec, RevisionId};
use tokio::sync::oneshot;

use super::reconciler::Reconciler;
use super::settings_check::check_settings;
use super::signatures::{check_signatures, signature_path};
use crate::agent::{Agent, InitialMemory, RehearsalJob, Revision};
use crate::api_types::{RehearsalError, RehearsalFailure, RehearsalRequest, RehearsalResult};
use crate::message::Identity;
use crate::wasm::{Kind, Program, ProgramError, Runtime, Summary, digest};

/// The number in the id of a component that never becomes a revision.
const NO_REVISION: u64 = 0;

impl Reconciler {
    /// Starts a task that rehearses a component with the latest messages of an agent, and answers.
    pub(super) fn rehearse_on_request(
        &self,
        request: RehearsalRequest,
        mut answer: oneshot::Sender<Result<RehearsalResult, RehearsalError>>,
    ) {
        let managed = self.managed.iter().find(|(name, _)| name.as_str() == request.agent).map(|(_, managed)| managed);
        let Some((managed, stable)) = managed.and_then(|managed| Some((managed, managed.agent.current()?))) else {
            let why = format!("no revision of `{}` runs", request.agent);
            // The caller may have gone away.
            let _ = answer.send(Err(RehearsalError::Unavailable(why)));
            return;
        };
        let declared = self.wanted.get(managed.agent.name());
        let version = declared.map_or(stable.spec.state.version, |wanted| wanted.spec.state.version);
        let manual = ManualRehearsal {
            runtime: Arc::clone(&self.runtime),
            agent: Arc::clone(&managed.agent),
            stable,
            folder: self.context.store.folder().to_owned(),
            version,
            policy: Arc::clone(&self.policy.rules),
            signatures: signature_path(&self.declared.dir.join(&managed.agent.spec().component)),
            request,
        };
        tokio::spawn(async move {
            // The caller has gone away: the rehearsal is dropped.
            let rehearsed = tokio::select! {
                () = answer.closed() => return,
                rehearsed = manual.rehearse() => rehearsed,
            };
            let _ = answer.send(rehearsed);
        });
    }
}

/// A rehearsal on request.
struct ManualRehearsal {
    runtime: Arc<Runtime>,
    agent: Arc<Agent>,
    stable: Arc<Revision>,
    /// The data folder, which has the bytes while they are compiled.
    folder: PathBuf,
    /// The declared version of the format of the agent's state.
    version: u32,
    /// The rules that the component has to follow.
    policy: Arc<Policy>,
    /// The file with the signatures of the agent's component, which may have one of this component too.
    signatures: PathBuf,
    request: RehearsalRequest,
}

/// The rules that a component has to follow before it is rehearsed.
struct RehearsalRules<'a> {
    policy: &'a Policy,
    /// The file with the signatures of the agent's component.
    signatures: &'a Path,
}

impl RehearsalRules<'_> {
    /// Compiles a component, if the rules allow it. `folder` has the bytes meanwhile.
    async fn load(
        &self,
        runtime: &Runtime,
        folder: &Path,
        spec: &AgentSpec,
        component: &[u8],
    ) -> Result<Arc<Program>, RehearsalError> {
        let host = |error: std::io::Error| RehearsalError::Host(format!("the component cannot be kept: {error}"));
        let unusable = |error: ProgramError| RehearsalError::Component(error.to_string());
        let digest = digest(component);
        let signed = check_signatures(self.signatures, digest);
        let refused = self.policy.judge_origin(&spec.name, &spec.component, digest, &signed);
        if !refused.is_empty() {
            return Err(unusable(ProgramError::Findings(refused)));
        }
        // A file, because the child process that compiles reads from a path.
        let file = tempfile::Builder::new().prefix("rehearse-").suffix(".tmp").tempfile_in(folder).map_err(host)?;
        tokio::fs::write(file.path(), component).await.map_err(host)?;
        let program = runtime.program(file.path(), digest, spec.limits.fuel.is_some(), |_| ()).await;
        let program = program.map_err(unusable)?;
        let Summary { imports, exports, size, .. } = &program.summary;
        let mut refused = self.policy.judge_component(ComponentFacts { imports, exports, size: *size });
        if let Some(features) = &self.policy.features {
            refused.extend(runtime.features(file.path(), digest, features).await.map_err(unusable)?);
        }
        if refused.is_empty() { Ok(program) } else { Err(unusable(ProgramError::Findings(refused))) }
    }
}

impl ManualRehearsal {
    async fn rehearse(self) -> Result<RehearsalResult, RehearsalError> {
        let Self { runtime, agent, stable, folder, version, policy, signatures, request } = self;
        let unusable = |why: String| RehearsalError::Component(why);
        let spec = agent.spec();
        let digest = digest(&request.component);
        let rules = RehearsalRules { policy: &policy, signatures: &signatures };
        let program = rules.load(&runtime, &folder, &spec, &request.component).await?;
        // Checked before the settings, whose errors would miss the point.
        if program.summary.kind == Kind::Http {
            let why = "it is an HTTP agent, whose calls are not kept: there is nothing to rehearse with";
            return Err(unusable(why.to_owned()));
        }
        check_settings(&spec, &program.summary).map_err(unusable)?;
        let id = Arc::new(RevisionId { agent: agent.name().clone(), number: NO_REVISION });
        let who = Identity {
            revision: id,
            spec: Arc::clone(&spec),
            state_bytes: Arc::clone(agent.state_bytes()),
            peak_memory: Arc::default(),
        };
        let before = stable.spec.state.version;
        // As in a rollout of the declaration.
        let migrate_from = (program.summary.migrates && version != before).then_some(before);
        let candidate = stable.pool.of_other(program, Arc::new(who));
        let rehearsal = RehearsalJob {
            candidate,
            stable: Some(Arc::clone(&stable)),
            messages: request.messages,
            memory: match spec.rollout.reload.state {
                MemoryHandover::Migrate => InitialMemory::Live,
                MemoryHandover::Discard => InitialMemory::Empty,
            },
            migrate_from,
            // A person wants to see all failures.
            stops_at_first: false,
            // The answers of the running revision are needed, so that the rehearsal ends with it.
            stop: stable.interrupted(),
        };
        let done = agent.rehearse(rehearsal).await.map_err(RehearsalError::Host)?;
        let refused = done.answers().refusal(spec.rollout.rollback.rules.match_percent);
        let failed = |(message, why)| RehearsalFailure { message, why };
        Ok(RehearsalResult {
            agent: request.agent,
            stable: stable.id.to_string(),
            digest: digest.to_string(),
            passed: done.failure().is_none() && refused.is_none(),
            messages: done.messages,
            handled: done.passed,
            set_aside: done.set_aside,
            failed: done.failed.into_iter().map(failed).collect(),
            unready: done.start_error,
            alike: done.comparison.alike,
            otherwise: done.comparison.otherwise,
            not_compared: done.comparison.not_compared,
            differences: done.comparison.differing,
            by_nature: done.comparison.by_nature,
            refused,
        })
    }
}
