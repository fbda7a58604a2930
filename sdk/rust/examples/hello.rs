//! Greets the person named in the content: `"Ann"` brings `"Hello, Ann!"`.

use caxton_sdk::prelude::*;

struct Hello;

impl Agent for Hello {
    fn handle(message: Message) -> Handled {
        let name: String = message.json()?;
        Ok(Some(Reply::json(&format!("Hello, {name}!"))?))
    }
}

caxton_sdk::agent!(Hello);
