//! The journal's part in a call: what it does when a call begins, and when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use caxton_control::journal::{CallKey, CallOutcome, JournalRules, RequestHash, is_safe};
use caxton_control::place::CallPlace;
use futures::StreamExt as _;
use http::{HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::BodyExt;
use parking_lot::Mutex;

use super::report::{CallNote, CallProblem, NoteKind, OnNote, OnProblem, origin};
use crate::clock;
use crate::message::{
    CallBody, CallJournal, CallScope, CallToBegin, FollowedCall, HashedBody, HttpCallError, JournalStep, MaskedText,
    RecordedResponse, RequestHasher, ResponseTap, StoredCall, declared_length,
};

/// The header by which a server knows a request that it had before.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A call that was granted and is about to begin.
pub(super) struct CallBegin<'a> {
    /// The place, with its name.
    pub(super) place: (&'a CallPlace, &'a Arc<str>),
    /// The head as the guest gave it.
    pub(super) head: &'a mut http::request::Parts,
    pub(super) body: CallBody,
    /// The most bytes that a journal may have, and a request that is recorded.
    pub(super) most: u64,
    /// The secrets that the host adds, which are not stored.
    pub(super) masks: Vec<MaskedText>,
}

/// The end of a call before it begins.
pub(super) enum NotBegun {
    /// The record has the answer.
    Answered(Box<Result<http::Response<CallBody>, HttpCallError>>),
    /// The call must not be made, for this reason.
    Refused(HttpCallError, String),
}

/// A call that has begun, until it has ended.
pub(super) struct BegunCall {
    follows: CallFollowing,
    /// Set once the server may have a part of the request.
    has_left: AtomicBool,
}

/// The way in which a call is recorded.
enum CallFollowing {
    /// It is not.
    Unrecorded,
    /// It is in memory, while its bodies are passed on.
    Passed(FollowedCall, u64),
    /// It is kept with its message, its bodies read whole before they are passed on.
    Kept(Box<KeptCall>),
}

/// A call that is kept with its message.
struct KeptCall {
    journal: Arc<CallJournal>,
    key: CallKey,
    /// The most bytes that are recorded.
    most: u64,
    masks: Vec<MaskedText>,
    problem: CallProblem,
    on_problem: OnProblem,
    /// Set once the outcome is noted.
    is_settled: bool,
}

/// Begins a call: answers it from the record, or notes that it begins; that is durable before this returns. Returns the
/// body that is to be sent.
///
/// # Errors
/// The call is not made.
pub(super) async fn begin(
    call: CallBegin<'_>,
    journal: Option<&Arc<CallJournal>>,
    (on_note, on_problem): (&OnNote, &OnProblem),
    scope: &CallScope,
) -> Result<(BegunCall, CallBody), NotBegun> {
    let CallBegin { place: (place, name), head, body, most, masks } = call;
    let rules = place.journal();
    let Some(journal) = journal else { return Ok((BegunCall::new(CallFollowing::Unrecorded), body)) };
    if journal.is_given_up() {
        let why = "the message is given up, as the outcome of an earlier call is not known".to_owned();
        return Err(NotBegun::Refused(HttpCallError::Denied, why));
    }
    let line = format!("{} {}", head.method, origin(&head.uri));
    let hasher = RequestHasher::new(head);
    let head_hash = hasher.clone().finish();
    let is_read_whole = rules.is_kept || rules.adds_key || journal.may_answer(head_hash);
    let read = if is_read_whole { read_whole(hasher.clone(), body, most).await? } else { RequestRead::Open(body) };
    let (hash, body) = match read {
        RequestRead::Whole(hash, body) => (hash, body),
        RequestRead::Open(_) if rules.is_kept || rules.adds_key => {
            let why = format!(
                "its body has more than {most} bytes, which is the most of a request that is recorded (outgoing.journal-max)"
            );
            return Err(NotBegun::Refused(HttpCallError::RequestTooLarge(most), why));
        }
        RequestRead::Open(body) if !journal.follows_all() => {
            return Ok((BegunCall::new(CallFollowing::Unrecorded), body));
        }
        RequestRead::Open(body) => {
            let followed = journal.follow(head_hash, &line);
            let hashed = followed.clone();
            let body = HashedBody::new(
                body,
                declared_length(&head.headers),
                hasher,
                Box::new(move |hash| hashed.hashed(hash)),
            );
            return Ok((BegunCall::new(CallFollowing::Passed(followed, most)), body.boxed_unsync()));
        }
    };
    let (is_safe, has_own_key) = (is_safe(head.method.as_str()), head.headers.contains_key(IDEMPOTENCY_KEY));
    let asked = CallToBegin { head: head_hash, hash, line: line.clone(), is_safe, has_own_key, most };
    let note = |kind| on_note(&CallNote { place: Arc::clone(name), line: line.clone(), kind });
    let key = key_to_make(journal.ask(&asked, rules).map_err(not_recorded)?, most, note)?;
    if rules.adds_key && !has_own_key {
        let value = HeaderValue::from_str(&journal.idempotency_key(key)).expect("hexadecimal digits are a header's");
        head.headers.insert(IDEMPOTENCY_KEY, value);
    }
    let (place, method) = (Some(Arc::clone(name)), head.method.to_string());
    let error = HttpCallError::ResponseTooLarge(most);
    let problem = CallProblem { place, origin: origin(&head.uri), method, error, reason: String::new() };
    let begun = BegunCall::follow(journal, rules, (key, most, masks), (problem, on_problem.clone()));
    if rules.is_kept {
        // The message may have ended while its request was read.
        if scope.is_ended() {
            return Err(NotBegun::Answered(Box::new(Err(HttpCallError::TimeOver))));
        }
        let call = StoredCall { key, outcome: CallOutcome::Unknown, line, at: clock::now_ms(), bytes: 0 };
        journal.begin(call).await.map_err(not_recorded)?;
    }
    Ok((begun, body))
}

