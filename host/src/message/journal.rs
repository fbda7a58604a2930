//! The journal of one message's calls over HTTP: what was asked and what came of it, for later runs and attempts.
//!
//! ```text
//! begin: decide on the record --> answered from it
//!                             --> begun, durable --> the server --> ended, durable --> the guest
//! ```
//! Calls of places with `journal` are kept with the message, if the store has that. All calls of an agent that keeps state
//! are kept in memory until its handler ends without a conflict, so that a run after one makes none of them again.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use caxton_control::journal::{
    AskedCall, CallDecision, CallKey, CallOutcome, JournalRules, JournaledCall, RequestHash, decide,
};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::http_call::{CallBody, HttpCallError};
use super::journal_entries::{JournalEntry, JournalState};
use super::journal_rows::{JournalPlace, JournalRows, StoredCall};
use super::recorded_response::{RecordedResponse, SharedResponse};
use crate::memory_budget::{MemoryBudget, MemoryKind};

/// The store of a journal that is kept with its message.
type KeptRows = (Arc<dyn JournalRows>, JournalPlace);

/// The journal of a message, or of one call of an HTTP agent.
pub(crate) struct CallJournal {
    /// The id of the message, from which idempotency keys follow.
    id: String,
    /// The rows; `None` if it lives as long as the message is in memory.
    kept: Option<KeptRows>,
    // Never locked across a wait: calls of one guest may be under way side by side.
    state: Mutex<JournalState>,
    /// The reason why the message is given up, once a call has an unknown outcome that nobody may repeat.
    given_up: OnceLock<String>,
    ended: CancellationToken,
}

/// A call as its guest asks for it.
#[derive(Debug)]
pub(crate) struct CallToBegin {
    /// The hash of the head of the request.
    pub(crate) head: RequestHash,
    /// The hash of all of the request.
    pub(crate) hash: RequestHash,
    /// The method, and scheme, host and port.
    pub(crate) line: String,
    /// Set if the method is safe.
    pub(crate) is_safe: bool,
    /// Set if the guest has set an idempotency key itself.
    pub(crate) has_own_key: bool,
    /// The most bytes that are recorded of the message.
    pub(crate) most: u64,
}

/// The step for a call.
pub(crate) enum JournalStep {
    /// The record has the answer.
    Answer(Result<http::Response<CallBody>, HttpCallError>),
    /// The call is made. `is_repeated` is set if it may have been made before, `is_other` if an earlier run asked for
    /// something else.
    Make { key: CallKey, is_repeated: bool, is_other: bool },
    /// The message is given up, as it is unknown whether this call was made.
    GiveUp,
    /// The call must not be made again, and its response is not held.
    NotHeld,
}

impl CallJournal {
    /// Creates the journal of the message with this id, with what is recorded of it.
    pub(crate) fn new(id: &str, kept: Option<KeptRows>, recorded: &[StoredCall], memory: &MemoryBudget) -> Arc<Self> {
        let entry = |(id, call): (u64, &StoredCall)| JournalEntry {
            outcome: call.outcome,
            is_earlier: true,
            is_asked: false,
            bytes: call.bytes,
            // None has this head: only calls of this process are looked for by theirs.
            ..JournalEntry::begun(id, Some(call.key), RequestHash([0; 32]), &call.line, true)
        };
        let state = JournalState {
            calls: (0..).zip(recorded).map(entry).collect(),
            next: recorded.len() as u64,
            asked: HashMap::new(),
            follows_all: false,
            is_rerun: false,
            recorded: recorded.iter().map(|call| call.bytes).sum(),
            followed: 0,
            held: memory.empty(MemoryKind::Bodies),
            has_rows: !recorded.is_empty(),
        };
        let (state, given_up, ended) = (Mutex::new(state), OnceLock::new(), CancellationToken::new());
        Arc::new(Self { id: id.to_owned(), kept, state, given_up, ended })
    }

