//! What all agents share: the store, the routes, logs and events. Also what guests reach of it.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use caxton_control::conversation::{Refused, Said};
use caxton_control::{Performative, RevisionId};
use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use crate::agent::receipts::Receipts;
use crate::agent::{Agent, Backlog, Ends, Revision, backlog, describe};
use crate::clock;
use crate::directory::routes::Routes;
use crate::directory::wakeups::Timers;
use crate::events::Events;
use crate::logs::{Line, Logs};
use crate::store::{Commit, Committed, Store, said};
use crate::tasks::Tasks;
use crate::telemetry::host_stats::Figures;
use crate::wasm::{
    Answer, Envelope, Fault, Identity, Inbox, LogLevel, Outcome, Outside, Read, Seen, Sent, TimerName, Trail, Waiter,
    Work, act, new_id, wit,
};

/// What all agents share.
pub(crate) struct HostContext {
    /// What is kept.
    pub(crate) store: Arc<Store>,
    /// Where mailboxes are worked on: threads apart from those of calls, which never wait behind messages.
    pub(crate) workers: Handle,
    /// Who is called by which path, name or capability.
    pub(crate) routes: ArcSwap<Routes>,
    /// What agents say.
    pub(crate) logs: Logs,
    /// What happens.
    pub(crate) events: Events,
    /// What is measured of all agents together.
    pub(crate) figures: Arc<Figures>,
    /// What became of messages that nobody waits for.
    pub(crate) receipts: Arc<Receipts>,
    /// The tasks that make up the host.
    pub(crate) tasks: Arc<Tasks>,
    /// When agents look at their mailboxes again.
    pub(crate) timers: Timers,
    /// Told when somebody set the wall clock.
    pub(crate) clock_set: Notify,
    /// The times at which ends of chains of messages were told of.
    pub(crate) ends: Ends,
    /// What waiting messages take in memory.
    pub(crate) resident: Resident,
    /// What waited when the host started, until its agents take it.
    pub(crate) backlog: Mutex<Backlog>,
    /// Of whom the reconciler is to look at something: at most all agents.
    changed: Mutex<BTreeSet<Arc<str>>>,
    reconcile: Notify,
}

/// Counts bytes against a bound. All threads write to it, so nothing else is beside it.
#[derive(Debug, Default)]
pub(crate) struct Resident(CachePadded<AtomicUsize>);

impl Resident {
    /// Counts so many more, if they are within the bound then.
    pub(crate) fn take(&self, bytes: usize, bound: usize) -> bool {
        let within = self.0.fetch_add(bytes, Ordering::Relaxed) + bytes <= bound;
        if !within {
            self.give(bytes);
        }
        within
    }

