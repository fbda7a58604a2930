//! The mailbox as those who send see it: a place that is kept, and then filled.

use std::sync::Arc;

use super::{Agent, CONVERSATIONS, Outcomes, Taking, worker};
use crate::clock;
use crate::wasm::{Envelope, Inbox, rank};

impl Inbox for Agent {
    fn put(&self, envelope: Box<Envelope>) -> bool {
        let conversation = CONVERSATIONS.hash_one(&envelope.message.conversation_id);
        let (rank, due) = (rank(envelope.message.priority), envelope.due);
        let slot = self.slot(envelope);
        let over_at = self.over_at(&slot);
        let start = {
            let mut inbox = self.inbox.lock();
            if inbox.leaving && self.is_kept(&slot) {
                self.forget(&slot);
                inbox.mailbox.release();
                return false;
            }
            self.watch(&mut inbox, over_at);
            let now = clock::now_ms();
            match due.filter(|due| *due > now) {
                Some(due) => inbox.mailbox.push_later(conversation, rank, due, slot),
                None => inbox.mailbox.push(conversation, rank, now, slot),
            }
            self.may_start(&mut inbox)
        };
        self.stats.count(Outcomes::Accepted);
        start
    }

    fn work(self: Arc<Self>) {
        tokio::spawn(worker::work(self));
    }

    fn reserve_beyond(&self) {
        self.inbox.lock().mailbox.reserve_beyond();
    }

    fn release(&self) {
        let last = {
            let mut inbox = self.inbox.lock();
            inbox.mailbox.release();
            !matches!(inbox.taking, Taking::All) && inbox.mailbox.depth() == 0
        };
        if last {
            // The agent may end now, for which the reconciler waits.
            self.commons.wake(self.name.shared());
        }
    }
}
