//! The preparation of a revision until it can take messages.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::inspection::{Finding, in_order};
use caxton_control::policy::{ComponentFacts, Policy, SignatureCheck};
use caxton_control::{AgentSpec, Digest, RevisionId};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::component_archive::ComponentArchive;
use super::policy_state::refusal;
use super::reconciler::Reconciler;
use super::settings_check::{check_settings, memory_finding};
use super::signatures::{self, signature_path};
use super::task_report::{PreparationError, TaskReport};
use crate::agent::{Agent, Revision};
use crate::clock;
use crate::context::HostContext;
use crate::directory::HostDirectory;
use crate::folders;
use crate::message::Identity;
use crate::store::RevisionRecord;
use crate::tasks::caught;
use crate::wasm::{Kind, Pool, Program, ProgramError, Runtime, Summary};

/// The time limit for starting the instances of a revision (SPEC §1). Compiling has a limit of its own.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The preparation of one revision.
struct Preparation {
    context: Arc<HostContext>,
    directory: Arc<HostDirectory>,
    runtime: Arc<Runtime>,
    agent: Arc<Agent>,
    id: Arc<RevisionId>,
    spec: Arc<AgentSpec>,
    digest: Digest,
    path: PathBuf,
    /// The folder of the declaration, from which the paths of folders start.
    dir: PathBuf,
    archive: ComponentArchive,
    /// The number of instances to start; with 0 one is started on trial and ended.
    instances: u32,
    /// Set if no other revision of the agent takes part in a rollout, so that this one has the memory of a stateful
    /// agent.
    owns_memory: bool,
    /// A token that is cancelled when the agent is removed.
    cancelled: CancellationToken,
    /// The rules that the component has to follow.
    policy: Arc<Policy>,
    /// Set if the revision ran before. Then the store knows it, and its settings are not checked again.
    has_run: bool,
    /// Set if the store cannot know the revision.
    is_new: bool,
}

impl Reconciler {
    /// Starts the task that takes a revision from unloaded to ready.
    pub(super) fn prepare(&mut self, revision: &RevisionId, instances: u32) {
        let path_of = |spec: &AgentSpec| self.declared.dir.join(&spec.component);
        let has_run = self.ledgers.get(&revision.agent).is_some_and(|ledger| ledger.has_run(revision.number));
        let Some(managed) = self.managed.get_mut(&revision.agent) else { return };
        let agent = Arc::clone(&managed.agent);
        let owns_memory = self.ledgers.get(&revision.agent).is_none_or(|ledger| ledger.open().is_none());
        let Some(managed_revision) = managed.revision_mut(revision.number) else { return };
        // Until the task reports: the plan would start another preparation otherwise.
        managed_revision.busy = true;
        let cancelled = CancellationToken::new();
        managed_revision.preparing = Some(cancelled.clone());
        let is_new = std::mem::take(&mut managed_revision.is_new);
        let (spec, digest) = (Arc::clone(&managed_revision.spec), managed_revision.digest);
        let preparation = Preparation {
            context: Arc::clone(&self.context),
            directory: Arc::clone(&self.directory),
            runtime: Arc::clone(&self.runtime),
            agent,
            id: Arc::new(revision.clone()),
            path: path_of(&spec),
            dir: self.declared.dir.clone(),
            spec,
            digest,
            archive: self.archive.clone(),
            instances,
            owns_memory,
            cancelled,
            policy: Arc::clone(&self.policy.rules),
            has_run,
            is_new,
        };
        let reports = self.reports.0.clone();
        // Begun when it is its turn: the future of a preparation takes some kilobytes.
        self.preparations.push(move || {
            let guests = preparation.context.guests.clone();
            // A guest may compute when it starts and when its health is checked.
            tokio::spawn(guests.movable(Box::pin(async move {
                let (agent, number) = (preparation.id.agent.clone(), preparation.id.number);
                let result = preparation.run(&reports).await;
                // The reconciler is gone only when the host stops.
                let _ = reports.send(TaskReport::Prepared { agent, number, result }).await;
            })));
        });
    }
}