    /// Counts so many less.
    pub(crate) fn give(&self, bytes: usize) {
        if bytes > 0 {
            self.0.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl HostContext {
    /// With no agents yet, whose mailboxes will be worked on by `workers`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn new(store: Arc<Store>, workers: Handle) -> Result<Arc<Self>, String> {
        let backlog = Mutex::new(backlog(&store)?);
        let tasks = Arc::<Tasks>::default();
        Ok(Arc::new(Self {
            logs: Logs::new(store.folder().join("logs"), Arc::clone(&tasks)),
            tasks,
            events: Events::new(Arc::clone(&store)),
            store,
            workers,
            routes: ArcSwap::default(),
            figures: Arc::default(),
            receipts: Arc::default(),
            timers: Timers::default(),
            clock_set: Notify::new(),
            ends: Ends::default(),
            resident: Resident::default(),
            backlog,
            changed: Mutex::default(),
            reconcile: Notify::new(),
        }))
    }

    /// Asks the reconciler to look at an agent again.
    pub(crate) fn wake(&self, agent: Arc<str>) {
        self.changed.lock().insert(agent);
        self.reconcile.notify_one();
    }

    /// Whom the reconciler is to look at since it asked last.
    pub(crate) fn changed(&self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut *self.changed.lock())
    }

    /// Waits until the reconciler is to look again.
    pub(crate) async fn woken(&self) {
        self.reconcile.notified().await;
    }

    /// Writes into an agent's log what happened to a call of it.
    pub(crate) fn note(&self, revision: &Revision, level: &'static str, text: &str, outcome: &Outcome) {
        let mut text = text.to_owned();
        // The guest's last words are in the log already.
        let trail = if let Outcome::Fault(fault) = outcome { fault.trail() } else { None };
        if let Some(backtrace) = trail.map(Trail::backtrace).filter(|backtrace| !backtrace.is_empty()) {
            text.push('\n');
            text.push_str(backtrace.trim_end());
        }
        self.note_line(&revision.id, level, text);
    }

    /// Writes a line of the host's into an agent's log.
    pub(crate) fn note_line(&self, revision: &RevisionId, level: &'static str, text: String) {
        let line = Line {
            at: clock::now_ms(),
            agent: revision.agent.shared(),
            revision: revision.number,
            level,
            context: "caxton".to_owned(),
            text,
        };
        self.logs.note(line);
    }

    /// Tells that a revision came to another state.
    pub(crate) fn tell_state(&self, agent: &str, revision: u64, from: &str, to: &str, reason: Option<&str>) {
        let data = json!({ "revision": revision, "from": from, "to": to, "reason": reason });
        self.events.tell(Some(agent), "revision.state", data);
    }

    async fn ask_agent(
        &self,
        who: &Identity,
        work: &Work,
        draft: wit::Draft,
        timeout: Duration,
    ) -> Result<wit::Message, wit::RequestError> {
        let refused = |error: crate::agent::AdmitError| wit::RequestError::NotSent(error.into());
        let deadline = (Instant::now() + timeout).min(work.deadline);
        if !matches!(draft.delivery, wit::Delivery::Now) {
            let why = "a request is delivered at once: `delivery` has to be `now`".to_owned();
            return Err(wit::RequestError::NotSent(wit::SendError::Invalid(why)));
        }
        let (agent, mut envelope) = self.address(who, work, draft).map_err(refused)?;
        self.check_hops(who, &envelope).map_err(refused)?;
        agent.check_breaker().map_err(refused)?;
        // Who asks keeps others waiting, unless its agent is gone already.
        let asker = self.routes.load().present(who.name()).cloned();
        let handler = std::ptr::from_ref(work).addr() as u64;
        let noted = asker
            .as_ref()
            .map(|asker| asker.asks(handler, &work.conversation, &agent, &envelope.message.conversation_id));
        if let Some(asker) = &asker
            && let Some(cycle) = self.find_deadlock(asker, &agent, &envelope.message.conversation_id)
        {
            return Err(wit::RequestError::Deadlock(cycle));
        }
        let question = match self.ask_in_conversation(&envelope) {
            Ok(question) => question,
            // The way in which the protocols themselves say it.
            Err(refused) => return Ok(not_understood(envelope.message, &refused.to_string())),
        };
        envelope.within.clone_from(&work.run.within);
        let answer = self.wait_for(&agent, envelope, deadline).await;
        drop(noted);
        match self.answer_in_conversation(&question, answer.as_ref().ok()) {
            Ok(()) => answer,
            Err(why) => Err(wit::RequestError::Failed(why)),
        }
    }

    /// Hands a request to an agent and waits for what it says.
    async fn wait_for(
        &self,
        agent: &Arc<Agent>,
        mut envelope: Box<Envelope>,
        deadline: Instant,
    ) -> Result<wit::Message, wit::RequestError> {
        let refused = |error: crate::agent::AdmitError| wit::RequestError::NotSent(error.into());
        let now = Instant::now();
        let patience = deadline.saturating_duration_since(now);
        let by = clock::now_ms().saturating_add(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX));
        envelope.message.reply_by.get_or_insert(by);
        (envelope.deadline, envelope.accepted) = (Some(deadline), Some(now));
        let (waiter, answer) = oneshot::channel();
        envelope.waiter = Some(Waiter::Call(waiter));
        agent.reserve_place(Some(&envelope.message.conversation_id)).map_err(refused)?;
        if agent.put(envelope) {
            agent.work_for_caller();
        }
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Err(_) => Err(wit::RequestError::TimedOut),
            Ok(Err(_)) => Err(wit::RequestError::Failed("the agent ended".to_owned())),
            Ok(Ok(Answer { outcome, .. })) => match outcome {
                Outcome::Reply(reply) => Ok(*reply),
                Outcome::Done => Err(wit::RequestError::NoReply),
                Outcome::Fault(Fault::Time { .. } | Fault::Patience { .. }) if Instant::now() >= deadline => {
                    Err(wit::RequestError::TimedOut)
                }
                Outcome::Gave(_)
                | Outcome::Fault(_)
                | Outcome::BadReply(_)
                | Outcome::Refused(_)
                | Outcome::Conflict(_)
                | Outcome::NotCommitted(_)
                | Outcome::Gone(_) => Err(wit::RequestError::Failed(describe(&outcome))),
            },
        }
    }
}

/// A question in a conversation, until it is answered.
pub(crate) struct Question {
    conversation: String,
    from: String,
    to: String,
    key: String,
}

impl HostContext {
    /// Takes what is sent into its conversations; what is not legal and has nobody to hear it is dropped.
    pub(crate) fn judged(&self, mut sends: Vec<Sent>) -> Vec<Sent> {
        sends.retain_mut(|sent| self.store.conversations.judge_sent(sent).is_ok());
        let (ending, sends): (Vec<Sent>, Vec<Sent>) = sends.into_iter().partition(|sent| sent.ends().is_some());
        if !ending.is_empty() {
            // Dead letters are kept also where messages are not.
            let done = Box::new(|committed: Committed| {
                if committed.result.is_ok() {
                    committed.sends.into_iter().for_each(Sent::deliver);
                }
            });
            let mut commit = Commit::new("".into(), done);
            commit.sends = ending;
            self.store.submit(commit);
        }
        sends
    }