/// Returns the identity of a call that is to be made, and tells of what the journal decided.
fn key_to_make(step: JournalStep, most: u64, note: impl Fn(NoteKind)) -> Result<CallKey, NotBegun> {
    match step {
        JournalStep::Answer(answer) => {
            note(NoteKind::Answered);
            Err(NotBegun::Answered(Box::new(answer)))
        }
        JournalStep::GiveUp => {
            note(NoteKind::Unknown);
            let why =
                "it began in an earlier attempt, and whether it was carried out is not known (`unknown` of its place)";
            Err(NotBegun::Refused(HttpCallError::Denied, why.to_owned()))
        }
        JournalStep::NotHeld => {
            let why = "the handler runs again after a conflict, and the response that it got before was too large to be \
                       kept for this (outgoing.journal-max)";
            Err(NotBegun::Refused(HttpCallError::ResponseTooLarge(most), why.to_owned()))
        }
        JournalStep::Make { key, is_repeated, is_other } => {
            if is_other {
                note(NoteKind::Diverged);
            }
            if is_repeated {
                note(NoteKind::Repeated);
            }
            Ok(key)
        }
    }
}

fn not_recorded(error: HttpCallError) -> NotBegun {
    let why = error.to_string();
    NotBegun::Refused(error, why)
}

/// The body of a request, once it was read or was not.
enum RequestRead {
    /// All of it was read.
    Whole(RequestHash, CallBody),
    /// It is longer than what is read, or is not read.
    Open(CallBody),
}

/// Reads a body of up to `most` bytes.
async fn read_whole(mut hasher: RequestHasher, mut body: CallBody, most: u64) -> Result<RequestRead, NotBegun> {
    let (mut frames, mut bytes) = (Vec::new(), 0_u64);
    while let Some(frame) = body.frame().await {
        // The guest's own doing, as it broke off.
        let frame = frame.map_err(|error| NotBegun::Answered(Box::new(Err(error))))?;
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        hasher.frame(&frame);
        frames.push(frame);
        if bytes > most {
            let read = futures::stream::iter(frames.into_iter().map(Ok));
            let all = read.chain(http_body_util::BodyStream::new(body));
            return Ok(RequestRead::Open(http_body_util::StreamBody::new(all).boxed_unsync()));
        }
    }
    Ok(RequestRead::Whole(hasher.finish(), whole(frames)))
}

/// Returns a body of these frames. One without trailers has a length, which is sent with it.
fn whole(frames: Vec<Frame<Bytes>>) -> CallBody {
    let never = |never: std::convert::Infallible| match never {};
    if frames.iter().all(Frame::is_data) {
        let mut data: Vec<Bytes> = frames.into_iter().filter_map(|frame| frame.into_data().ok()).collect();
        let bytes = match data.len() {
            0 | 1 => data.pop().unwrap_or_default(),
            _ => data.concat().into(),
        };
        return http_body_util::Full::new(bytes).map_err(never).boxed_unsync();
    }
    http_body_util::StreamBody::new(futures::stream::iter(frames.into_iter().map(Ok))).boxed_unsync()
}

impl BegunCall {
    fn new(follows: CallFollowing) -> Self {
        Self { follows, has_left: AtomicBool::new(false) }
    }

