//! Passes messages on, at the least cost: for measuring messages from agent to agent.
//!
//! The first byte of the content says what to do; numbers are 32 bits, little end first; what follows them is
//! passed on as it is, to make a message as large as one likes.
//!
//! | content | effect |
//! |---|---|
//! | `s` CHAINS HOPS | begins so many chains, each of HOPS + 1 messages and in a conversation of its own |
//! | `h` HOPS | while HOPS is not 0: sends `h` HOPS - 1 to the peer |
//! | `d` CHAINS HOPS | the same with `k` instead of `h` |
//! | `m` CHAINS HOPS CONVERSATIONS | as `s`, with the chains spread over so many conversations |
//! | `l` CHAINS HOPS MS | as `s`, with the first message of each chain due in so many milliseconds |
//! | `k` HOPS | as `h`, and writes what is left of HOPS under a key of the conversation |
//! | `w` COUNT | sends so many messages to the peer that are not due for a day |
//! | `r` HOPS | while HOPS is not 0: asks the peer `r` HOPS - 1, and gives its answer; at 0 the answer is empty |
//!
//! The peer is `config.peer`, and this agent itself when that is not there.

use std::sync::OnceLock;

use caxton_sdk::bindings::caxton::agent::messaging;
use caxton_sdk::prelude::*;
use caxton_sdk::{Delivery, Priority};

/// The time limit of a whole chain of `r`.
const PATIENCE_MS: u64 = 10_000;

const A_DAY_MS: u64 = 24 * 60 * 60 * 1_000;

struct Relay;

impl Agent for Relay {
    fn handle(message: Message) -> Handled {
        let content = message.content;
        match content.first() {
            Some(b'h') => {
                if let Some(content) = count_down(content)? {
                    messaging::send(&draft(peer(&message.receiver)?, content, None))?;
                }
                Ok(None)
            }
            Some(b'r') => {
                let answer = match count_down(content)? {
                    Some(content) => {
                        messaging::request(&draft(peer(&message.receiver)?, content, None), PATIENCE_MS)?.content
                    }
                    None => Vec::new(),
                };
                Ok(Some(Reply::bytes(answer, "application/octet-stream")))
            }
            Some(b'k') => {
                state::set(&message.conversation_id, &content[1..content.len().min(5)])?;
                if let Some(content) = count_down(content)? {
                    messaging::send(&draft(peer(&message.receiver)?, content, None))?;
                }
                Ok(None)
            }
            Some(first @ (b's' | b'd' | b'm' | b'l')) => {
                let each = if *first == b'd' { b'k' } else { b'h' };
                let chains = number(&content, 1)?;
                let conversations = if *first == b'm' { number(&content, 9)?.max(1) } else { chains };
                let due = if *first == b'l' { Some(u64::from(number(&content, 9)?)) } else { None };
                let mut hop = content;
                hop.drain(1..5);
                hop[0] = each;
                for chain in 0..chains {
                    let conversation = format!("{}-{}", message.id, chain % conversations);
                    let now = draft(peer(&message.receiver)?, hop.clone(), Some(conversation));
                    let delivery = due.map_or(Delivery::Now, Delivery::AfterMs);
                    messaging::send(&Draft { delivery, ..now })?;
                }
                Ok(None)
            }
            Some(b'w') => {
                for number in 0..number(&content, 1)? {
                    let conversation = format!("{}-{number}", message.id);
                    let later = draft(peer(&message.receiver)?, content.clone(), Some(conversation));
                    messaging::send(&Draft { delivery: Delivery::AfterMs(A_DAY_MS), ..later })?;
                }
                Ok(None)
            }
            _ => Err(Failure::rejected("the content must begin with s, h, d, k, l, m, w or r")),
        }
    }
}

/// The content with one hop less; none when no hop is left.
fn count_down(mut content: Vec<u8>) -> Result<Option<Vec<u8>>, Failure> {
    let hops = number(&content, 1)?;
    let Some(hops) = hops.checked_sub(1) else { return Ok(None) };
    content[1..5].copy_from_slice(&hops.to_le_bytes());
    Ok(Some(content))
}

fn number(content: &[u8], at: usize) -> Result<u32, Failure> {
    let bytes = content.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u32::from_le_bytes).ok_or_else(|| Failure::rejected("a number of 4 bytes is missing"))
}

/// Returns the next agent of the chain. Asks the host once, as the configuration does not change while an instance lives.
fn peer(own_name: &str) -> Result<&'static str, Failure> {
    static PEER: OnceLock<String> = OnceLock::new();
    if let Some(peer) = PEER.get() {
        return Ok(peer);
    }
    let peer = config::get("peer")?.unwrap_or_else(|| own_name.to_owned());
    Ok(PEER.get_or_init(|| peer))
}

fn draft(receiver: &str, content: Vec<u8>, conversation_id: Option<String>) -> Draft {
    Draft {
        receiver: receiver.to_owned(),
        performative: Performative::Inform,
        content,
        content_type: String::from("application/octet-stream"),
        ontology: None,
        protocol: None,
        conversation_id,
        reply_with: None,
        in_reply_to: None,
        reply_by: None,
        priority: Priority::Normal,
        delivery: Delivery::Now,
        headers: Vec::new(),
    }
}

caxton_sdk::agent!(Relay);
