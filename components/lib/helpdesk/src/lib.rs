//! The parts that the agents of the help desk share: the reading of a ticket's text, and the content of their messages.
//!
//! `triage` takes a ticket and calls for proposals, each `desk` proposes or refuses, `triage` accepts the best
//! proposal (FIPA's contract net, document FIPA00029), and `ledger` is told of the decision.

mod contents;
mod text;
mod ticket;

pub use contents::{Answer, Call, Decision, Proposal, Totals};
pub use text::{Fact, Keyword, Reading, Urgency, read, stems};
pub use ticket::{Ticket, TicketError};

/// The protocol that messages between `triage` and the desks are part of.
pub const CONTRACT_NET: &str = "fipa-contract-net";
/// The capability by which desks are found.
pub const DESK: &str = "desk";
