//! Trying a candidate on copies: of live messages while it waits, of the last ones before it does.

use std::path::PathBuf;
use std::sync::Arc;

use caxton_control::rollout::Compared;
use caxton_control::rollout::compare::Ignore;
use caxton_control::rollout::{self, Ledger, Memory, Reload, Strategy};
use caxton_control::{AgentName, RevisionId};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Entry, Reconciler, Report};
use crate::agent::{Agent, AnswerComparison, InitialMemory, RehearsalJob, RehearsalReport, Revision, ShadowSettings};
use crate::context::HostContext;
use crate::status::{self, Differing, NotRehearsed, RehearsalFailure, RehearsalWish};
use crate::wasm::{Denied, Identity, Kind, Runtime, digest};

impl Reconciler {
    /// Lets a candidate handle copies of live messages, or no more of them.
    pub(super) fn shadow(&mut self, revision: &RevisionId, on: bool) {
        let Some(rollout) = self.ledgers.get(&revision.agent).and_then(Ledger::open) else { return };
        let Some(entry) = self.entries.get_mut(&revision.agent) else { return };
        if !on {
            entry.agent.end_shadow();
            return;
        }
        let Strategy::Reload(Reload::Parallel { min_messages, ignore, .. }) = &rollout.settings.strategy else {
            return;
        };
        let lives = entry.live(rollout.from.number).zip(entry.live(rollout.to.number));
        let Some((stable, candidate)) = lives else { return };
        // They were read as paths when the file was.
        let ignore = Ignore::new(ignore.iter().map(String::as_str)).unwrap_or_default();
        let settings = ShadowSettings { rollout: rollout.id, min_messages: *min_messages, ignore };
        tracing::info!(agent = %revision.agent, "{revision} handles copies of what {} handles", stable.id);
        entry.shadow = Some(entry.agent.begin_shadow(&stable, &candidate, settings));
    }

    /// Lets a candidate handle the last messages on a copy.
    pub(super) fn rehearse(&mut self, revision: &RevisionId, messages: u32) {
        let Some(rollout) = self.ledgers.get(&revision.agent).and_then(Ledger::open) else { return };
        let Some(entry) = self.entries.get_mut(&revision.agent) else { return };
        let (agent, stable) = (Arc::clone(&entry.agent), entry.live(rollout.from.number));
        let id = rollout.id;
        let conversion = rollout.conversion.as_ref().filter(|conversion| conversion.migrates);
        let migrate_from = conversion.map(|conversion| conversion.from);
        let memory = match (&rollout.settings.strategy, rollout.settings.state) {
            (Strategy::Undo, _) => InitialMemory::HandedOver(revision.number),
            (Strategy::Deploy(_) | Strategy::Reload(_), Memory::Migrate) => InitialMemory::Live,
            (Strategy::Deploy(_) | Strategy::Reload(_), Memory::Discard) => InitialMemory::Empty,
        };
        let stop = CancellationToken::new();
        entry.rehearsing = Some((id, stop.clone()));
        self.work_on(revision, move |live, revision| async move {
            let candidate = Arc::clone(&live.pool);
            let rehearsal = RehearsalJob { candidate, stable, messages, memory, migrate_from, until_first: true, stop };
            let result = agent.rehearse(rehearsal).await;
            Report::Rehearsed { agent: revision.agent, number: revision.number, rollout: id, result }
        });
    }

    /// Takes in what came of a rehearsal.
    pub(super) fn rehearsed(
        &mut self,
        agent: &AgentName,
        number: u64,
        rollout: u64,
        result: Result<RehearsalReport, String>,
    ) {
        let least = self.ledgers.get(agent).and_then(Ledger::open).filter(|open| open.id == rollout);
        let least = least.and_then(|open| open.settings.rollback.match_percent);
        let Some(entry) = self.entries.get_mut(agent) else { return };
        if let Some(record) = entry.record(number) {
            record.busy = false;
        }
        let told = RevisionId { agent: agent.clone(), number };
        let (outcome, data) = match result {
            Ok(done) => {
                let (failure, answers) = (done.failure(), done.answers());
                let refusal = failure.clone().or_else(|| answers.refusal(least));
                let data = told_of(number, &done, refusal.as_deref());
                let RehearsalReport { messages, passed, comparison, .. } = done;
                match &failure {
                    Some(why) => tracing::warn!(%agent, "the rehearsal of {told} failed: {why}"),
                    None if answers.otherwise > 0 => {
                        tracing::warn!(%agent, "{told} handled {passed} of the last {messages} messages on a copy; {answers}");
                    }
                    None => {
                        tracing::info!(%agent, "{told} handled {passed} of the last {messages} messages on a copy; {answers}");
                    }
                }
                keep(&self.context, agent, rollout, &comparison);
                (failure.map_or(rollout::Rehearsal::Passed(answers), rollout::Rehearsal::Failed), data)
            }
            Err(why) => {
                tracing::warn!(%agent, "{told} could not be rehearsed: {why}");
                let data = serde_json::json!({ "revision": number, "failed": why });
                (rollout::Rehearsal::Failed(why), data)
            }
        };
        entry.rehearsal = Some((rollout, outcome));
        self.context.events.tell(Some(agent.as_str()), "rollout.rehearsed", data);
    }
}