impl Preparation {
    /// Takes the revision from unloaded to ready, unless its agent is removed meanwhile.
    async fn run(&self, reports: &mpsc::Sender<TaskReport>) -> Result<(Arc<Revision>, u32), PreparationError> {
        let loaded = TaskReport::Loaded { agent: self.id.agent.clone(), number: self.id.number };
        let prepare = async {
            let program = self.load().await?;
            // The reconciler is gone only when the host stops.
            let _ = reports.send(loaded).await;
            self.start(program).await
        };
        // Caught, so that a defect of the engine fails this revision and not the host.
        let prepared = tokio::select! {
            // First: a preparation that waited for its place may be of no use any more.
            biased;
            // Dropping the other branch ends the compiler's process.
            () = self.cancelled.cancelled() => return Err(PreparationError::Cancelled),
            prepared = caught(prepare) => prepared,
        };
        match prepared {
            Ok(result) => result.map_err(PreparationError::Failed),
            Err(panic) => Err(PreparationError::Failed(format!("the host panicked: {panic}"))),
        }
    }

    /// Validates and compiles the component, unless its code is cached.
    async fn load(&self) -> Result<Arc<Program>, String> {
        // First: the number must be durable before anything can carry it.
        self.keep().await?;
        let shown = self.spec.component.as_str();
        // Before it is compiled, so that an undo has the bytes even if the file changes meanwhile.
        let kept = self.archive.kept(self.digest);
        let path = kept.unwrap_or_else(|| tokio::task::block_in_place(|| self.archive.keep(self.digest, &self.path)));
        // Before it is compiled: who may not run it has no claim on the compiler either.
        let refused = self.judge_origin();
        if !refused.is_empty() {
            return Err(self.refuse(&path, refused).await);
        }
        let began = Instant::now();
        let mut compiling = false;
        let name = self.id.agent.clone();
        let program = self
            .runtime
            .program(&path, self.digest, self.spec.limits.fuel.is_some(), |bytes| {
                compiling = true;
                tracing::info!(agent = %name, "compiling {shown} ({} kB); this is done once", bytes / 1_000);
            })
            .await;
        let program = match program {
            Ok(program) => program,
            Err(ProgramError::Findings(found)) => return Err(self.refuse(&path, found).await),
            Err(error) => return Err(format!("{shown}: {error}")),
        };
        if compiling {
            tracing::info!(agent = %self.id.agent, "compiled {shown} in {:.1} s", began.elapsed().as_secs_f64());
        }
        let refused = self.judge_component(&path, &program.summary).await?;
        if !refused.is_empty() {
            return Err(self.refuse(&path, refused).await);
        }
        // A revision that ran before had valid settings. Those changed in place since are checked once it runs: failing
        // an undo for them would leave the callers without any revision.
        if !self.has_run {
            check_settings(&self.spec, &program.summary)?;
        }
        Ok(program)
    }

    /// Judges digest and signatures, also of a revision that ran before: the rules may have changed since.
    fn judge_origin(&self) -> Vec<Finding> {
        let (kept, beside) = (self.archive.signatures(self.digest), signature_path(&self.path));
        let read = || {
            self.archive.keep_signatures(self.digest, &beside);
            match self.policy.signatures_required {
                true => signatures::check_any(&[&kept, &beside], self.digest),
                false => SignatureCheck::Absent,
            }
        };
        // A thread that says that it blocks hands over all its tasks, which takes longer than most preparations.
        let signed = match self.policy.signatures_required || beside.exists() {
            true => tokio::task::block_in_place(read),
            false => SignatureCheck::Absent,
        };
        self.policy.judge_origin(&self.spec.name, &self.spec.component, self.digest, &signed)
    }

    /// Judges a component that can be read, by the rules that its origin leaves.
    async fn judge_component(&self, path: &Path, summary: &Summary) -> Result<Vec<Finding>, String> {
        let facts = ComponentFacts { imports: &summary.imports, exports: &summary.exports, size: summary.size };
        let mut findings = self.policy.judge_component(facts);
        // One that ran before did so with these limits.
        findings.extend(memory_finding(&self.spec, summary).filter(|_| !self.has_run));
        if let Some(features) = &self.policy.features {
            let found = self.runtime.features(path, self.digest, features).await;
            findings.extend(found.map_err(|error| format!("{}: {error}", self.spec.component))?);
        }
        Ok(findings)
    }

