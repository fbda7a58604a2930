//! Orders as sagas: see [`saga`].

mod saga;

use caxton_sdk::prelude::*;

struct Saga;

impl Agent for Saga {
    fn handle(message: Message) -> Handled {
        saga::handle(&message)
    }
}

caxton_sdk::agent!(Saga);
