//! A crawler over a pool of agents: `config.role` says which part one has.
//!
//! | role | message | what follows |
//! |---|---|---|
//! | `seed` | the pages, a JSON list of texts | each goes to one agent of the pool (`cap:crawler`) |
//! | `crawl` | a page | the links in it go to `index` |
//! | `index` | links | are counted |
//!
//! A page with a link that is never closed is a bug's affair: the agent that reads it traps. The page is tried again, in the
//! end it is a dead letter, and the other pages do not wait for it.

use caxton_sdk::prelude::*;

struct Crawler;

impl Agent for Crawler {
    fn handle(message: Message) -> Handled {
        match config::get("role").or_fault()?.as_deref() {
            Some("seed") => seed(&message),
            Some("crawl") => crawl(&message),
            Some("index") => index(&message),
            _ => Err(Failure::fault("config.role is none of `seed`, `crawl` and `index`")),
        }
    }
}

fn seed(message: &Message) -> Handled {
    let pages: Vec<String> = message.json()?;
    for page in &pages {
        // In conversations of their own, so that they are spread over the pool.
        Draft::to("cap:crawler").text(page).new_conversation().send()?;
    }
    Ok(Some(Reply::json(&pages.len())?))
}

fn crawl(message: &Message) -> Handled {
    let links = links(message.text()?);
    Draft::to("index").json(&links)?.send()?;
    Ok(None)
}

/// Returns the links in a page, which stand between `<` and `>`.
fn links(page: &str) -> Vec<&str> {
    page.split('<').skip(1).map(|rest| &rest[..rest.find('>').expect("every link is closed")]).collect()
}

fn index(message: &Message) -> Handled {
    let links: Vec<String> = message.json()?;
    state::increment("pages", 1)?;
    state::increment("links", i64::try_from(links.len()).or_fault()?)?;
    Ok(None)
}

caxton_sdk::agent!(Crawler);
