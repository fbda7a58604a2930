//! Messages as rows: what is looked for has a column, the content has one, all else is encoded in one.

use std::borrow::Cow;

use rusqlite::Row;
use serde::{Deserialize, Serialize};

use crate::budgets::TreeLink;
use crate::clock;
use crate::store::sqlite::whole::CONTENT;
use crate::telemetry::trace::Trace;
use caxton_control::Performative;
use caxton_control::mailbox::Priority;

use crate::message::{Envelope, Message};
use crate::store::record::{ContentRow, DeadRow, QueueRow, Record, TimerRow, TreeRow};

/// The bytes of a failed attempt beside what went wrong, about.
const ATTEMPT: usize = 128;

/// The part of a message that has no column of its own.
#[derive(Serialize, Deserialize)]
struct EncodedHead<'a> {
    // Postcard writes no names: the order of the fields is the format, which a migration reads too.
    id: Cow<'a, str>,
    performative: u8,
    sender: Cow<'a, str>,
    content_type: Cow<'a, str>,
    ontology: Option<Cow<'a, str>>,
    protocol: Option<Cow<'a, str>>,
    reply_with: Option<Cow<'a, str>>,
    in_reply_to: Option<Cow<'a, str>>,
    reply_by: Option<u64>,
    sent_at: u64,
    hops: u32,
    trace: Option<([u8; 16], [u8; 8], u8)>,
    tracestate: Option<Cow<'a, str>>,
    headers: Cow<'a, [(String, String)]>,
}

/// The tree of a message, which follows its head where there is one.
#[derive(Serialize, Deserialize)]
struct EncodedTree<'a> {
    id: Cow<'a, str>,
    budget: Cow<'a, str>,
}

/// Appends what has no column to `buffer`, encoded.
pub(in crate::store) fn encode(envelope: &Envelope, buffer: &mut Vec<u8>) {
    let message = &envelope.message;
    fn text(value: &Option<String>) -> Option<Cow<'_, str>> {
        value.as_deref().map(Cow::Borrowed)
    }
    let head = EncodedHead {
        id: Cow::Borrowed(&message.id),
        performative: message.performative as u8,
        sender: Cow::Borrowed(&message.sender),
        content_type: Cow::Borrowed(&message.content_type),
        ontology: text(&message.ontology),
        protocol: text(&message.protocol),
        reply_with: text(&message.reply_with),
        in_reply_to: text(&message.in_reply_to),
        reply_by: message.reply_by,
        sent_at: message.sent_at,
        hops: envelope.hops,
        trace: envelope.trace.as_ref().map(Trace::parts),
        tracestate: envelope.trace.as_ref().and_then(|trace| trace.state.as_deref()).map(Cow::Borrowed),
        headers: Cow::Borrowed(&message.headers),
    };
    // `to_extend` consumes the buffer, so it is moved out and back.
    let taken = std::mem::take(buffer);
    *buffer = postcard::to_extend(&head, taken).expect("a vector takes whatever is written");
    if let Some((id, budget)) = envelope.tree.as_ref().map(TreeLink::names) {
        // Behind the head, so that all others are as they were before there were trees.
        let tree = EncodedTree { id: Cow::Borrowed(id), budget: Cow::Borrowed(budget.as_str()) };
        let taken = std::mem::take(buffer);
        *buffer = postcard::to_extend(&tree, taken).expect("a vector takes whatever is written");
    }
}

/// Adds the link of a message with its tree.
fn push_tree_of<'a>(record: &mut Record<'a>, envelope: &'a Envelope, seq: u64) {
    if let Some((tree, _)) = envelope.tree.as_ref().map(TreeLink::names) {
        record.push(TreeRow::Message { tree, seq });
    }
}

/// Reads the tree that follows a head; `None` if there is none, or this version cannot read it.
fn tree_of(rest: &[u8]) -> Option<TreeLink> {
    let tree: EncodedTree<'_> = postcard::from_bytes(rest).ok()?;
    Some(TreeLink::Stored(Box::new((tree.id.as_ref().into(), tree.budget.parse().ok()?))))
}

/// Reads from an encoded head ([`encode`]) when the message was sent and until when an answer is of use; `None` if this
/// version cannot read it.
pub(in crate::store) fn times(head: &[u8]) -> Option<(u64, Option<u64>)> {
    postcard::from_bytes::<EncodedHead<'_>>(head).ok().map(|head| (head.sent_at, head.reply_by))
}

/// Reads from an encoded head ([`encode`]) the reference that an answer carries in place of the message's id.
pub(in crate::store) fn reply_with(head: &[u8]) -> Option<String> {
    postcard::from_bytes::<EncodedHead<'_>>(head).ok()?.reply_with.map(Cow::into_owned)
}

/// The rank of a column; normal for one that no version has written.
pub(in crate::store) fn rank(column: i64) -> Priority {
    usize::try_from(column).ok().and_then(|index| Priority::ALL.get(index).copied()).unwrap_or(Priority::Normal)
}

/// Returns the id by which a message from outside is looked up; `None` for a message of an agent, whose name has no
/// colon.
pub(in crate::store) fn receipt(message: &Message) -> Option<&str> {
    message.sender.contains(':').then_some(message.id.as_str())
}