    /// Begins a run. `follows_all` has calls of all places kept for a run after a conflict, which this is if `is_rerun` is
    /// set.
    pub(crate) fn begin_run(&self, follows_all: bool, is_rerun: bool) {
        let mut state = self.state.lock();
        (state.follows_all, state.is_rerun) = (follows_all, is_rerun);
        state.asked.clear();
        state.calls.iter_mut().for_each(|call| call.is_asked = false);
        let Some((rows, place)) = self.kept.as_ref().filter(|_| !is_rerun) else { return };
        // A handler may have ended while the end of a call was on its way to the disk, where it is by now.
        let is_unknown = |call: &&mut JournalEntry| call.is_kept && call.outcome == CallOutcome::Unknown;
        let stored = match state.calls.iter_mut().any(|call| is_unknown(&call)) {
            true => rows.calls(place.seq).unwrap_or_default(),
            false => Box::default(),
        };
        for call in state.calls.iter_mut().filter(is_unknown) {
            if let Some(stored) = stored.iter().find(|stored| Some(stored.key) == call.key) {
                (call.outcome, call.bytes) = (stored.outcome, stored.bytes);
            }
        }
    }

    /// Ends an attempt. What is kept with the message stays, and the memory of responses that the store has is given back.
    pub(crate) fn end_attempt(&self) {
        let mut state = self.state.lock();
        // One of which the request had not ended asked for nothing that can be asked for again.
        state.calls.retain(|call| call.is_kept && call.key.is_some());
        for call in &mut state.calls {
            call.is_earlier = true;
            if self.kept.is_some() {
                call.response = None;
            }
        }
        (state.recorded, state.followed) = (state.calls.iter().map(|call| call.bytes).sum(), 0);
        let in_memory = state.calls.iter().filter(|call| call.response.is_some()).map(|call| call.bytes).sum();
        state.held.hold(in_memory);
    }

    /// Returns `true` if the store may have rows of it, which leave with the message.
    pub(crate) fn has_rows(&self) -> bool {
        self.kept.is_some() && self.state.lock().has_rows
    }

    /// Returns `true` if calls of all places are kept for a run after a conflict.
    pub(crate) fn follows_all(&self) -> bool {
        self.state.lock().follows_all
    }

    /// Returns `true` if an earlier run of this attempt has made a call with this head, whose answer this run may be due.
    pub(crate) fn may_answer(&self, head: RequestHash) -> bool {
        let state = self.state.lock();
        state.is_rerun && state.calls.iter().any(|call| call.head == head && !call.is_asked)
    }

    /// Decides on a call, and notes that it is asked for.
    ///
    /// # Errors
    /// The record cannot be read.
    pub(crate) fn ask(&self, call: &CallToBegin, rules: JournalRules) -> Result<JournalStep, HttpCallError> {
        let mut state = self.state.lock();
        let nth = state.number(call.hash);
        let key = CallKey { hash: call.hash, nth };
        let asked = AskedCall { key, is_safe: call.is_safe, has_key: call.has_own_key || rules.adds_key };
        // Those of which the request has not ended cannot be asked for, and keep their place in the list.
        let places: Vec<usize> = (0..state.calls.len()).filter(|at| state.calls[*at].key.is_some()).collect();
        let record: Vec<JournaledCall> = places.iter().filter_map(|at| state.calls[*at].as_recorded()).collect();
        let step = match decide(&record, asked, rules) {
            CallDecision::Answer(index) => {
                let entry = &mut state.calls[places[index]];
                entry.is_asked = true;
                let (error, outcome) = (entry.error.clone(), entry.outcome);
                JournalStep::Answer(match (error, outcome) {
                    (Some(error), _) => Err(error),
                    (None, CallOutcome::TooLarge) => Err(HttpCallError::ResponseTooLarge(call.most)),
                    (None, _) => Ok(self.response_of(&mut state, places[index], key)?),
                })
            }
            CallDecision::Repeat(index) => {
                let was_kept = record[index].is_kept;
                let entry = &mut state.calls[places[index]];
                let given_back = entry.bytes;
                *entry = JournalEntry::begun(entry.id, Some(key), call.head, &call.line, rules.is_kept);
                state.give_back(given_back, was_kept);
                JournalStep::Make { key, is_repeated: was_kept, is_other: false }
            }
            decision @ (CallDecision::Call | CallDecision::CallOtherwise) => {
                if rules.is_kept || state.follows_all {
                    state.add(Some(key), call.head, &call.line, rules.is_kept);
                }
                let is_other = matches!(decision, CallDecision::CallOtherwise);
                JournalStep::Make { key, is_repeated: false, is_other }
            }
            CallDecision::Unknown(index) => {
                let line = &state.calls[places[index]].line;
                let why = format!(
                    "the call `{line}` began in an earlier attempt, and whether it was carried out is not known: look at its \
                     server, then drop the message, or have the call made with `caxton dead redeliver --repeat-calls`"
                );
                // The first reason stays: it ended the run.
                let _ = self.given_up.set(why);
                self.ended.cancel();
                JournalStep::GiveUp
            }
            CallDecision::Refuse(_) => JournalStep::NotHeld,
        };
        Ok(step)
    }