    fn follow(
        journal: &Arc<CallJournal>,
        rules: JournalRules,
        (key, most, masks): (CallKey, u64, Vec<MaskedText>),
        (problem, on_problem): (CallProblem, OnProblem),
    ) -> Self {
        Self::new(if rules.is_kept {
            let journal = Arc::clone(journal);
            CallFollowing::Kept(Box::new(KeptCall {
                journal,
                key,
                most,
                masks,
                problem,
                on_problem,
                is_settled: false,
            }))
        } else {
            match journal.followed(key) {
                Some(followed) => CallFollowing::Passed(followed, most),
                None => CallFollowing::Unrecorded,
            }
        })
    }

    /// Notes that the server may have a part of the request from now on.
    pub(super) fn leaves(&self) {
        // Relaxed: read by the task of the call, and when it is dropped.
        self.has_left.store(true, Ordering::Relaxed);
    }

    /// Ends a call with what came of it, which is durable before this returns. Returns what the guest gets.
    pub(super) async fn end(
        mut self,
        made: Result<http::Response<CallBody>, HttpCallError>,
    ) -> Result<http::Response<CallBody>, HttpCallError> {
        let has_left = self.has_left.load(Ordering::Relaxed);
        match &mut self.follows {
            CallFollowing::Unrecorded => made,
            CallFollowing::Passed(followed, most) => match made {
                Ok(response) => Ok(pass_on(response, followed, *most)),
                Err(error) => {
                    followed.failed(&error);
                    Err(error)
                }
            },
            CallFollowing::Kept(call) => match made {
                Ok(response) => call.record(response).await,
                Err(error) if has_left => {
                    call.fail(&error);
                    Err(error)
                }
                Err(error) => {
                    call.is_settled = true;
                    call.journal.forget(call.key).await;
                    Err(error)
                }
            },
        }
    }
}

/// Records a response while the guest reads it.
fn pass_on(response: http::Response<CallBody>, followed: &FollowedCall, most: u64) -> http::Response<CallBody> {
    let (head, body) = response.into_parts();
    let record = Arc::new(Mutex::new(RecordedResponse::new(&head)));
    followed.answered(&record);
    let counted = followed.clone();
    let body = ResponseTap::new(body, record, Box::new(move |bytes| counted.admit(bytes, most)));
    http::Response::from_parts(head, body.boxed_unsync())
}

impl KeptCall {
    fn fail(&mut self, error: &HttpCallError) {
        self.is_settled = true;
        self.journal.fail(self.key, error);
    }

    /// Reads a response whole and records it. Returns it once that is durable.
    async fn record(&mut self, response: http::Response<CallBody>) -> Result<http::Response<CallBody>, HttpCallError> {
        let (head, mut body) = response.into_parts();
        let mut record = RecordedResponse::new(&head);
        let mut counted = 0;
        loop {
            let bytes = record.bytes() as u64;
            if !self.journal.admit(bytes - counted, self.most) {
                self.journal.give_back(counted);
                // Given up before that is noted: the connection need not wait for the disk.
                drop(body);
                return Err(self.too_large().await);
            }
            counted = bytes;
            match body.frame().await {
                Some(Ok(frame)) => record.push(&frame),
                Some(Err(error)) => {
                    self.journal.give_back(counted);
                    self.fail(&error);
                    return Err(error);
                }
                None => break,
            }
        }
        record.end();
        let response = record.to_response();
        self.journal.end(self.key, record.masked(&self.masks)).await?;
        self.is_settled = true;
        Ok(response)
    }

    /// Records that the response has more bytes than there is room for. Returns the error that the guest gets.
    async fn too_large(&mut self) -> HttpCallError {
        let error = HttpCallError::ResponseTooLarge(self.most);
        let reason = format!(
            "the responses to the message's recorded calls have more than {} bytes (outgoing.journal-max) ({})",
            self.most,
            error.code()
        );
        (self.on_problem)(&CallProblem { reason, ..self.problem.clone() });
        match self.journal.end_too_large(self.key, &error).await {
            Ok(()) => {
                self.is_settled = true;
                error
            }
            Err(not_recorded) => not_recorded,
        }
    }
}

impl Drop for BegunCall {
    fn drop(&mut self) {
        // Of a call that was given up in the middle, and of which no byte left: it counts as not made.
        if let CallFollowing::Kept(call) = &self.follows
            && !call.is_settled
            && !self.has_left.load(Ordering::Relaxed)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(call.journal.forget(call.key));
        }
    }
}
