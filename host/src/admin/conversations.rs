//! Conversations: who takes part, how far they are, and what was said.

use axum::Json;
use axum::extract::State;
use caxton_control::conversation::Conversation;
use http::StatusCode;
use serde::Deserialize;

use super::Api;
use super::extract::{Named, Params};
use super::problem::Problem;
use super::state::page;
use crate::status::{ConversationStatus, OpenQuestion, Thread, ThreadMessage};
use crate::store::{Threaded, on_wall};
use crate::wasm::act;

/// Conversations of one list, when nothing else is asked.
const PAGE: u32 = 50;
/// Messages of one thread, when nothing else is asked.
const THREAD: u32 = 1_000;
/// Contents up to so many bytes come as text, if they are text.
const SHORT: usize = 1_024;

/// Which conversations are wanted.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Only those in which it takes part: an agent, or a sender from outside.
    participant: Option<String>,
    /// At most so many: 50 when left out, 1000 at most.
    limit: Option<u32>,
}

/// Conversations with the latest activity first: those that are open, and those that have ended and are kept.
#[utoipa::path(
    get, path = "/v1/conversations", tag = "conversations", params(ListParams),
    responses((status = 200, body = [ConversationStatus])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<ListParams>,
) -> Result<Json<Vec<ConversationStatus>>, Problem> {
    let limit = page(params.limit, PAGE)?;
    let store = std::sync::Arc::clone(&api.commons.store);
    // Who takes part is known to the records alone, which are many.
    let found = tokio::task::spawn_blocking(move || {
        let participant = params.participant.as_deref();
        Ok((store.conversations.list(participant, limit as usize), store.ended(participant, limit)?))
    });
    let found: Result<_, String> = found.await.map_err(|error| Problem::host(error.to_string()))?;
    let (open, ended) = found.map_err(Problem::host)?;
    let open = open.into_iter().map(|record| (on_wall(&record).into_owned(), None));
    let ended = ended.into_iter().map(|(record, at)| (record, Some(at)));
    let mut found: Vec<ConversationStatus> = open.chain(ended).map(|(record, at)| status(record, at)).collect();
    found.sort_by_key(|conversation| std::cmp::Reverse(conversation.last_at));
    found.truncate(limit as usize);
    Ok(Json(found))
}

/// How much of a thread is wanted.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ThreadParams {
    /// The newest so many messages: 1000 when left out and at most.
    limit: Option<u32>,
}

/// A conversation with the messages of it that are kept.
///
/// Kept are those that wait, and the newest handled ones (`store.history`). Calls, whose senders waited for the answer,
/// are counted and not kept.
#[utoipa::path(
    get, path = "/v1/conversations/{id}", tag = "conversations",
    params(("id" = String, Path, description = "Its id"), ThreadParams),
    responses((status = 200, body = Thread)),
)]
pub(super) async fn show(
    State(api): State<Api>,
    Named(id): Named<String>,
    Params(params): Params<ThreadParams>,
) -> Result<Json<Thread>, Problem> {
    let limit = page(params.limit, THREAD)?;
    let store = std::sync::Arc::clone(&api.commons.store);
    // All messages that were committed since it began are looked through, which may take a while.
    let found = tokio::task::spawn_blocking(move || {
        let conversation = match store.conversations.get(&id) {
            Some(record) => Some(status(on_wall(&record).into_owned(), None)),
            None => store.ended_conversation(&id)?.map(|(record, at)| status(record, Some(at))),
        };
        let mut messages = store.thread(&id, limit + 1)?;
        let more = messages.len() > limit as usize;
        if more {
            messages.remove(0);
        }
        Ok((id, conversation, messages, more))
    });
    let found: Result<_, String> = found.await.map_err(|error| Problem::host(error.to_string()))?;
    let (id, conversation, messages, more) = found.map_err(Problem::host)?;
    if conversation.is_none() && messages.is_empty() {
        let detail =
            format!("no conversation `{}` is known; `caxton conversation ls` lists those that are", id.escape_debug());
        return Err(Problem::new(StatusCode::NOT_FOUND, "no-conversation", detail));
    }
    let messages = messages.into_iter().map(message).collect();
    Ok(Json(Thread { id, conversation, messages, more }))
}

fn status(record: Conversation, ended_at: Option<u64>) -> ConversationStatus {
    let question = |left: &caxton_control::conversation::Unanswered| OpenQuestion {
        from: left.from.clone(),
        to: left.to.clone(),
        key: left.key.clone(),
    };
    ConversationStatus {
        state: if ended_at.is_some() { "ended" } else { "open" }.to_owned(),
        unanswered: record.unanswered.iter().filter(|left| !left.closed).map(question).collect(),
        id: record.name,
        initiator: record.initiator.into(),
        participants: record.participants.iter().map(str::to_owned).collect(),
        protocol: record.protocol,
        messages: record.messages,
        first_at: record.first,
        last_at: record.last,
        ended_at,
    }
}

fn message(found: Threaded) -> ThreadMessage {
    let Threaded { envelope, handled, runs } = found;
    let message = envelope.message;
    let (state, revision, dead_letter) = match handled {
        None => ("waiting", None, None),
        Some((_, 0)) => ("dead-letter", None, envelope.seq),
        Some((_, number)) => ("handled", Some(format!("{}@{number}", message.receiver)), None),
    };
    let bytes = message.content.len() as u64;
    let short = message.content.len() <= SHORT;
    ThreadMessage {
        id: message.id,
        sent_at: message.sent_at,
        sender: message.sender,
        receiver: message.receiver,
        performative: act(message.performative).to_string(),
        protocol: message.protocol,
        reply_with: message.reply_with,
        in_reply_to: message.in_reply_to,
        state: state.to_owned(),
        due_at: envelope.due,
        done_at: handled.map(|(at, _)| at),
        runs: revision.is_some().then_some(runs),
        revision,
        dead_letter,
        content_type: message.content_type,
        bytes,
        text: short.then(|| String::from_utf8(message.content).ok()).flatten(),
    }
}