    /// Returns a recorded response, from memory or the store.
    fn response_of(
        &self,
        state: &mut JournalState,
        at: usize,
        key: CallKey,
    ) -> Result<http::Response<CallBody>, HttpCallError> {
        if let Some(response) = &state.calls[at].response {
            return Ok(response.lock().to_response());
        }
        let unreadable =
            |why: &str| HttpCallError::Configuration(format!("the record of the call cannot be read: {why}"));
        let Some((rows, place)) = &self.kept else { return Err(unreadable("it is not in memory")) };
        let stored = rows.response(place.seq, key).map_err(|why| unreadable(&why))?;
        let stored = stored.ok_or_else(|| unreadable("it is not in the store"))?;
        let record = RecordedResponse::decode(&stored).ok_or_else(|| unreadable("it is of another version"))?;
        let response = record.to_response();
        // Kept for this attempt: a run after a conflict, and a rehearsal, need it again.
        state.calls[at].response = Some(Arc::new(Mutex::new(record)));
        let held = state.held.bytes() + state.calls[at].bytes;
        state.held.hold(held);
        Ok(response)
    }

    /// Returns `true` once the message is given up.
    pub(crate) fn is_given_up(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Waits until the message is given up. Returns the reason for a person.
    pub(crate) async fn given_up(&self) -> String {
        self.ended.cancelled().await;
        self.given_up.get().cloned().unwrap_or_default()
    }

    /// Returns the idempotency key of a call: the same in each attempt at the message, and no other's.
    pub(crate) fn idempotency_key(&self, key: CallKey) -> String {
        let hash = Sha256::new()
            .chain_update(&self.id)
            .chain_update([0])
            .chain_update(key.hash.0)
            .chain_update(key.nth.to_le_bytes())
            .finalize();
        hash[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Notes in the store that a call begins; returns when that is durable.
    ///
    /// # Errors
    /// The store cannot note it.
    pub(crate) async fn begin(&self, call: StoredCall) -> Result<(), HttpCallError> {
        let Some((rows, place)) = &self.kept else { return Ok(()) };
        // Before it is written: rows that may be there are removed with the message.
        self.state.lock().has_rows = true;
        Arc::clone(rows).begin(place.clone(), call).await.map_err(|why| not_recorded(&why))
    }

    /// Records the response of a call that is kept; returns when that is durable.
    ///
    /// # Errors
    /// The store cannot record it.
    pub(crate) async fn end(&self, key: CallKey, record: RecordedResponse) -> Result<(), HttpCallError> {
        let (outcome, bytes) = (CallOutcome::Answered(record.status.as_u16()), record.bytes() as u64);
        if let Some((rows, place)) = &self.kept {
            let ended = Arc::clone(rows).end(place.clone(), key, outcome, record.encode());
            ended.await.map_err(|why| not_recorded(&why))?;
        }
        let mut state = self.state.lock();
        let held = state.held.bytes() + bytes;
        state.held.hold(held);
        if let Some(entry) = state.entry(key) {
            (entry.outcome, entry.bytes) = (outcome, bytes);
            entry.response = Some(Arc::new(Mutex::new(record)));
        }
        Ok(())
    }

    /// Records that the response of a call was too large.
    ///
    /// # Errors
    /// The store cannot record it.
    pub(crate) async fn end_too_large(&self, key: CallKey, error: &HttpCallError) -> Result<(), HttpCallError> {
        if let Some((rows, place)) = &self.kept {
            let ended = Arc::clone(rows).end(place.clone(), key, CallOutcome::TooLarge, Vec::new());
            ended.await.map_err(|why| not_recorded(&why))?;
        }
        if let Some(entry) = self.state.lock().entry(key) {
            (entry.outcome, entry.error) = (CallOutcome::TooLarge, Some(error.clone()));
        }
        Ok(())
    }

    /// Notes that a call failed whose server may have carried it out. In the store it stays begun.
    pub(crate) fn fail(&self, key: CallKey, error: &HttpCallError) {
        if let Some(entry) = self.state.lock().entry(key) {
            (entry.outcome, entry.error) = (CallOutcome::Failed, Some(error.clone()));
        }
    }

    /// Forgets a call of which no byte left the host. Another attempt makes it.
    pub(crate) fn forget(&self, key: CallKey) -> BoxFuture<'static, ()> {
        let is_kept = {
            let mut state = self.state.lock();
            let is_kept = state.entry(key).is_some_and(|entry| entry.is_kept);
            state.calls.retain(|call| call.key != Some(key));
            is_kept
        };
        match &self.kept {
            Some((rows, place)) if is_kept => Arc::clone(rows).forget(place.clone(), key),
            Some(_) | None => Box::pin(std::future::ready(())),
        }
    }

    /// Counts bytes of a response that is kept. Returns `false`, and counts nothing, if they are more than there is room for.
    pub(crate) fn admit(&self, bytes: u64, most: u64) -> bool {
        self.state.lock().admit(bytes, most, true)
    }

    /// Subtracts bytes of a response that is not recorded after all.
    pub(crate) fn give_back(&self, bytes: u64) {
        self.state.lock().give_back(bytes, true);
    }
}

/// The calls whose bodies are passed on as they come. They are kept in memory, for a run after a conflict.
impl CallJournal {
    /// Notes a call whose request is not read yet. Returns the place of its record.
    pub(crate) fn follow(self: &Arc<Self>, head: RequestHash, line: &str) -> FollowedCall {
        let id = self.state.lock().add(None, head, line, false);
        FollowedCall { journal: Arc::clone(self), id }
    }

    /// Returns the place of the record of a call that was [asked](Self::ask) for.
    pub(crate) fn followed(self: &Arc<Self>, key: CallKey) -> Option<FollowedCall> {
        let id = self.state.lock().entry(key)?.id;
        Some(FollowedCall { journal: Arc::clone(self), id })
    }

    /// Returns the responses that this run got, with the requests, for a rehearsal. Leaves out those that are not whole.
    pub(crate) fn answers(&self) -> Vec<(CallKey, SharedResponse)> {
        let state = self.state.lock();
        let asked = state.calls.iter().filter(|call| call.is_asked);
        asked.filter_map(|call| Some((call.key?, Arc::clone(call.response.as_ref()?)))).collect()
    }
}

/// A call that is kept in memory.
#[derive(Clone)]
pub(crate) struct FollowedCall {
    journal: Arc<CallJournal>,
    /// The number of its entry.
    id: u64,
}

impl FollowedCall {
    /// Notes the hash of the request, which has ended.
    pub(crate) fn hashed(&self, hash: RequestHash) {
        let mut state = self.journal.state.lock();
        let nth = state.number(hash);
        if let Some(entry) = state.by_id(self.id) {
            entry.key = Some(CallKey { hash, nth });
        }
    }

    /// Notes the response whose body the guest reads.
    pub(crate) fn answered(&self, response: &SharedResponse) {
        let status = response.lock().status.as_u16();
        if let Some(entry) = self.journal.state.lock().by_id(self.id) {
            (entry.outcome, entry.response) = (CallOutcome::Answered(status), Some(Arc::clone(response)));
        }
    }

    /// Notes the error that the guest got.
    pub(crate) fn failed(&self, error: &HttpCallError) {
        if let Some(entry) = self.journal.state.lock().by_id(self.id) {
            (entry.outcome, entry.error) = (CallOutcome::Failed, Some(error.clone()));
        }
    }

    /// Counts bytes of the response. After `false` the response is not held any more.
    pub(crate) fn admit(&self, bytes: usize, most: u64) -> bool {
        let bytes = bytes as u64;
        let mut state = self.journal.state.lock();
        let has_room = state.admit(bytes, most, false);
        let Some(entry) = state.by_id(self.id) else { return false };
        if has_room {
            entry.bytes += bytes;
            let held = state.held.bytes() + bytes;
            state.held.hold(held);
        } else {
            let given_back = std::mem::take(&mut entry.bytes);
            (entry.outcome, entry.response) = (CallOutcome::NotHeld, None);
            state.give_back(given_back, false);
            let held = state.held.bytes().saturating_sub(given_back);
            state.held.hold(held);
        }
        has_room
    }
}

impl std::fmt::Debug for CallJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CallJournal({})", self.id)
    }
}

