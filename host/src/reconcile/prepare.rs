//! Bringing a revision to where it can take messages: the long work of the reconciler.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::desired::{Mode, Reuse};
use caxton_control::rollout::Memory;
use caxton_control::{AgentSpec, Digest, RevisionId};

use super::bytes::Bytes;
use super::{Reconciler, Report};
use crate::agent::{Agent, Revision};
use crate::clock;
use crate::context::HostContext;
use crate::directory::HostDirectory;
use crate::store::{RevisionRecord, Snapshot};
use crate::tasks::caught;
use crate::wasm::{Denied, Identity, Kind, Lease, Pool, Program, Runtime, Summary};

/// How long the instances of a revision may take to stand (SPEC §1). Compiling has its own bound.
const TRANSITION: Duration = Duration::from_secs(30);

/// One preparation.
struct Preparation {
    context: Arc<HostContext>,
    directory: Arc<HostDirectory>,
    runtime: Arc<Runtime>,
    agent: Arc<Agent>,
    id: Arc<RevisionId>,
    spec: Arc<AgentSpec>,
    digest: Digest,
    path: PathBuf,
    bytes: Bytes,
    /// Instances that are to stand; with 0 one is started to try it.
    instances: u32,
    /// Whether no other revision has the memory of a stateful agent, or is to have it.
    alone: bool,
    /// Set if it ran before: then the store knows it, and settings that were changed in place since keep it from nothing.
    ran: bool,
}

impl Reconciler {
    /// Begins to take a revision from unloaded to ready.
    pub(super) fn prepare(&mut self, revision: &RevisionId, instances: u32) {
        let path_of = |spec: &AgentSpec| self.declared.dir.join(&spec.component);
        let ran = self.ledgers.get(&revision.agent).is_some_and(|ledger| ledger.has_run(revision.number));
        let Some(entry) = self.entries.get_mut(&revision.agent) else { return };
        let agent = Arc::clone(&entry.agent);
        let alone = self.ledgers.get(&revision.agent).is_none_or(|ledger| ledger.open().is_none());
        let Some(record) = entry.record(revision.number) else { return };
        record.busy = true;
        let (spec, digest) = (Arc::clone(&record.spec), record.digest);
        let preparation = Preparation {
            context: Arc::clone(&self.context),
            directory: Arc::clone(&self.directory),
            runtime: Arc::clone(&self.runtime),
            agent,
            id: Arc::new(revision.clone()),
            path: path_of(&spec),
            spec,
            digest,
            bytes: self.bytes.clone(),
            instances,
            alone,
            ran,
        };
        let reports = self.reports.0.clone();
        let (name, number) = (revision.agent.clone(), revision.number);
        tokio::spawn(async move {
            let loaded_now = Report::Loaded { agent: name.clone(), number };
            let prepare = async {
                let program = preparation.load().await?;
                // The reconciler is gone only when the host stops.
                let _ = reports.send(loaded_now).await;
                preparation.start(program).await
            };
            // A component that no engine foresaw fails, and takes nobody with it.
            let result = match caught(prepare).await {
                Ok(result) => result,
                Err(panic) => Err(format!("the host panicked: {panic}")),
            };
            let _ = reports.send(Report::Prepared { agent: name, number, result }).await;
        });
    }
}

/// What a component is against what its agent's settings say.
///
/// # Errors
/// Why they do not fit, for a person.
pub(crate) fn judge(spec: &AgentSpec, summary: &Summary) -> Result<(), String> {
    let limit = spec.limits.memory_bytes;
    if summary.memory_bytes > limit {
        return Err(format!(
            "the component begins with {} bytes of memory, more than limits.memory ({limit} bytes); raise it",
            summary.memory_bytes
        ));
    }
    if let (Kind::Stateful, Reuse::Own(times)) = (summary.kind, spec.instances.reuse) {
        return Err(format!(
            "it keeps state in its memory, which its one instance has as long as it lives: `instances.reuse` = {times} is \
             for other agents; take it out"
        ));
    }
    if summary.kind != Kind::Stateful && spec.snapshot.own {
        return Err("it keeps nothing in its memory, so `snapshot.max` bounds nothing: it is for agents that export \
            caxton:agent/snapshot; leave it out"
            .to_owned());
    }
    if summary.kind == Kind::Http && spec.http.iter().any(|route| route.mode == Mode::Enqueue) {
        return Err("it is an HTTP agent, which answers itself: a route with mode = \"enqueue\" is for agents that take messages".to_owned());
    }
    if summary.kind == Kind::Http && spec.rollout.rollback.rehearse > 0 {
        return Err("it is an HTTP agent, whose calls are not kept: `rollback.rehearse` is for agents that take messages; set it to 0".to_owned());
    }
    if summary.kind == Kind::Http && !spec.schedules.is_empty() {
        return Err("it is an HTTP agent: a schedule is for agents that take messages".to_owned());
    }
    Ok(())
}

