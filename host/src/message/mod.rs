//! The data that the parts of the host pass to each other: messages with their delivery records, outcomes and faults,
//! and the effects of a call.
//!
//! ```text
//! Draft -> admission -> Envelope in an Outgoing -> commit -> Deliver::put -> handler -> Outcome -> Waiter
//!                                                                  '-- GuestHost: what a running handler may ask for
//! ```
//! Every other folder may import this one, and it imports none of those that act: no engine, no store, no agent. The
//! records of the contract are plain types here, and `wasm` converts them at its border by moving their fields.

mod conflict;
mod contract;
mod deliver;
mod diagnostics;
mod effects;
mod envelope;
mod fault;
mod guest_host;
mod http_call;
mod id;
mod journal;
mod journal_entries;
mod journal_rows;
mod memory;
mod outcome;
mod outgoing;
mod recorded_response;
mod request_hash;
mod requests;
mod reservation;
mod tcp;
mod timer;
mod value;

pub(crate) use conflict::{Conflict, ConflictHistory};
pub(crate) use contract::{Cause, Delivery, Draft, Failure, Message, Reply, RequestError, SendError};
pub(crate) use deliver::Deliver;
pub(crate) use diagnostics::{Diagnostics, RefusedMemory};
pub(crate) use effects::{CLOSED, CommitFailure, CommitMode, Committer, Effects, Write};
pub(crate) use envelope::{Attempt, Envelope};
pub(crate) use fault::{ExceededBound, Fault};
pub(crate) use guest_host::{CallContext, CallOrigin, GuestHost, Identity, LogLevel, Read, Seen};
pub(crate) use http_call::{CallBody, CallScope, CallTimeouts, GuestHttpCall, HttpCallError, OpenResponse};
pub(crate) use id::{is_id, new_id};
pub(crate) use journal::{CallJournal, CallToBegin, FollowedCall, JournalStep};
pub(crate) use journal_rows::{JournalPlace, JournalRows, StoredCall};
pub(crate) use memory::{InstanceMemory, LinePlace, MemoryLine};
pub(crate) use outcome::{Answer, Outcome, Waiter};
pub(crate) use outgoing::{Dispatch, Outgoing, Refusal, ReservedPlace};
pub(crate) use recorded_response::{MaskedText, RecordedResponse, ResponseTap, SharedResponse};
pub(crate) use request_hash::{HashedBody, RequestHasher, declared_length};
pub(crate) use requests::RequestLog;
pub(crate) use reservation::{KeyReservations, Reservation, RunContext};
pub(crate) use tcp::{GuestConnect, LookedUp, TcpConnection, TcpError, TcpWritten};
pub(crate) use timer::{TimerCancel, TimerName};
pub(crate) use value::{Expiry, NotANumber, Value, is_as_seen, sum};
