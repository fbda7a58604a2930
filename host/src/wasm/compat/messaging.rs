//! `wasmcloud:messaging@0.2.0`: its handler is a mailbox, and its consumer sends to agents.
//!
//! ```text
//! subject `orders`, `orders.created` -> the agent `orders`, with the subject in the header `subject`
//! subject `cap:billing.paid`         -> an agent with the capability `billing`
//! reply-to of a request that came    -> `_reply.ID`, unless its sender has named another; what is published there is the
//!                                       handling's reply
//! ```

use caxton_control::Performative;
use caxton_control::conversation::awaits_answer;
use wasmtime::component::{ComponentExportIndex, ComponentType, Lift, Linker, Lower, TypedFunc};
use wasmtime::{AsContextMut, Store, StoreContextMut};

use super::buckets::Returned;
use super::offer::BROKER_HANDLER;
use super::pending_reply::PendingReply;
use crate::message::{Cause, Failure, Message, Reply};
use crate::wasm::bindings::caxton::agent::messaging::Host as _;
use crate::wasm::bindings::types as wit;
use crate::wasm::call::ctx::Ctx;

/// The type of contents, of which the interface says nothing.
const CONTENT_TYPE: &str = "application/octet-stream";
/// The headers that carry what a message of the contract has no field for.
const SUBJECT: &str = "subject";
const REPLY_TO: &str = "reply-to";

/// `broker-message` of `types`.
#[derive(ComponentType, Lift, Lower)]
#[component(record)]
pub(in crate::wasm) struct BrokerMessage {
    subject: String,
    body: Vec<u8>,
    #[component(name = "reply-to")]
    reply_to: Option<String>,
}

type Handle = TypedFunc<(BrokerMessage,), (Result<(), String>,)>;

/// The place of `handle-message` among the exports of a component.
pub(in crate::wasm) struct BrokerIndex(ComponentExportIndex);

/// `handle-message` of an instance.
pub(in crate::wasm) struct BrokerHandler(Handle);

impl BrokerIndex {
    /// Finds the function among the exports of a component.
    pub(in crate::wasm) fn find(component: &wasmtime::component::Component) -> wasmtime::Result<Self> {
        let found = component
            .get_export_index(None, BROKER_HANDLER)
            .and_then(|interface| component.get_export_index(Some(&interface), "handle-message"));
        found.map(Self).ok_or_else(|| wasmtime::format_err!("{BROKER_HANDLER} has no function `handle-message`"))
    }

    /// Loads the function of an instance.
    pub(in crate::wasm) fn load(
        &self,
        store: impl AsContextMut,
        instance: &wasmtime::component::Instance,
    ) -> wasmtime::Result<BrokerHandler> {
        instance.get_typed_func(store, self.0).map(BrokerHandler)
    }
}

impl BrokerHandler {
    /// Passes a message to the guest, and returns the reply that it published.
    pub(in crate::wasm) async fn handle(
        &self,
        store: &mut Store<Ctx>,
        message: &Message,
    ) -> wasmtime::Result<Result<Option<Reply>, Failure>> {
        let pending = PendingReply::to(&message.id);
        let header = |wanted: &str| message.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
        // None for what asks nothing: an answer to an answer would be answered in turn.
        let broker_message = BrokerMessage {
            subject: header(SUBJECT).unwrap_or(&message.receiver).clone(),
            body: message.content.clone(),
            reply_to: header(REPLY_TO)
                .cloned()
                .or_else(|| awaits_answer(message.performative).then(|| pending.subject().to_owned())),
        };
        store.data_mut().pending_reply = Some(pending);
        let (handled,) = self.0.call_async(&mut *store, (broker_message,)).await?;
        let reply = store.data_mut().pending_reply.take().and_then(PendingReply::into_reply);
        // A failure of the handler, as of a broker that delivers again.
        Ok(match handled {
            Ok(()) => Ok(reply),
            Err(reason) => Err(Failure { cause: Cause::Fault, reason, retry_after_ms: None }),
        })
    }
}

