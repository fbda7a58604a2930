//! The rows of version 1 that have no message.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::store::record::{ConversationRow, OtherRow};

/// [`ConversationRow`] in version 1.
#[derive(Serialize, Deserialize)]
pub(in crate::store::record::wire) enum ConversationRowV1<'a> {
    Set {
        id: u64,
        #[serde(borrow)]
        name: Cow<'a, str>,
        first: u64,
        last: u64,
        messages: u64,
        #[serde(borrow)]
        record: Cow<'a, str>,
        first_seq: u64,
    },
    Activity {
        id: u64,
        last: u64,
        messages: u64,
    },
    Ended {
        id: u64,
        name: &'a str,
        first: u64,
        last: u64,
        messages: u64,
        #[serde(borrow)]
        record: Cow<'a, str>,
        ended: u64,
        first_seq: u64,
    },
    ActivityRemoved {
        id: u64,
    },
    EndedRemoved {
        before: i64,
    },
    Beginning {
        agent: &'a str,
        conversation: &'a str,
        first: u64,
        last: u64,
    },
    BeginningsRemoved {
        before: i64,
    },
}

impl<'a> ConversationRowV1<'a> {
    pub(super) fn of(row: &'a ConversationRow<'_>) -> Self {
        match row {
            ConversationRow::Set { id, name, first, last, messages, record, first_seq } => Self::Set {
                id: *id,
                name: Cow::Borrowed(name),
                first: *first,
                last: *last,
                messages: *messages,
                record: Cow::Borrowed(record),
                first_seq: *first_seq,
            },
            ConversationRow::Activity { id, last, messages } => {
                Self::Activity { id: *id, last: *last, messages: *messages }
            }
            ConversationRow::Ended { id, name, first, last, messages, record, ended, first_seq } => Self::Ended {
                id: *id,
                name,
                first: *first,
                last: *last,
                messages: *messages,
                record: Cow::Borrowed(record),
                ended: *ended,
                first_seq: *first_seq,
            },
            ConversationRow::ActivityRemoved { id } => Self::ActivityRemoved { id: *id },
            ConversationRow::EndedRemoved { before } => Self::EndedRemoved { before: *before },
            ConversationRow::Beginning { agent, conversation, first, last } => {
                Self::Beginning { agent, conversation, first: *first, last: *last }
            }
            ConversationRow::BeginningsRemoved { before } => Self::BeginningsRemoved { before: *before },
        }
    }

    pub(super) fn into_row(self) -> ConversationRow<'a> {
        match self {
            Self::Set { id, name, first, last, messages, record, first_seq } => {
                ConversationRow::Set { id, name, first, last, messages, record, first_seq }
            }
            Self::Activity { id, last, messages } => ConversationRow::Activity { id, last, messages },
            Self::Ended { id, name, first, last, messages, record, ended, first_seq } => {
                ConversationRow::Ended { id, name, first, last, messages, record, ended, first_seq }
            }
            Self::ActivityRemoved { id } => ConversationRow::ActivityRemoved { id },
            Self::EndedRemoved { before } => ConversationRow::EndedRemoved { before },
            Self::Beginning { agent, conversation, first, last } => {
                ConversationRow::Beginning { agent, conversation, first, last }
            }
            Self::BeginningsRemoved { before } => ConversationRow::BeginningsRemoved { before },
        }
    }
}

/// [`OtherRow`] in version 1.
#[derive(Serialize, Deserialize)]
pub(in crate::store::record::wire) enum OtherRowV1<'a> {
    Counters {
        seq: u64,
        version: u64,
    },
    Key {
        agent: &'a str,
        key: &'a str,
        fingerprint: &'a [u8],
        id: &'a str,
        conversation: &'a str,
        at: u64,
    },
    KeysRemoved {
        before: i64,
    },
    Fired {
        agent: &'a str,
        schedule: &'a str,
        at: u64,
    },
    Event {
        id: i64,
        at: u64,
        #[serde(borrow)]
        agent: Option<&'a str>,
        kind: &'a str,
        #[serde(borrow)]
        data: Cow<'a, str>,
    },
    EventsRemoved {
        up_to: i64,
    },
    Revision {
        agent: &'a str,
        number: u64,
        digest: &'a str,
        settings: &'a str,
        created_at: u64,
    },
    RevisionsRemoved {
        agent: &'a str,
        before: u64,
    },
}

impl<'a> OtherRowV1<'a> {
    pub(super) fn of(row: &'a OtherRow<'_>) -> Self {
        match row {
            OtherRow::Counters { seq, version } => Self::Counters { seq: *seq, version: *version },
            OtherRow::Key { agent, key, fingerprint, id, conversation, at } => {
                Self::Key { agent, key, fingerprint, id, conversation, at: *at }
            }
            OtherRow::KeysRemoved { before } => Self::KeysRemoved { before: *before },
            OtherRow::Fired { agent, schedule, at } => Self::Fired { agent, schedule, at: *at },
            OtherRow::Event { id, at, agent, kind, data } => {
                Self::Event { id: *id, at: *at, agent: *agent, kind, data: Cow::Borrowed(data) }
            }
            OtherRow::EventsRemoved { up_to } => Self::EventsRemoved { up_to: *up_to },
            OtherRow::Revision { agent, number, digest, settings, created_at } => {
                Self::Revision { agent, number: *number, digest, settings, created_at: *created_at }
            }
            OtherRow::RevisionsRemoved { agent, before } => Self::RevisionsRemoved { agent, before: *before },
        }
    }

    pub(super) fn into_row(self) -> OtherRow<'a> {
        match self {
            Self::Counters { seq, version } => OtherRow::Counters { seq, version },
            Self::Key { agent, key, fingerprint, id, conversation, at } => {
                OtherRow::Key { agent, key, fingerprint, id, conversation, at }
            }
            Self::KeysRemoved { before } => OtherRow::KeysRemoved { before },
            Self::Fired { agent, schedule, at } => OtherRow::Fired { agent, schedule, at },
            Self::Event { id, at, agent, kind, data } => OtherRow::Event { id, at, agent, kind, data },
            Self::EventsRemoved { up_to } => OtherRow::EventsRemoved { up_to },
            Self::Revision { agent, number, digest, settings, created_at } => {
                OtherRow::Revision { agent, number, digest, settings, created_at }
            }
            Self::RevisionsRemoved { agent, before } => OtherRow::RevisionsRemoved { agent, before },
        }
    }
}