/// Adds the row of a message that waits in its mailbox.
///
/// `placed` is its content, if that is in pieces; here and below.
pub(in crate::store) fn push_message<'a>(
    record: &mut Record<'a>,
    envelope: &'a Envelope,
    seq: u64,
    placed: Option<u64>,
) {
    let message = &envelope.message;
    let head = record.push_head(|heads| encode(envelope, heads));
    // A wait is kept as a time of the wall clock, so that it goes on after a restart.
    let due = envelope.due.map(|due| envelope.due_at.unwrap_or_else(|| clock::to_wall(due)));
    record.push(QueueRow::Message {
        seq,
        agent: &message.receiver,
        conversation: &message.conversation_id,
        rank: message.priority as u8,
        due,
        receipt: receipt(message),
        head,
        content: own_content(message, placed),
        revived: envelope.revived,
    });
    push_tree_of(record, envelope, seq);
    if let Some(content) = placed {
        record.push(ContentRow::OfMessage { seq, content });
    }
}

/// Returns the content that the row of a message has itself.
fn own_content(message: &Message, placed: Option<u64>) -> &[u8] {
    if placed.is_some() { &[] } else { &message.content }
}

/// Adds the row of a message that waits for its time.
pub(in crate::store) fn push_timer<'a>(
    record: &mut Record<'a>,
    envelope: &'a Envelope,
    (seq, due): (u64, u64),
    placed: Option<u64>,
) {
    let message = &envelope.message;
    let head = record.push_head(|heads| encode(envelope, heads));
    record.push(TimerRow::Set {
        seq,
        agent: &message.receiver,
        due,
        at: envelope.due_at.unwrap_or_else(|| clock::to_wall(due)),
        dated: envelope.due_at.is_some(),
        conversation: &message.conversation_id,
        rank: message.priority as u8,
        id: &message.id,
        sender: &message.sender,
        name: envelope.timer.as_deref(),
        head,
        content: own_content(message, placed),
    });
    push_tree_of(record, envelope, seq);
    if let Some(content) = placed {
        record.push(ContentRow::OfTimer { seq, content });
    }
}

/// Adds the row of a message that is given up, for a reason that has a stable code and a text.
pub(in crate::store) fn push_dead<'a>(
    record: &mut Record<'a>,
    envelope: &'a Envelope,
    (seq, placed): (u64, Option<u64>),
    (reason, error): (&'a str, Cow<'a, str>),
    at: u64,
) {
    let message = &envelope.message;
    let head = record.push_head(|heads| encode(envelope, heads));
    record.push(DeadRow::Set {
        seq,
        agent: &message.receiver,
        conversation: &message.conversation_id,
        rank: message.priority as u8,
        head,
        content: own_content(message, placed),
        at,
        reason,
        error,
        attempts: Cow::Owned(serde_json::to_string(&envelope.failed).expect("attempts are numbers and text")),
        receipt: receipt(message),
    });
    push_tree_of(record, envelope, seq);
    if let Some(content) = placed {
        record.push(ContentRow::OfDead { seq, content });
    }
    // The dead letter has them now; most messages have none, and need no delete.
    if !envelope.failed.is_empty() {
        record.push(QueueRow::AttemptsRemoved { seq });
    }
}

/// Returns the bytes of a dead letter beside its head: its content, and what went wrong.
pub(in crate::store) fn bytes_of_dead(envelope: &Envelope, error: &str) -> u64 {
    let attempts: usize = envelope.failed.iter().map(|attempt| attempt.error.len() + ATTEMPT).sum();
    (envelope.message.content.len() + error.len() + attempts) as u64
}

/// Returns the columns of `message` or `dead` that [`decode`] reads, in its order.
pub(in crate::store) fn columns() -> String {
    format!("seq, agent, conversation, rank, due, head, {CONTENT}")
}

/// A message of a row with [`columns`].
pub(in crate::store) fn decode(row: &Row<'_>) -> rusqlite::Result<Envelope> {
    let bytes = row.get_ref(5)?.as_blob()?;
    let (head, rest): (EncodedHead<'_>, &[u8]) = postcard::take_from_bytes(bytes)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(5, rusqlite::types::Type::Blob, Box::new(error)))?;
    let act = Performative::ALL.get(usize::from(head.performative));
    let act = *act.ok_or(rusqlite::Error::IntegralValueOutOfRange(5, head.performative.into()))?;
    let seq: i64 = row.get(0)?;
    let own = |value: Option<Cow<'_, str>>| value.map(Cow::into_owned);
    let message = Message {
        id: head.id.into_owned(),
        performative: act,
        sender: head.sender.into_owned(),
        receiver: row.get(1)?,
        content: row.get(6)?,
        content_type: head.content_type.into_owned(),
        ontology: own(head.ontology),
        protocol: own(head.protocol),
        conversation_id: row.get(2)?,
        reply_with: own(head.reply_with),
        in_reply_to: own(head.in_reply_to),
        reply_by: head.reply_by,
        priority: rank(row.get(3)?),
        sent_at: head.sent_at,
        // The mailbox counts from the failed attempts, which have rows of their own.
        attempt: 1,
        headers: head.headers.into_owned(),
    };
    let state = own(head.tracestate);
    let trace = head.trace.map(|parts| Trace::of(parts, state));
    Ok(Envelope {
        seq: Some(seq.cast_unsigned()),
        due: row.get::<_, Option<i64>>(4)?.map(|due| clock::from_wall(due.cast_unsigned())),
        hops: head.hops,
        trace,
        tree: tree_of(rest),
        ..Envelope::new(message)
    })
}