/// Defines the functions of `consumer`.
pub(super) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    // Without functions: a component imports it for the types.
    linker.instance("wasmcloud:messaging/types@0.2.0")?;
    let mut consumer = linker.instance("wasmcloud:messaging/consumer@0.2.0")?;
    consumer.func_wrap(
        "publish",
        |mut store: StoreContextMut<'_, Ctx>, (message,): (BrokerMessage,)| -> Returned<(), String> {
            Ok((store.data_mut().publish(message)?,))
        },
    )?;
    consumer.func_wrap_async(
        "request",
        |mut store: StoreContextMut<'_, Ctx>, (subject, body, timeout_ms): (String, Vec<u8>, u32)| {
            Box::new(async move {
                let draft = draft(wit::Performative::Request, BrokerMessage { subject, body, reply_to: None });
                let answer = store.data_mut().request(draft, u64::from(timeout_ms)).await?;
                Ok((answer.map(broker_message).map_err(|error| describe_request(&error)),))
            })
        },
    )
}

impl Ctx {
    /// Sends a message, or takes it as the reply to the one being handled.
    fn publish(&mut self, message: BrokerMessage) -> wasmtime::Result<Result<(), String>> {
        if PendingReply::is_reply(&message.subject) {
            let pending = self.pending_reply.as_mut().filter(|pending| pending.subject() == message.subject);
            let Some(pending) = pending else {
                return Ok(Err("nobody waits for a reply at this subject: it is of another message".to_owned()));
            };
            return Ok(pending.answer(Reply {
                performative: Performative::Inform,
                content: message.body,
                content_type: CONTENT_TYPE.to_owned(),
                ontology: None,
                reply_with: None,
                reply_by: None,
                headers: Vec::new(),
            }));
        }
        let sent = self.send(draft(wit::Performative::Inform, message))?;
        Ok(sent.map(|_| ()).map_err(|error| describe_send(&error)))
    }
}

/// Makes a draft of a message. Its receiver is named by the subject up to the first dot.
fn draft(performative: wit::Performative, message: BrokerMessage) -> wit::Draft {
    let BrokerMessage { subject, body, reply_to } = message;
    let receiver = subject.split('.').next().unwrap_or_default();
    // An empty one would be this agent itself.
    let receiver = if receiver.is_empty() { "." } else { receiver };
    let mut headers = vec![(SUBJECT.to_owned(), subject.clone())];
    headers.extend(reply_to.map(|reply_to| (REPLY_TO.to_owned(), reply_to)));
    wit::Draft {
        receiver: receiver.to_owned(),
        performative,
        content: body,
        content_type: CONTENT_TYPE.to_owned(),
        ontology: None,
        protocol: None,
        conversation_id: None,
        reply_with: None,
        in_reply_to: None,
        reply_by: None,
        priority: wit::Priority::Normal,
        delivery: wit::Delivery::Now,
        headers,
    }
}

/// Makes a message of a broker of an answer.
fn broker_message(answer: wit::Message) -> BrokerMessage {
    BrokerMessage { subject: answer.sender, body: answer.content, reply_to: None }
}

fn describe_send(error: &wit::SendError) -> String {
    use wit::SendError as E;
    match error {
        E::UnknownReceiver(name) => format!("no agent runs that `{name}` names: a subject begins with an agent's name"),
        E::NotAllowed(name) => format!("`allow.send` does not name `{name}`"),
        E::TooLarge(most) => format!("it is larger than {most} bytes (limits.message, limits.effects)"),
        E::MailboxFull(most) => format!("the mailbox of the receiver is full with {most} messages (mailbox.depth)"),
        E::TooManySends(most) => format!("this call has sent {most} messages, as many as it may (limits.sends)"),
        E::TooManyHops(most) => format!("the chain of messages has {most}, as many as it may (limits.hops)"),
        E::Invalid(why) | E::Unsupported(why) | E::Unavailable(why) => why.clone(),
    }
}

fn describe_request(error: &wit::RequestError) -> String {
    use wit::RequestError as E;
    match error {
        E::NotSent(error) => describe_send(error),
        E::TimedOut => "the time ran out; the receiver may have handled it all the same".to_owned(),
        E::Failed(why) => format!("the receiver failed: {why}"),
        E::NoReply => "the receiver handled it and gave no reply".to_owned(),
        E::Deadlock(agents) => format!("these agents would wait for each other: {}", agents.join(", ")),
    }
}
