//! The contents of the messages, as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Reading, Ticket};

/// `cfp` and `accept-proposal`, from triage to a desk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// Names the ticket and no other.
    pub id: String,
    pub ticket: Ticket,
    pub reading: Reading,
}

/// `propose`, from a desk to triage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// The confidence of the desk, from 0 to 1.
    pub score: f64,
    /// The estimated time until the ticket is answered.
    pub minutes: u32,
    /// The category that the desk puts the ticket in.
    pub category: String,
    /// The words on which the score rests.
    pub matched: Vec<String>,
}

/// `inform`, from the desk whose proposal was accepted to triage.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    pub category: String,
    pub text: String,
}

/// `inform`, from triage to the ledger.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Decision {
    pub id: String,
    pub desk: String,
    pub category: String,
}

/// `inform`, the reply of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    pub tickets: i64,
    pub desks: BTreeMap<String, i64>,
    pub categories: BTreeMap<String, i64>,
}