    /// Takes a question whose sender waits into its conversation.
    ///
    /// # Errors
    /// It is not legal there.
    pub(crate) fn ask_in_conversation(&self, envelope: &Envelope) -> Result<Question, Refused> {
        let message = &envelope.message;
        self.store.conversations.judge(&message.conversation_id, &said(envelope))?;
        Ok(Question {
            conversation: message.conversation_id.clone(),
            from: message.sender.clone(),
            to: message.receiver.clone(),
            key: message.reply_with.clone().unwrap_or_else(|| message.id.clone()),
        })
    }

    /// Takes its answer in; none if there was none, or the call failed.
    ///
    /// # Errors
    /// The answer is not legal there.
    pub(crate) fn answer_in_conversation(
        &self,
        question: &Question,
        reply: Option<&wit::Message>,
    ) -> Result<(), String> {
        let Question { conversation, from, to, key } = question;
        let said = Said {
            from: to,
            to: from,
            act: reply.map_or(Performative::Failure, |reply| act(reply.performative)),
            protocol: reply.and_then(|reply| reply.protocol.as_deref()),
            id: reply.map_or("", |reply| &reply.id),
            reply_with: reply.and_then(|reply| reply.reply_with.as_deref()),
            in_reply_to: Some(key),
            at: clock::steady_ms(),
            is_call: false,
        };
        match reply {
            Some(_) => self
                .store
                .conversations
                .judge(conversation, &said)
                .map_err(|refused| format!("the reply is not legal: {refused}")),
            None => {
                self.store.conversations.told(conversation, &said);
                Ok(())
            }
        }
    }
}

/// What an agent is told that said something it may not.
fn not_understood(question: wit::Message, why: &str) -> wit::Message {
    wit::Message {
        id: new_id(),
        performative: wit::Performative::NotUnderstood,
        in_reply_to: Some(question.reply_with.clone().unwrap_or_else(|| question.id.clone())),
        sender: question.receiver,
        receiver: question.sender,
        content: why.as_bytes().to_vec(),
        content_type: "text/plain; charset=utf-8".to_owned(),
        reply_with: None,
        ..question
    }
}

impl Outside for HostContext {
    fn admit(&self, who: &Identity, work: &Work, draft: wit::Draft) -> Result<Sent, wit::SendError> {
        HostContext::admit(self, who, work, draft).map_err(Into::into)
    }

    fn request<'a>(
        &'a self,
        who: &'a Identity,
        work: &'a Work,
        draft: wit::Draft,
        timeout: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<wit::Message, wit::RequestError>> + Send + 'a>> {
        Box::pin(self.ask_agent(who, work, draft, timeout))
    }

    fn find(&self, capability: &str) -> Vec<String> {
        self.routes.load().with_capability(capability).iter().map(|agent| agent.name().to_string()).collect()
    }

    fn read(&self, agent: &str, key: &str) -> Result<Seen<Option<Read>>, String> {
        let routes = self.routes.load();
        let under_way = || routes.present(agent).and_then(|agent| agent.under_way(key));
        if let Some(what) = under_way() {
            return Ok(Seen { what, safe: false });
        }
        let what = self.store.read(agent, key)?;
        // What the store has and was not under way before may have been written meanwhile.
        let safe = under_way().is_none();
        Ok(Seen { what, safe })
    }

    fn keys(&self, agent: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Seen<Vec<String>>, String> {
        match self.routes.load().present(agent) {
            Some(agent) => agent.keys(prefix, after, limit),
            None => Ok(Seen { what: self.store.keys(agent, prefix, after, limit)?, safe: true }),
        }
    }

    fn timer(&self, agent: &str, timer: &TimerName) -> Result<Option<String>, String> {
        Ok(self.store.timer(agent, timer)?.map(|(id, _)| id))
    }

    fn saved(&self, revision: &RevisionId) -> Result<Option<Bytes>, String> {
        Ok(self.store.snapshot(revision.agent.as_str(), revision.number)?.map(|snapshot| snapshot.data))
    }

    fn not_restored(&self, revision: &RevisionId, fault: &Fault) {
        let labels = [("agent", revision.agent.to_string()), ("what", "restore".to_owned())];
        metrics::counter!("caxton_snapshot_failures_total", &labels).increment(1);
        let data = json!({ "revision": revision.number, "reason": fault.to_string() });
        self.events.tell(Some(revision.agent.as_str()), "snapshot.not-restored", data);
        tracing::error!(agent = %revision.agent, "{revision} did not take up what was saved, which is kept: {fault}");
    }

    fn log(&self, who: &Identity, level: LogLevel, context: &str, text: &str) {
        let line = Line {
            at: clock::now_ms(),
            agent: who.revision.agent.shared(),
            revision: who.revision.number,
            level: level_name(level),
            context: context.chars().take(MAX_CONTEXT).collect(),
            text: text.chars().take(MAX_TEXT).collect(),
        };
        self.logs.write(line, who.spec.limits.log_lines);
    }
}

/// The longest context and text of a line in a log, in characters.
const MAX_CONTEXT: usize = 100;
const MAX_TEXT: usize = 8_192;

fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace => "trace",
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
        LogLevel::Critical => "critical",
    }
}
