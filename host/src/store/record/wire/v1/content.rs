//! The rows of version 1 that have contents in pieces.

use serde::{Deserialize, Serialize};

use crate::store::record::ContentRow;

/// [`ContentRow`] in version 1.
#[derive(Serialize, Deserialize)]
pub(in crate::store::record::wire) enum ContentRowV1<'a> {
    Piece { content: u64, number: u64, data: &'a [u8] },
    OfMessage { seq: u64, content: u64 },
    OfTimer { seq: u64, content: u64 },
    OfDead { seq: u64, content: u64 },
    OfKey { agent: &'a str, key: &'a str, content: u64 },
    PiecesRemoved { content: u64, up_to: u64 },
    Forgotten { content: u64 },
}

impl<'a> ContentRowV1<'a> {
    pub(super) fn of(row: &ContentRow<'a>) -> Self {
        match *row {
            ContentRow::Piece { content, number, data } => Self::Piece { content, number, data },
            ContentRow::OfMessage { seq, content } => Self::OfMessage { seq, content },
            ContentRow::OfTimer { seq, content } => Self::OfTimer { seq, content },
            ContentRow::OfDead { seq, content } => Self::OfDead { seq, content },
            ContentRow::OfKey { agent, key, content } => Self::OfKey { agent, key, content },
            ContentRow::PiecesRemoved { content, up_to } => Self::PiecesRemoved { content, up_to },
            ContentRow::Forgotten { content } => Self::Forgotten { content },
        }
    }

    pub(super) fn into_row(self) -> ContentRow<'a> {
        match self {
            Self::Piece { content, number, data } => ContentRow::Piece { content, number, data },
            Self::OfMessage { seq, content } => ContentRow::OfMessage { seq, content },
            Self::OfTimer { seq, content } => ContentRow::OfTimer { seq, content },
            Self::OfDead { seq, content } => ContentRow::OfDead { seq, content },
            Self::OfKey { agent, key, content } => ContentRow::OfKey { agent, key, content },
            Self::PiecesRemoved { content, up_to } => ContentRow::PiecesRemoved { content, up_to },
            Self::Forgotten { content } => ContentRow::Forgotten { content },
        }
    }
}