/// The most messages that an event names as answered otherwise; `rollout differences` lists more.
const NAMED: usize = 10;
/// The most bytes of differences that are kept of one rehearsal.
const KEPT_BYTES: usize = 256 << 10;

/// Returns the data of the event `rollout.rehearsed`.
fn told_of(number: u64, done: &RehearsalReport, refusal: Option<&str>) -> serde_json::Value {
    let AnswerComparison { alike, otherwise, not_compared, differing, by_nature } = &done.comparison;
    let first = |differing: &Differing| {
        let place = differing.differences.first()?;
        Some(serde_json::json!({
            "message": differing.message, "path": place.path, "stable": place.stable, "candidate": place.candidate,
        }))
    };
    let differences: Vec<_> = differing.iter().take(NAMED).filter_map(first).collect();
    serde_json::json!({
        "revision": number, "messages": done.messages, "passed": done.passed, "set_aside": done.set_aside,
        "alike": alike, "otherwise": otherwise, "not_compared": not_compared, "differences": differences,
        "by_nature": by_nature.iter().take(NAMED).collect::<Vec<_>>(), "failed": refusal,
    })
}

/// Keeps the differences of a rehearsal's answers, where those of copies of live messages are kept later.
fn keep(context: &HostContext, agent: &AgentName, rollout: u64, comparison: &AnswerComparison) {
    let mut bytes = 0;
    let records =
        comparison.differing.iter().map(|message| serde_json::to_string(message).expect("it is text and numbers"));
    let within = |record: &String| {
        bytes += record.len();
        bytes <= KEPT_BYTES
    };
    for (number, record) in (1..).zip(records.take_while(within)) {
        context.store.keep_difference(agent.shared(), rollout, number, record);
    }
    if !comparison.by_nature.is_empty() {
        let paths = serde_json::to_string(&comparison.by_nature).expect("paths are text");
        context.store.keep_difference(agent.shared(), rollout, 0, paths);
    }
}

impl Entry {
    /// Returns the figures of a rollout's rehearsal.
    pub(super) fn rehearsed_answers(&self, rollout: u64) -> Compared {
        match self.rehearsed(rollout) {
            rollout::Rehearsal::Passed(answers) => answers.figures(),
            rollout::Rehearsal::Open | rollout::Rehearsal::Failed(_) => Compared::default(),
        }
    }

    /// Whether copies are made for this rollout.
    pub(super) fn is_shadowed(&self, rollout: u64) -> bool {
        self.shadow.as_ref().is_some_and(|shadow| shadow.rollout() == rollout && shadow.is_active())
    }

    /// How the copies of a rollout were answered.
    pub(super) fn compared(&self, rollout: u64) -> Compared {
        let shadow = self.shadow.as_ref().filter(|shadow| shadow.rollout() == rollout);
        shadow.map(|shadow| shadow.compared()).unwrap_or_default()
    }

    /// What came of a rollout's rehearsal.
    pub(super) fn rehearsed(&self, rollout: u64) -> rollout::Rehearsal {
        let known = self.rehearsal.as_ref().filter(|(of, _)| *of == rollout);
        known.map(|(_, rehearsal)| rehearsal.clone()).unwrap_or_default()
    }

    /// Ends what was tried for another rollout than the one that is open.
    pub(super) fn end_trials(&mut self, open: Option<u64>) {
        if self.shadow.as_ref().is_some_and(|shadow| Some(shadow.rollout()) != open) {
            self.agent.end_shadow();
            self.shadow = None;
        }
        // Who waits for its end waits no longer for it.
        if let Some((_, stop)) = self.rehearsing.take_if(|(rollout, _)| Some(*rollout) != open) {
            stop.cancel();
        }
        if self.rehearsal.as_ref().is_some_and(|(rollout, _)| Some(*rollout) != open) {
            self.rehearsal = None;
        }
    }
}

