//! The rows of trees in version 1.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::store::record::TreeRow;

/// [`TreeRow`] in version 1.
#[derive(Serialize, Deserialize)]
pub(in crate::store::record::wire) enum TreeRowV1<'a> {
    Set {
        id: &'a str,
        budget: &'a str,
        conversation: &'a str,
        last: u64,
        #[serde(borrow)]
        record: Cow<'a, str>,
    },
    Message {
        tree: &'a str,
        seq: u64,
    },
    Unlinked {
        up_to: u64,
    },
    Removed {
        before: u64,
        keep: u64,
    },
}

impl<'a> TreeRowV1<'a> {
    pub(super) fn of(row: &'a TreeRow<'_>) -> Self {
        match row {
            TreeRow::Set { id, budget, conversation, last, record } => {
                Self::Set { id, budget, conversation, last: *last, record: Cow::Borrowed(record) }
            }
            TreeRow::Message { tree, seq } => Self::Message { tree, seq: *seq },
            TreeRow::Unlinked { up_to } => Self::Unlinked { up_to: *up_to },
            TreeRow::Removed { before, keep } => Self::Removed { before: *before, keep: *keep },
        }
    }

    pub(super) fn into_row(self) -> TreeRow<'a> {
        match self {
            Self::Set { id, budget, conversation, last, record } => {
                TreeRow::Set { id, budget, conversation, last, record }
            }
            Self::Message { tree, seq } => TreeRow::Message { tree, seq },
            Self::Unlinked { up_to } => TreeRow::Unlinked { up_to },
            Self::Removed { before, keep } => TreeRow::Removed { before, keep },
        }
    }
}