impl Preparation {
    /// Validates and compiles, unless that was done before.
    async fn load(&self) -> Result<Arc<Program>, String> {
        self.keep().await?;
        let shown = self.spec.component.as_str();
        let path = tokio::task::block_in_place(|| self.bytes.keep(self.digest, &self.path));
        let began = Instant::now();
        let mut compiling = false;
        let name = self.id.agent.clone();
        let program = self
            .runtime
            .program(&path, self.digest, self.spec.limits.fuel.is_some(), |bytes| {
                compiling = true;
                tracing::info!(agent = %name, "compiling {shown} ({} kB); this is done once", bytes / 1_000);
            })
            .await
            .map_err(|error| format!("{shown}: {error}"))?;
        if compiling {
            tracing::info!(agent = %self.id.agent, "compiled {shown} in {:.1} s", began.elapsed().as_secs_f64());
        }
        // One that ran before came to run with its own settings. What was changed in place since, and cannot act, is told
        // of when it runs again; to fail it for that would leave its callers with nobody.
        if !self.ran {
            judge(&self.spec, &program.summary)?;
        }
        Ok(program)
    }

    /// Keeps the revision's number, digest and settings, so that the number is never used for others.
    async fn keep(&self) -> Result<(), String> {
        let last = self.context.store.last_revision(self.id.agent.as_str())?;
        if self.ran || last.is_some_and(|(number, ..)| number >= self.id.number) {
            return Ok(());
        }
        let record = RevisionRecord {
            agent: self.id.agent.shared(),
            number: self.id.number,
            digest: self.digest.to_string(),
            settings: self.spec.revision_settings().to_owned(),
            created_at: clock::now_ms(),
        };
        self.context.store.keep_revision(record).await.map_err(|error| error.to_string())
    }

    /// Starts the first instances and asks them whether they can work.
    async fn start(&self, program: Arc<Program>) -> Result<(Arc<Revision>, u32), String> {
        let stateful = program.summary.kind == Kind::Stateful;
        let who = Arc::new(Identity {
            revision: Arc::clone(&self.id),
            spec: Arc::clone(&self.spec),
            state_bytes: Arc::clone(self.agent.state_bytes()),
            peak_memory: Arc::default(),
            denied: Denied::default(),
        });
        let outside = Arc::clone(&self.directory) as Arc<dyn crate::wasm::Outside>;
        let instances = &self.spec.instances;
        let pool = Pool::new(&self.runtime, program, who, outside, instances.max);
        // Another has the memory until the handoff; one that is alone has to show that it can take it up.
        let count = if stateful { u32::from(self.alone) } else { self.instances };
        let stand = async { if count == 0 { pool.try_out().await } else { pool.warm(count).await } };
        match tokio::time::timeout(TRANSITION, stand).await {
            Ok(Ok(())) => {
                let revision = Revision::new(
                    Arc::clone(&self.id),
                    Arc::clone(&self.spec),
                    self.digest,
                    pool,
                    Arc::clone(&self.context),
                );
                Ok((revision, self.instances))
            }
            Ok(Err(fault)) => Err(fault.to_string()),
            Err(_) => Err(format!("its instances did not stand within {} s", TRANSITION.as_secs())),
        }
    }
}

/// Lets so many instances of a revision stand.
pub(super) async fn stand(revision: &Revision, instances: u32) -> Result<(), String> {
    match tokio::time::timeout(TRANSITION, revision.pool.warm(instances)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(fault)) => Err(fault.to_string()),
        Err(_) => Err(format!("its instances did not stand within {} s", TRANSITION.as_secs())),
    }
}

/// Gives a revision back the memory that it handed over; what the `old` one remembered since is dropped. The mailbox
/// is paused. The old one goes on as it was if that memory is not taken up.
pub(super) async fn take_back(agent: &Agent, old: Option<&Arc<Revision>>, new: &Arc<Revision>) -> Result<(), String> {
    let old = old.filter(|old| !Arc::ptr_eq(old, new));
    let handed = agent.handed_over(new.id.number)?;
    stands(new, handed.as_deref()).await?;
    if let Some(old) = old {
        // What it has in hand is handled again, by the other.
        old.interrupt();
    }
    // Held until the memory is the agent's again: a sweep would save what is to be dropped.
    let ends = match old {
        Some(old) => old.pool.lease_at_rest().await,
        None => None,
    };
    let taken = agent.take_back(new.id.number).await;
    // The old instance ends with the lease.
    drop(ends);
    taken.map_err(|error| format!("its memory could not be taken back: {error}"))
}

