//! A desk of the help desk: proposes to take tickets in the categories of its `config`, and answers those it gets.
//! One component makes any number of desks.
//!
//! | config | meaning |
//! |---|---|
//! | `about-CATEGORY` | phrases and what each weighs: `refund = 3, charged twice = 4, @amount = 1`; `@` begins a kind of fact |
//! | `answer-CATEGORY` | the answer; `{amount\|the amount}` is replaced by such a fact, or by what follows the bar |
//! | `minimum` | the lowest score with which it proposes, from 0 to 1 (default 0.2) |
//! | `minutes` | the time that one ticket takes (default 15) |
//!
//! | message | answer |
//! |---|---|
//! | `cfp` | `propose`, or `refuse` when the ticket is not its matter |
//! | `accept-proposal` | `inform` with the answer, or `failure` when the ticket is not its matter any more |
//! | `reject-proposal` | none |
//! | `query-ref` | `inform` with how many tickets it took, and how many of its proposals were rejected |

mod answer;
mod category;

use category::{Category, read_categories};
use caxton_sdk::prelude::*;
use helpdesk::{Answer, CONTRACT_NET, Call, Proposal};
use serde::Serialize;

/// The time for which an accepted ticket counts as open work, in milliseconds.
const BUSY: u64 = 60 * 60 * 1_000;

struct Desk;

#[derive(Serialize)]
struct Work {
    taken: i64,
    rejected: i64,
}

impl Agent for Desk {
    fn handle(message: Message) -> Handled {
        match message.performative {
            Performative::Cfp => propose(&message),
            Performative::AcceptProposal => take(&message),
            Performative::RejectProposal => {
                state::increment("rejected", 1)?;
                Ok(None)
            }
            Performative::QueryRef | Performative::QueryIf => {
                let work = Work { taken: state::increment("taken", 0)?, rejected: state::increment("rejected", 0)? };
                Ok(Some(Reply::json(&work)?))
            }
            _ => Ok(Some(Reply::not_understood("a desk takes cfp, accept-proposal, reject-proposal and query-ref"))),
        }
    }

    fn check() -> Result<(), String> {
        let categories = read_categories().map_err(|failure| failure.reason)?;
        if categories.is_empty() {
            return Err(String::from(
                "config names nothing that this desk is about: it needs about-CATEGORY and answer-CATEGORY",
            ));
        }
        Ok(())
    }
}

fn propose(message: &Message) -> Handled {
    let call: Call = message.json()?;
    let categories = read_categories()?;
    let Some((best, found)) = best_match(&categories, &call) else {
        return Ok(Some(Reply::refuse("this desk knows nothing of the matter")));
    };
    let minimum = config::parse("minimum")?.unwrap_or(0.2);
    if found.score < minimum {
        return Ok(Some(Reply::refuse(format!("too little of it is this desk's matter ({:.2})", found.score))));
    }
    let minutes: u32 = config::parse("minutes")?.unwrap_or(15);
    let waiting = u32::try_from(recent(message.sent_at)?.len()).unwrap_or(u32::MAX);
    let proposal = Proposal {
        score: found.score,
        minutes: minutes.saturating_mul(waiting.saturating_add(1)),
        category: best.name.clone(),
        matched: found.matched,
    };
    log::debug!("proposes {:.2} for {}", proposal.score, call.ticket.subject);
    Ok(Some(Reply::json(&proposal)?.performative(Performative::Propose)))
}

fn take(message: &Message) -> Handled {
    if message.protocol.as_deref() != Some(CONTRACT_NET) {
        return Ok(Some(Reply::not_understood(format!("a proposal is accepted in the protocol {CONTRACT_NET}"))));
    }
    let call: Call = message.json()?;
    let categories = read_categories()?;
    let Some((best, _)) = best_match(&categories, &call) else {
        // What is accepted cannot be refused any more.
        let failure = Reply::text("this desk knows nothing of the matter any more");
        return Ok(Some(failure.performative(Performative::Failure)));
    };
    let mut recent = recent(message.sent_at)?;
    recent.push(message.sent_at);
    state::set_json("recent", &recent)?;
    state::increment("taken", 1)?;
    log::info!("takes {} ({})", call.ticket.subject, best.name);
    let text = answer::fill(&best.answer, &call);
    Ok(Some(Reply::json(&Answer { category: best.name.clone(), text })?))
}

/// The times, in milliseconds since 1970, of the tickets that are still being worked on.
fn recent(now: u64) -> Result<Vec<u64>, Failure> {
    let mut times: Vec<u64> = state::get_json("recent")?.unwrap_or_default();
    times.retain(|time| now.saturating_sub(*time) < BUSY);
    Ok(times)
}

fn best_match<'a>(categories: &'a [Category], call: &Call) -> Option<(&'a Category, category::Match)> {
    categories
        .iter()
        .map(|category| (category, category.score(&call.reading)))
        .filter(|(_, found)| found.score > 0.0)
        .max_by(|(_, a), (_, b)| a.score.total_cmp(&b.score))
}

caxton_sdk::agent!(Desk);
