//! Conversations with their participants, state and messages.

use axum::Json;
use axum::extract::State;
use caxton_control::conversation::Conversation;
use http::StatusCode;
use serde::Deserialize;

use super::api::Api;
use super::budgets;
use super::extract::{Named, Params, page_size};
use super::page::{keep_first, keep_last};
use super::problem;
use crate::api_types::{ConversationStatus, ConversationThread, OpenQuestion, ThreadMessage};
use crate::problem::Problem;
use crate::store::{Threaded, on_wall};

/// The number of conversations returned by default.
const PAGE: u32 = 50;
/// The number of messages of one conversation returned by default.
const THREAD: u32 = 1_000;
/// Contents up to this many bytes are returned as text, if they are text.
const SHORT: usize = 1_024;

/// The query of the list of conversations.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ConversationListParams {
    /// Selects conversations with this participant: an agent, or a sender outside.
    participant: Option<String>,
    /// The most to return: 50 by default, 1000 at most.
    limit: Option<u32>,
}

/// Lists conversations, the latest activity first: open ones, and ended ones that are kept.
#[utoipa::path(
    get, path = "/v1/conversations", tag = "conversations", params(ConversationListParams),
    responses((status = 200, body = [ConversationStatus])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<ConversationListParams>,
) -> Result<Json<Vec<ConversationStatus>>, Problem> {
    let limit = page_size(params.limit, PAGE)?;
    let context = std::sync::Arc::clone(&api.context);
    // On a blocking thread: participants are not indexed, so that all records are searched.
    let found = tokio::task::spawn_blocking(move || {
        let participant = params.participant.as_deref();
        Ok((
            context.conversations.list(participant, limit as usize),
            context.store.conversations().ended(participant, limit)?,
        ))
    });
    let found: Result<_, String> = found.await.map_err(|error| problem::host_error(error.to_string()))?;
    let (open, ended) = found.map_err(problem::host_error)?;
    let open = open.into_iter().map(|record| (on_wall(&record).into_owned(), None));
    let ended = ended.into_iter().map(|(record, at)| (record, Some(at)));
    let mut found: Vec<ConversationStatus> = open.chain(ended).map(|(record, at)| status(record, at)).collect();
    found.sort_by_key(|conversation| std::cmp::Reverse(conversation.last_at));
    // Both lists have up to `limit` entries.
    found.truncate(limit as usize);
    // The latest come first, and the oldest are left out.
    keep_first(&mut found);
    Ok(Json(found))
}

/// The query of one conversation.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ThreadParams {
    /// The number of newest messages to return: 1000 by default and at most.
    limit: Option<u32>,
}

/// Returns a conversation with its messages that are kept.
///
/// Kept are those that wait, and the newest handled ones (`store.history`). Calls, whose senders waited for the answer,
/// are counted and not kept.
#[utoipa::path(
    get, path = "/v1/conversations/{id}", tag = "conversations",
    params(("id" = String, Path, description = "The conversation id"), ThreadParams),
    responses((status = 200, body = ConversationThread)),
)]
pub(super) async fn show(
    State(api): State<Api>,
    Named(id): Named<String>,
    Params(params): Params<ThreadParams>,
) -> Result<Json<ConversationThread>, Problem> {
    let limit = page_size(params.limit, THREAD)?;
    let context = std::sync::Arc::clone(&api.context);
    // On a blocking thread: all messages committed since the conversation began are searched.
    let found = tokio::task::spawn_blocking(move || {
        let store = &context.store;
        let conversation = match context.conversations.get(&id) {
            Some(record) => Some(status(on_wall(&record).into_owned(), None)),
            // Open conversations are in memory, ended ones only in the store.
            None => store.conversations().ended_conversation(&id)?.map(|(record, at)| status(record, Some(at))),
        };
        // One more than asked for tells whether there are older ones.
        let mut messages = store.queue().thread(&id, limit + 1)?;
        let more = messages.len() > limit as usize;
        if more {
            // The oldest: the newest are asked for, and the list is in order of time.
            messages.remove(0);
        }
        let budgets = budgets::in_conversation(&context, &id)?;
        Ok((id, conversation, messages, (more, budgets)))
    });
    let found: Result<_, String> = found.await.map_err(|error| problem::host_error(error.to_string()))?;
    let (id, conversation, messages, (more, budgets)) = found.map_err(problem::host_error)?;
    if conversation.is_none() && messages.is_empty() && budgets.is_empty() {
        let detail =
            format!("no conversation `{}` is known; `caxton conversation ls` lists those that are", id.escape_debug());
        return Err(Problem::new(StatusCode::NOT_FOUND, "no-conversation", detail));
    }
    let mut messages: Vec<ThreadMessage> = messages.into_iter().map(message).collect();
    let more = keep_last(&mut messages) || more;
    Ok(Json(ConversationThread { id, conversation, messages, more, budgets }))
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
    // A list of a thousand messages with large contents would be of no use to a reader.
    let short = message.content.len() <= SHORT;
    ThreadMessage {
        id: message.id,
        sent_at: message.sent_at,
        sender: message.sender,
        receiver: message.receiver,
        performative: message.performative.to_string(),
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
