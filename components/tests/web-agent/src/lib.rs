//! An HTTP agent made with the SDK: keeps state, sends messages, reads its configuration and logs. The last part of the path
//! says what it does; what counts adds one to the key `count` and sends an `inform` to `config.peer`.
//!
//! | path | effect |
//! |---|---|
//! | `/told` | answers with the request as JSON |
//! | `/status?code=N` | counts; an answer with the status N and the header `x-count` |
//! | `/fail?cause=NAME` | counts, then returns a failure |
//! | `/trap` | counts, then traps |
//! | `/commit?then=PART` | counts and commits, counts again, then goes on as PART says: `status-N`, `fail` or `trap` |
//! | `/discard` | counts, drops that, counts once more; status 200 |
//! | `/commit-often?times=N` | counts and commits so often; the number of commits that were made |
//! | `/ask` | what `config.peer` answers to the body |
//! | `/count-asking` | counts, asks `config.peer`, and answers with the count |
//! | `/log` | writes the body to the log |
//! | `/seen` | the time before and after a wait of 5 ms (`from`, `to`, in nanoseconds), and a random number (`random`) |
//! | `/header` | an answer with a header that HTTP does not have |
//!
//! `config.health` is an error that the health check answers with. It migrates by adding the version to `count`, twice in two
//! steps.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use caxton_sdk::prelude::*;
use serde_json::json;

/// Returns the time in nanoseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
}

struct WebAgent;

impl HttpAgent for WebAgent {
    fn handle(request: Request) -> Result<Response, Failure> {
        let name = request.path.rsplit('/').next().unwrap_or_default();
        let asked = |name: &str| request.query_value(name).unwrap_or_default();
        match name {
            "told" => Response::json(&json!({
                "method": request.method,
                "path": request.path,
                "query": request.query_pairs().collect::<Vec<_>>(),
                "headers": request.headers,
                "body": request.text()?,
            })),
            "status" => {
                let count = count()?;
                let code = asked("code").parse().or_reject()?;
                Ok(Response::text(format!("{count}\n")).status(code).header("x-count", count.to_string()))
            }
            "seen" => {
                let from = now();
                std::thread::sleep(Duration::from_millis(5));
                let random = RandomState::new().build_hasher().finish();
                Response::json(&json!({ "from": from, "to": now(), "random": random }))
            }
            "fail" => {
                count()?;
                Err(match asked("cause").as_str() {
                    "rejected" => Failure::rejected("told to reject"),
                    "unavailable" => Failure::unavailable("told to wait").retry_after(Duration::from_secs(7)),
                    _ => Failure::fault("told to fail"),
                })
            }
            "trap" => {
                count()?;
                panic!("told to trap")
            }
            "commit" => {
                count()?;
                effects::commit()?;
                count()?;
                match asked("then").as_str() {
                    "fail" => Err(Failure::fault("told to fail")),
                    "trap" => panic!("told to trap"),
                    then => Ok(Response::empty(then.trim_start_matches("status-").parse().or_reject()?)),
                }
            }
            "discard" => {
                count()?;
                effects::discard()?;
                Ok(Response::text(count()?.to_string()))
            }
            "commit-often" => {
                let mut made = 0;
                for _ in 0..asked("times").parse::<u32>().or_reject()? {
                    if count().is_err() {
                        break;
                    }
                    effects::commit()?;
                    made += 1;
                }
                Ok(Response::text(made.to_string()))
            }
            "ask" => {
                let answer = Draft::to(peer()?).text(request.text()?).request(Duration::from_secs(5))?;
                Ok(Response::text(answer.text()?))
            }
            "count-asking" => {
                let count = count()?;
                Draft::to(peer()?).text("asked").request(Duration::from_secs(60))?;
                Ok(Response::text(count.to_string()))
            }
            "log" => {
                log::info!("{}", request.text()?);
                Ok(Response::empty(204))
            }
            "header" => Ok(Response::text("sent").header("a b", "1").header("x-fine", "2")),
            _ => Ok(Response::text("there is nothing here").status(404)),
        }
    }

    fn check() -> Result<(), String> {
        match config::get("health") {
            Ok(Some(why)) => Err(why),
            Ok(None) => Ok(()),
            Err(failure) => Err(failure.reason),
        }
    }
}

impl Migrate for WebAgent {
    fn migrate(from: u32) -> Result<(), Failure> {
        state::increment("count", from.into())?;
        effects::commit()?;
        state::increment("count", from.into())?;
        Ok(())
    }
}

fn peer() -> Result<String, Failure> {
    config::get("peer")?.ok_or_else(|| Failure::fault("config.peer is missing"))
}

fn count() -> Result<i64, Failure> {
    let count = state::increment("count", 1)?;
    Draft::to(peer()?).performative(Performative::Inform).text(count.to_string()).send()?;
    Ok(count)
}

caxton_sdk::http_agent!(WebAgent);
caxton_sdk::migration!(WebAgent);
