//! Asks other agents: calls for prices, takes the lowest, and tells the ledger.

use std::time::Duration;

use caxton_sdk::prelude::*;

const PATIENCE: Duration = Duration::from_secs(2);

struct Buyer;

impl Agent for Buyer {
    fn handle(message: Message) -> Handled {
        let thing: String = message.json()?;
        let shops = messaging::find("shop");
        let calls: Result<Vec<Draft>, Failure> =
            shops.iter().map(|shop| Draft::to(shop).performative(Performative::Cfp).json(&thing)).collect();

        let mut offers: Vec<(u64, Message)> = Vec::new();
        for answer in messaging::request_all(&calls?, PATIENCE).into_iter().flatten() {
            if answer.performative == Performative::Propose {
                offers.push((answer.json()?, answer));
            }
        }
        let Some((price, offer)) = offers.into_iter().min_by_key(|(price, _)| *price) else {
            return Ok(Some(Reply::refuse(format!("nobody sells {thing}"))));
        };

        // A call: it happens now, and is not undone if this handler fails.
        let accept = Draft::answer_to(&offer).performative(Performative::AcceptProposal);
        let receipt = accept.json(&thing)?.request(PATIENCE)?;
        // An effect: it happens when this handler returns `Ok`.
        Draft::to("ledger").json(&(&thing, price))?.send()?;
        Ok(Some(Reply::bytes(receipt.content, receipt.content_type)))
    }
}

caxton_sdk::agent!(Buyer);