fn not_recorded(why: &str) -> HttpCallError {
    HttpCallError::Configuration(format!("the call could not be recorded: {why}"))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    const HEAD: RequestHash = RequestHash([1; 32]);
    const MOST: u64 = 100;

    fn call(hash: u8) -> CallToBegin {
        let (hash, line) = (RequestHash([hash; 32]), "POST http://pay.example".to_owned());
        CallToBegin { head: HEAD, hash, line, is_safe: false, has_own_key: false, most: MOST }
    }

    fn response(status: u16) -> RecordedResponse {
        let head = http::Response::builder().status(status).body(()).unwrap().into_parts().0;
        let mut record = RecordedResponse::new(&head);
        record.push(&http_body::Frame::data("paid".into()));
        record.end();
        record
    }

    fn journal() -> Arc<CallJournal> {
        CallJournal::new("m-1", None, &[], &MemoryBudget::new(u64::MAX))
    }

    async fn body(step: JournalStep) -> Option<String> {
        let JournalStep::Answer(Ok(response)) = step else { return None };
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_call_without_a_journal_is_answered_within_its_attempt() {
        let (journal, none) = (journal(), JournalRules::default());
        journal.begin_run(true, false);
        for status in [200, 201] {
            let followed = journal.follow(HEAD, "POST http://pay.example");
            followed.answered(&Arc::new(Mutex::new(response(status))));
            followed.hashed(RequestHash([7; 32]));
        }
        let large = journal.follow(HEAD, "POST http://pay.example");
        large.hashed(RequestHash([8; 32]));
        assert!(large.admit(60, MOST) && !large.admit(60, MOST));
        journal.begin_run(true, true);
        assert!(journal.may_answer(HEAD) && !journal.may_answer(RequestHash([2; 32])));
        for status in [200, 201] {
            match journal.ask(&call(7), none).unwrap() {
                JournalStep::Answer(Ok(response)) => assert_eq!(response.status().as_u16(), status),
                _ => panic!("both are answered, in their order"),
            }
        }
        assert!(matches!(journal.ask(&call(8), none).unwrap(), JournalStep::NotHeld));
        assert!(matches!(journal.ask(&call(7), none).unwrap(), JournalStep::Make { is_other: false, .. }), "a third");
        journal.end_attempt();
        journal.begin_run(true, false);
        assert!(matches!(journal.ask(&call(7), none).unwrap(), JournalStep::Make { .. }), "another attempt asks again");
        assert!(!journal.is_given_up());
    }

    #[tokio::test]
    async fn a_call_with_a_journal_is_answered_in_later_attempts() {
        let (journal, kept) = (journal(), JournalRules { is_kept: true, ..JournalRules::default() });
        journal.begin_run(false, false);
        let JournalStep::Make { key, .. } = journal.ask(&call(7), kept).unwrap() else { panic!("nothing is recorded") };
        journal.end(key, response(200)).await.unwrap();
        let JournalStep::Make { key: broken, .. } = journal.ask(&call(9), kept).unwrap() else { panic!("it is new") };
        let JournalStep::Make { key: unsent, .. } = journal.ask(&call(5), kept).unwrap() else { panic!("it is new") };
        assert_ne!(journal.idempotency_key(key), journal.idempotency_key(broken));
        journal.fail(broken, &HttpCallError::ConnectionTerminated);
        journal.forget(unsent).await;
        journal.end_attempt();
        journal.begin_run(false, false);
        assert_eq!(body(journal.ask(&call(7), kept).unwrap()).await.as_deref(), Some("paid"));
        assert!(matches!(journal.ask(&call(5), kept).unwrap(), JournalStep::Make { is_other: true, .. }));
        assert!(matches!(journal.ask(&call(9), kept).unwrap(), JournalStep::GiveUp));
        assert!(journal.is_given_up() && journal.given_up().await.contains("POST http://pay.example"));
        assert!(!journal.has_rows(), "it is in memory alone");
    }
}
