//! Counts the tickets that were decided, by desk and by category, in its state.
//!
//! | message | answer |
//! |---|---|
//! | `inform` with a decision | none |
//! | `query-ref`, `request` | `{"tickets": ALL, "desks": {NAME: COUNT}, "categories": {NAME: COUNT}}` |

use std::collections::BTreeMap;

use caxton_sdk::prelude::*;
use helpdesk::{Decision, Totals};

struct Ledger;

impl Agent for Ledger {
    fn handle(message: Message) -> Handled {
        match message.performative {
            Performative::Inform => {
                let decision: Decision = message.json()?;
                state::increment("tickets", 1)?;
                state::increment(&format!("desk/{}", decision.desk), 1)?;
                state::increment(&format!("category/{}", decision.category), 1)?;
                Ok(None)
            }
            Performative::QueryRef | Performative::Request => {
                let totals =
                    Totals { tickets: count("tickets")?, desks: counts("desk/")?, categories: counts("category/")? };
                Ok(Some(Reply::json(&totals)?))
            }
            _ => Ok(Some(Reply::not_understood("the ledger takes inform, query-ref and request"))),
        }
    }
}

fn counts(prefix: &str) -> Result<BTreeMap<String, i64>, Failure> {
    let mut counts = BTreeMap::new();
    for key in state::keys(prefix) {
        let key = key?;
        counts.insert(key[prefix.len()..].to_owned(), count(&key)?);
    }
    Ok(counts)
}

fn count(key: &str) -> Result<i64, Failure> {
    let Some(value) = state::get(key)? else { return Ok(0) };
    String::from_utf8_lossy(&value).parse().or_fault()
}

caxton_sdk::agent!(Ledger);
