//! Sales, a report of each night, and a reminder to ask each customer how it went.
//!
//! | message | what follows |
//! |---|---|
//! | `POST /sales` with a JSON list of amounts | each is added to the day, and has a timer of its own |
//! | a schedule | the day becomes the report `report/TIME`, and the next day begins at 0 |
//! | `GET /sales` | `{"today", "asked", "reports"}` |
//! | a timer | counts as a customer who was asked |

use std::collections::BTreeMap;
use std::time::Duration;

use caxton_sdk::prelude::*;
use serde::Serialize;

#[derive(Serialize)]
struct Sales {
    today: i64,
    asked: i64,
    reports: BTreeMap<String, i64>,
}

struct Report;

impl Agent for Report {
    fn handle(message: Message) -> Handled {
        if let Some(time) = message.header("schedule-at") {
            let today = number("today")?;
            state::set_json(&format!("report/{time}"), &today)?;
            state::set_json("today", &0)?;
            return Ok(None);
        }
        if message.timer().is_some() {
            state::increment("asked", 1)?;
            return Ok(None);
        }
        if message.http().is_some_and(|call| call.method == "GET") {
            let mut reports = BTreeMap::new();
            for key in state::keys("report/") {
                let key = key?;
                reports.insert(key["report/".len()..].to_owned(), number(&key)?);
            }
            return Ok(Some(Reply::json(&Sales { today: number("today")?, asked: number("asked")?, reports })?));
        }
        let amounts: Vec<i64> = message.json()?;
        let after = Duration::from_secs(config::parse("ask-after-seconds")?.unwrap_or(3_600));
        for n in 0..amounts.len() {
            Draft::timer(format!("ask/{}/{n}", message.id), after).send()?;
        }
        state::increment("today", amounts.iter().sum())?;
        Ok(None)
    }
}

fn number(key: &str) -> Result<i64, Failure> {
    Ok(state::get_json(key)?.unwrap_or(0))
}

caxton_sdk::agent!(Report);
