//! A call for proposals, and the choice among them.

use std::time::Duration;

use caxton_sdk::RequestError;
use caxton_sdk::prelude::*;
use helpdesk::{Answer, Proposal};
use serde::Serialize;

/// The answer of a desk to the call.
#[derive(Serialize)]
pub(crate) struct Bid {
    pub(crate) desk: String,
    #[serde(flatten)]
    pub(crate) proposal: Option<Proposal>,
    /// The reason of a desk that refuses.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    /// The message that proposes.
    #[serde(skip)]
    message: Option<Message>,
}

/// An auction with its bids, the best first.
pub(crate) struct Auction {
    bids: Vec<Bid>,
}

/// The outcome of an auction.
pub(crate) enum Outcome {
    Taken { winner: Box<Bid>, answer: Answer, others: Vec<Bid> },
    NotTaken { others: Vec<Bid> },
}

impl Auction {
    /// Sends the call to all desks at once and collects the answers that come in time.
    pub(crate) fn hold(desks: &[String], call: &Draft, patience: Duration) -> Self {
        let drafts: Vec<Draft> = desks.iter().map(|desk| Draft { receiver: desk.clone(), ..call.clone() }).collect();
        let answers = messaging::request_all(&drafts, patience);
        let mut bids: Vec<Bid> = desks.iter().zip(answers).map(|(desk, answer)| Bid::read(desk, answer)).collect();
        bids.sort_by(Bid::compare);
        Self { bids }
    }

    /// Accepts the best proposal; when its desk cannot keep it after all, the next.
    pub(crate) fn award(self, mut accept: impl FnMut(&str, &Message) -> Result<Answer, Failure>) -> Outcome {
        let mut others = Vec::new();
        let mut bids = self.bids.into_iter();
        while let Some(mut bid) = bids.next() {
            let accepted = bid.message.as_ref().map(|proposal| accept(&bid.desk, proposal));
            match accepted {
                Some(Ok(answer)) => {
                    others.extend(bids);
                    return Outcome::Taken { winner: Box::new(bid), answer, others };
                }
                Some(Err(failure)) => {
                    bid.refused = Some(format!("it was accepted and failed: {}", failure.reason));
                    bid.message = None;
                }
                None => {}
            }
            others.push(bid);
        }
        Outcome::NotTaken { others }
    }
}

impl Bid {
    fn read(desk: &str, answer: Result<Message, RequestError>) -> Self {
        let read = answer.map_err(Failure::from).and_then(|message| match message.performative {
            Performative::Propose => Ok((message.json::<Proposal>()?, message)),
            _ => Err(Failure::unavailable(message.text().unwrap_or("it did not say why").to_owned())),
        });
        let desk = desk.to_owned();
        match read {
            Ok((proposal, message)) => Self { desk, proposal: Some(proposal), refused: None, message: Some(message) },
            Err(failure) => Self { desk, proposal: None, refused: Some(failure.reason), message: None },
        }
    }

    /// The better bid is the lower one: a higher score, then less time, then the name.
    fn compare(a: &Self, b: &Self) -> std::cmp::Ordering {
        let score = |bid: &Self| bid.proposal.as_ref().map_or(f64::NEG_INFINITY, |proposal| proposal.score);
        let minutes = |bid: &Self| bid.proposal.as_ref().map_or(u32::MAX, |proposal| proposal.minutes);
        score(b).total_cmp(&score(a)).then(minutes(a).cmp(&minutes(b))).then(a.desk.cmp(&b.desk))
    }
}

impl Outcome {
    /// The desks whose proposals are not taken.
    pub(crate) fn rejected(&self) -> impl Iterator<Item = (&str, &Message)> {
        let others = match self {
            Self::Taken { others, .. } | Self::NotTaken { others } => others,
        };
        others.iter().filter_map(|bid| Some((bid.desk.as_str(), bid.message.as_ref()?)))
    }

    /// Returns the bids of the desks that do not take the ticket.
    pub(crate) fn bids(&self) -> &[Bid] {
        match self {
            Self::Taken { others, .. } | Self::NotTaken { others } => others,
        }
    }

    /// Explains the choice of the winner, for a person to read.
    pub(crate) fn why(&self) -> String {
        let Self::Taken { winner, others, .. } = self else { return String::from("no desk proposed to take it") };
        let Some(proposal) = &winner.proposal else { return String::new() };
        let mut why = format!("it is about {} (score {:.2})", proposal.matched.join(", "), proposal.score);
        if let Some((desk, next)) = others.iter().find_map(|bid| Some((&bid.desk, bid.proposal.as_ref()?))) {
            why += &format!("; next best was {desk} (score {:.2})", next.score);
        }
        why
    }
}
