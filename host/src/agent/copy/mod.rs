//! Handling copies of messages: nothing of what comes of them leaves.
//!
//! ```text
//! shadow:    stable handles a message, and what it sees is recorded (tape)
//!              --> candidate handles a copy, and sees the same (replay) --> compared with what stable did
//!                    '-- so does stable once more: what differs then differs by nature
//! rehearsal: candidate handles the last messages, each against the state that is (overlay) and what it wrote itself
//!                    |-- one fails: so does stable? then it is no fault of the candidate
//!                    '-- one is answered: is it as stable answers it, on another copy? (likeness)
//! ```
//! Copies have instances of their own, so that nothing that they leave in memory meets a live message. What a handler
//! does to the system is collected as always; here it is looked at and dropped. A copy asks nobody: it gets the
//! answer that stable got, or none.

mod answer;
mod call;
mod given;
mod likeness;
mod migrate;
mod overlay;
mod rehearsal;
mod replay;
mod shadow;
mod side;
mod tape;

use std::sync::Arc;
use std::time::Instant;

pub(super) use call::CallRecording;
pub(super) use given::encode;
pub(crate) use likeness::Likeness;
pub(crate) use rehearsal::{Begins, Rehearsal, Rehearsed};
pub(crate) use shadow::{Shadow, Shadowed};
pub(super) use tape::Recording;

use crate::wasm::{Commits, Effects, Envelope, Fault, Inbox, Outside, Pool, Run, Work, wit};

/// What a handler said, and what it did.
type Said = (Result<Option<wit::Reply>, wit::Failure>, Effects);

/// Lets an instance of `pool` handle a copy of a message, with `outside` around it.
async fn handle(pool: &Arc<Pool>, message: &wit::Message, hops: u32, outside: Arc<dyn Outside>) -> Result<Said, Fault> {
    let time = pool.who.spec.limits.time;
    let deadline = Instant::now() + time;
    // After a fault the lease is dropped, and the instance with it; live ones are not held back for it.
    let mut lease = pool.lease(deadline).await?;
    let conversation = message.conversation_id.clone();
    let commits = Commits::WithResult;
    let work = Work { conversation, hops, deadline, trace: None, outside: Some(outside), commits, run: Run::default() };
    let result = lease.instance().handle(message, work, time).await?;
    let effects = lease.instance().take_effects();
    lease.finish(true);
    Ok((result, effects))
}

/// What a copy hears that asks where no answer is known: it asks nobody.
fn asks_nobody() -> Result<wit::Message, wit::RequestError> {
    let why = "a copy of a message asks nobody".to_owned();
    Err(wit::RequestError::NotSent(wit::SendError::Unavailable(why)))
}

/// Where what copies send is put: nowhere. Nobody's place is taken by it.
struct Nowhere;

impl Inbox for Nowhere {
    fn put(&self, _: Box<Envelope>) -> bool {
        false
    }

    fn work(self: Arc<Self>) {}

    fn reserve_beyond(&self) {}

    fn other(&self, _: &str) -> Option<Arc<dyn Inbox>> {
        None
    }

    fn release(&self) {}
}
