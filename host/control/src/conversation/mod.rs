//! The conversations: their participants, the state of their protocols and their unanswered messages (SPEC §7).
//!
//! `record` is what the store keeps of a conversation, `speech_act` what a conversation sees of a message. `checks`
//! admits a message to the record or refuses it; `binding` keeps an agent's part of it on one revision while traffic is
//! split.

mod binding;
mod checks;
mod participants;
mod record;
mod speech_act;

pub use checks::{ConversationChange, ConversationError, MAX_RUNS};
pub use participants::Participants;
pub use record::{Conversation, MAX_UNANSWERED, RevisionBinding, Unanswered};
pub use speech_act::{SpeechAct, awaits_answer};