    /// Collects all findings about a component beside those that are known, and reports them. Returns the reason of the
    /// failure.
    async fn refuse(&self, path: &Path, mut findings: Vec<Finding>) -> String {
        findings.extend(self.judge_origin());
        let (others, summary) = self.runtime.inspect(path, &self.policy).await;
        findings.extend(others);
        findings.extend(summary.and_then(|summary| memory_finding(&self.spec, &summary)).filter(|_| !self.has_run));
        let findings = in_order(findings);
        let data = json!({ "revision": self.id.to_string(), "findings": findings });
        self.context.events.emit(Some(self.id.agent.as_str()), "component.refused", data);
        refusal(&self.spec.component, &findings)
    }

    /// Persists the number, digest and settings of the revision, so that the number is never used for another.
    async fn keep(&self) -> Result<(), String> {
        // A restarted host prepares revisions that the store knows already.
        let is_kept = || {
            let last = self.context.store.rollouts().last_revision(self.id.agent.as_str())?;
            Ok::<_, String>(last.is_some_and(|(number, ..)| number >= self.id.number))
        };
        if self.has_run || (!self.is_new && is_kept()?) {
            return Ok(());
        }
        let record = RevisionRecord {
            agent: self.id.agent.shared(),
            number: self.id.number,
            digest: self.digest.to_string(),
            settings: self.spec.revision_settings().to_owned(),
            created_at: clock::now_ms(),
        };
        self.context.store.rollouts().keep_revision(record).await.map_err(|error| error.to_string())
    }

    /// Starts the first instances.
    async fn start(&self, program: Arc<Program>) -> Result<(Arc<Revision>, u32), String> {
        let stateful = program.summary.kind == Kind::Stateful;
        let who = Arc::new(Identity {
            revision: Arc::clone(&self.id),
            spec: Arc::clone(&self.spec),
            state_bytes: Arc::clone(self.agent.state_bytes()),
            peak_memory: Arc::default(),
        });
        let outside = Arc::clone(&self.directory) as Arc<dyn crate::message::GuestHost>;
        let folders = tokio::task::block_in_place(|| folders::open_all(&self.spec, &self.dir));
        let folders = folders.map_err(|fault| format!("allow.files: {fault}"))?;
        let pool = Pool::with_folders(&self.runtime, program, who, outside, folders);
        // During a rollout another revision has the memory until the handoff. Without one, an instance is started even
        // if none is asked for, to see that it can restore the memory.
        let count = if stateful { u32::from(self.owns_memory) } else { self.instances };
        let stand = async { if count == 0 { pool.check_start().await } else { pool.warm(count).await } };
        match in_time(&pool, stand).await {
            Some(Ok(())) => {
                let revision = Revision::new(
                    Arc::clone(&self.id),
                    Arc::clone(&self.spec),
                    self.digest,
                    pool,
                    Arc::clone(&self.context),
                );
                Ok((revision, self.instances))
            }
            Some(Err(fault)) => Err(fault.to_string()),
            None => Err(format!("its instances did not stand within {} s", START_TIMEOUT.as_secs())),
        }
    }
}

/// Waits for the start of instances, for [`START_TIMEOUT`] at most. The time in which the host is short of memory does not
/// count: it says nothing about the revision.
async fn in_time<T>(pool: &Pool, start: impl Future<Output = T>) -> Option<T> {
    let mut start = std::pin::pin!(start);
    loop {
        match tokio::time::timeout(START_TIMEOUT, &mut start).await {
            Ok(started) => return Some(started),
            Err(_) if pool.is_short_of_memory() => {}
            Err(_) => return None,
        }
    }
}

/// Starts instances of a revision until it has this number.
pub(super) async fn start_instances(revision: &Revision, instances: u32) -> Result<(), String> {
    match in_time(&revision.pool, revision.pool.warm(instances)).await {
        Some(Ok(())) => Ok(()),
        Some(Err(fault)) => Err(fault.to_string()),
        None => Err(format!("its instances did not stand within {} s", START_TIMEOUT.as_secs())),
    }
}