/// The number of a revision that never comes to be.
const NONE: u64 = 0;

impl Reconciler {
    /// Tries a component by hand on the last messages of an agent.
    pub(super) fn rehearse_by_hand(
        &self,
        wish: RehearsalWish,
        mut answer: oneshot::Sender<Result<status::Rehearsal, NotRehearsed>>,
    ) {
        let entry = self.entries.iter().find(|(name, _)| name.as_str() == wish.agent).map(|(_, entry)| entry);
        let Some((entry, stable)) = entry.and_then(|entry| Some((entry, entry.agent.current()?))) else {
            let why = format!("no revision of `{}` runs", wish.agent);
            // Who asked may be gone.
            let _ = answer.send(Err(NotRehearsed::Unavailable(why)));
            return;
        };
        let declared = self.wanted.get(entry.agent.name());
        let version = declared.map_or(stable.spec.state.version, |wanted| wanted.spec.state.version);
        let by_hand = ByHand {
            runtime: Arc::clone(&self.runtime),
            agent: Arc::clone(&entry.agent),
            stable,
            folder: self.context.store.folder().to_owned(),
            version,
            wish,
        };
        tokio::spawn(async move {
            // Nobody rehearses for one who left.
            let rehearsed = tokio::select! {
                () = answer.closed() => return,
                rehearsed = by_hand.rehearse() => rehearsed,
            };
            let _ = answer.send(rehearsed);
        });
    }
}

/// A component that is tried by hand.
struct ByHand {
    runtime: Arc<Runtime>,
    agent: Arc<Agent>,
    stable: Arc<Revision>,
    /// The data folder, where its bytes are while it is compiled.
    folder: PathBuf,
    /// The version of the state's format that is declared for the agent.
    version: u32,
    wish: RehearsalWish,
}

impl ByHand {
    async fn rehearse(self) -> Result<status::Rehearsal, NotRehearsed> {
        let Self { runtime, agent, stable, folder, version, wish } = self;
        let host = |error: std::io::Error| NotRehearsed::Host(format!("the component cannot be kept: {error}"));
        let unusable = |why: String| NotRehearsed::Component(why);
        let spec = agent.spec();
        let digest = digest(&wish.component);
        let program = {
            let file = tempfile::Builder::new().prefix("rehearse-").suffix(".tmp").tempfile_in(folder).map_err(host)?;
            tokio::fs::write(file.path(), &wish.component).await.map_err(host)?;
            let program = runtime.program(file.path(), digest, spec.limits.fuel.is_some(), |_| ()).await;
            program.map_err(|error| unusable(error.to_string()))?
        };
        if program.summary.kind == Kind::Http {
            let why = "it is an HTTP agent, whose calls are not kept: there is nothing to rehearse with";
            return Err(unusable(why.to_owned()));
        }
        super::judge(&spec, &program.summary).map_err(unusable)?;
        let id = Arc::new(RevisionId { agent: agent.name().clone(), number: NONE });
        let who = Identity {
            revision: id,
            spec: Arc::clone(&spec),
            state_bytes: Arc::clone(agent.state_bytes()),
            peak_memory: Arc::default(),
            denied: Denied::default(),
        };
        let before = stable.spec.state.version;
        // As its rollout would do with what is declared.
        let migrate_from = (program.summary.migrates && version != before).then_some(before);
        let candidate = stable.pool.of_other(program, Arc::new(who));
        let rehearsal = RehearsalJob {
            candidate,
            stable: Some(Arc::clone(&stable)),
            messages: wish.messages,
            memory: match spec.rollout.reload.state {
                Memory::Migrate => InitialMemory::Live,
                Memory::Discard => InitialMemory::Empty,
            },
            migrate_from,
            until_first: false,
            stop: stable.interrupted(),
        };
        let done = agent.rehearse(rehearsal).await.map_err(NotRehearsed::Host)?;
        let refused = done.answers().refusal(spec.rollout.rollback.rules.match_percent);
        let failed = |(message, why)| RehearsalFailure { message, why };
        Ok(status::Rehearsal {
            agent: wish.agent,
            stable: stable.id.to_string(),
            digest: digest.to_string(),
            passed: done.failure().is_none() && refused.is_none(),
            messages: done.messages,
            handled: done.passed,
            set_aside: done.set_aside,
            failed: done.failed.into_iter().map(failed).collect(),
            unready: done.unready,
            alike: done.comparison.alike,
            otherwise: done.comparison.otherwise,
            not_compared: done.comparison.not_compared,
            differences: done.comparison.differing,
            by_nature: done.comparison.by_nature,
            refused,
        })
    }
}
