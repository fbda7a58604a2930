//! Takes tickets, finds out whose they are, and answers them: the initiator of FIPA's contract net
//! (document FIPA00029).
//!
//! A `request` or `inform` with a ticket (plain text, or JSON with `subject` and `body`) is read, every agent
//! with the capability `desk` is called for a proposal, the best proposal is accepted and the others are
//! rejected; the ledger is told. The answer says who took the ticket, why, and what the desk answers.
//!
//! | config | meaning |
//! |---|---|
//! | `capability` | by which desks are found (default `desk`) |
//! | `ledger` | the agent that counts (default `ledger`; empty for none) |
//! | `patience` | how long the desks have for an answer, in milliseconds (default 2000) |

mod auction;

use std::time::Duration;

use auction::{Auction, Bid, Outcome};
use caxton_sdk::prelude::*;
use helpdesk::{Answer, CONTRACT_NET, Call, DESK, Decision, Reading, Ticket, Urgency};
use serde::Serialize;

struct Triage;

/// The response to a posted ticket.
#[derive(Serialize)]
struct Verdict<'a> {
    ticket: &'a str,
    subject: &'a str,
    taken_by: &'a str,
    category: &'a str,
    why: String,
    answer: &'a str,
    minutes: u32,
    urgency: Urgency,
    keywords: Vec<&'a str>,
    proposals: &'a [Bid],
}

/// The response to a posted ticket that no desk takes.
#[derive(Serialize)]
struct NoTaker<'a> {
    ticket: &'a str,
    subject: &'a str,
    why: &'a str,
    keywords: Vec<&'a str>,
    proposals: &'a [Bid],
}

impl Agent for Triage {
    fn handle(message: Message) -> Handled {
        match message.performative {
            Performative::Request | Performative::Inform => decide(message),
            _ => Ok(Some(Reply::not_understood("triage takes a ticket as request or inform"))),
        }
    }
}

fn decide(message: Message) -> Handled {
    let ticket = read_ticket(&message)?;
    let reading = helpdesk::read(&ticket);
    let call = Call { id: message.id, ticket: ticket.shortened(), reading };
    let capability = config::get("capability")?.unwrap_or_else(|| DESK.to_owned());
    let desks = messaging::find(&capability);
    if desks.is_empty() {
        return Err(Failure::unavailable(format!("no agent with the capability {capability} runs")));
    }
    let patience = Duration::from_millis(config::parse("patience")?.unwrap_or(2_000));

    let draft = contract_net(&call)?;
    let cfp = draft.clone().performative(Performative::Cfp);
    let outcome = Auction::hold(&desks, &cfp, patience).award(|desk, proposal| {
        let accept = draft.clone().performative(Performative::AcceptProposal).in_reply_to(proposal);
        ask(accept, desk, patience)
    });
    for (desk, proposal) in outcome.rejected() {
        let reject = draft.clone().performative(Performative::RejectProposal).in_reply_to(proposal);
        to(desk, reject.text("another desk takes it")).send()?;
    }
    match &outcome {
        Outcome::Taken { winner, answer, .. } => {
            tell_ledger(&call.id, &winner.desk, &answer.category)?;
            log::info!("{} goes to {}", call.ticket.subject, winner.desk);
            let verdict = Verdict {
                ticket: &call.id,
                subject: &call.ticket.subject,
                taken_by: &winner.desk,
                category: &answer.category,
                why: outcome.why(),
                answer: &answer.text,
                minutes: winner.proposal.as_ref().map_or(0, |proposal| proposal.minutes),
                urgency: call.reading.urgency,
                keywords: leading_words(&call.reading),
                proposals: outcome.bids(),
            };
            Ok(Some(Reply::json(&verdict)?))
        }
        Outcome::NotTaken { .. } => {
            log::warn!("nobody takes {}", call.ticket.subject);
            let no_taker = NoTaker {
                ticket: &call.id,
                subject: &call.ticket.subject,
                why: "no desk proposed to take it",
                keywords: leading_words(&call.reading),
                proposals: outcome.bids(),
            };
            Ok(Some(Reply::json(&no_taker)?.performative(Performative::Refuse)))
        }
    }
}

fn read_ticket(message: &Message) -> Result<Ticket, Failure> {
    let is_json =
        message.content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(caxton_sdk::JSON));
    if is_json && !message.content.is_empty() {
        message.json::<Ticket>()?.checked().or_reject()
    } else {
        Ticket::from_text(message.text()?).or_reject()
    }
}

/// A message to a desk that has no name yet.
fn contract_net(call: &Call) -> Result<Draft, Failure> {
    Draft::to("").protocol(CONTRACT_NET).ontology("helpdesk").json(call)
}

fn to(desk: &str, draft: Draft) -> Draft {
    Draft { receiver: desk.to_owned(), ..draft }
}

/// Accepts a desk's proposal and gets its answer.
fn ask(accept: Draft, desk: &str, patience: Duration) -> Result<Answer, Failure> {
    let message = to(desk, accept).request(patience)?;
    match message.performative {
        Performative::Inform => message.json(),
        _ => Err(Failure::unavailable(message.text().unwrap_or("it gave no answer").to_owned())),
    }
}

fn tell_ledger(id: &str, desk: &str, category: &str) -> Result<(), Failure> {
    let ledger = config::get("ledger")?.unwrap_or_else(|| String::from("ledger"));
    if ledger.is_empty() {
        return Ok(());
    }
    let decision = Decision { id: id.to_owned(), desk: desk.to_owned(), category: category.to_owned() };
    Draft::to(ledger).json(&decision)?.send()?;
    Ok(())
}

fn leading_words(reading: &Reading) -> Vec<&str> {
    reading.keywords.iter().take(8).map(|keyword| keyword.word.as_str()).collect()
}

caxton_sdk::agent!(Triage);