/// Lets an instance of a stateful agent stand that remembers `memory`, or nothing.
async fn stands(revision: &Arc<Revision>, memory: Option<&[u8]>) -> Result<(), String> {
    let stands = async {
        match memory {
            Some(memory) => revision.pool.take_up(memory).await,
            None => revision.pool.begin_anew().await,
        }
    };
    match tokio::time::timeout(TRANSITION, stands).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(fault)) => Err(fault.to_string()),
        Err(_) => Err(format!("its instance did not stand within {} s", TRANSITION.as_secs())),
    }
}

/// Takes the memory of a stateful agent from its running revision to a ready one, or lets that one begin anew. The
/// mailbox is paused and the old instance at rest. When this fails the old revision still has everything.
pub(super) async fn hand_off(
    agent: &Agent,
    old: &Arc<Revision>,
    new: &Arc<Revision>,
    memory: Memory,
) -> Result<(), String> {
    let began = Instant::now();
    let handed = match memory {
        Memory::Migrate => migrate(agent, old, new).await,
        Memory::Discard => discard(agent, old, new).await,
    };
    if handed.is_ok() {
        metrics::histogram!("caxton_handoff_seconds").record(began.elapsed());
    }
    handed
}

/// The candidate takes up what was saved while that is written: the mailbox waits for the longer of both, and messages
/// go to the candidate only after both. The disk has it before anything that the candidate does.
async fn migrate(agent: &Agent, old: &Arc<Revision>, new: &Arc<Revision>) -> Result<(), String> {
    let (lease, given) = save(agent, old).await?;
    let stands = async {
        match &given {
            Given::Memory(snapshot) => new.pool.take_up(&snapshot.data).await,
            Given::Before | Given::Nothing => new.pool.warm(1).await,
        }
    };
    let (kept, stands) = tokio::join!(keep(agent, old, &given), tokio::time::timeout(TRANSITION, stands));
    let stands = match stands {
        Ok(stands) => stands.map_err(|fault| fault.to_string()),
        Err(_) => Err(format!("it did not take up the memory within {} s", TRANSITION.as_secs())),
    };
    // Of both reasons the disk's is the weightier.
    let handed = kept.and(stands);
    if handed.is_err() {
        give_back(lease);
    }
    handed
}

/// The candidate begins anew, and what the old one knew is kept for an undo.
async fn discard(agent: &Agent, old: &Arc<Revision>, new: &Arc<Revision>) -> Result<(), String> {
    let (lease, kept) = match save(agent, old).await {
        Ok((lease, given)) => (lease, keep(agent, old, &given).await),
        Err(why) => (None, Err(why)),
    };
    if let Err(why) = kept {
        // Perhaps that is why it is discarded.
        tracing::warn!(agent = %agent.name(), "{why}; an undo has only that");
        if let Err(why) = keep(agent, old, &Given::Before).await {
            give_back(lease);
            return Err(why);
        }
    }
    let stands = async {
        new.pool.begin_anew().await.map_err(|fault| fault.to_string())?;
        agent.discard().await.map_err(|error| format!("the old memory could not be discarded: {error}"))
    };
    let handed = match tokio::time::timeout(TRANSITION, stands).await {
        Ok(stands) => stands,
        Err(_) => Err(format!("it did not begin anew within {} s", TRANSITION.as_secs())),
    };
    if handed.is_err() {
        give_back(lease);
    }
    handed
}

/// What a revision gave to be handed over.
enum Given {
    /// Its memory.
    Memory(Arc<Snapshot>),
    /// Its memory was saved before, when its instance ended.
    Before,
    /// It has none.
    Nothing,
}

/// Lets a revision save its memory. Gives its instance too, which is not used until it is given back; none if it has
/// none.
async fn save(agent: &Agent, old: &Arc<Revision>) -> Result<(Option<Lease>, Given), String> {
    let Some(lease) = old.pool.lease_at_rest().await else { return Ok((None, Given::Before)) };
    let (lease, saved) = agent.save(old, lease).await?;
    Ok((Some(lease), saved.map_or(Given::Nothing, Given::Memory)))
}

/// Keeps what a revision gave as the agent's memory and as what that revision handed over.
async fn keep(agent: &Agent, old: &Arc<Revision>, given: &Given) -> Result<(), String> {
    let kept = match given {
        Given::Memory(snapshot) => agent.keep_handoff(Arc::clone(snapshot)).await,
        Given::Before => agent.keep_saved_as_handoff(old.id.number).await,
        Given::Nothing => Ok(()),
    };
    kept.map_err(|error| match given {
        Given::Memory(_) => agent.not_saved(old, &format!("its memory could not be kept: {error}")),
        Given::Before | Given::Nothing => format!("the memory of {} could not be kept: {error}", old.id),
    })
}

/// The old revision goes on with its instance.
fn give_back(lease: Option<Lease>) {
    if let Some(lease) = lease {
        lease.finish(true);
    }
}
