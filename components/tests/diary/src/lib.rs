//! Writes down each message that it handles, and does what it is told to be like: see `page`.

mod page;

use caxton_sdk::prelude::*;

struct Diary;

impl Agent for Diary {
    fn handle(message: Message) -> Handled {
        page::write(&message, None)
    }

    fn check() -> Result<(), String> {
        page::check()
    }
}

caxton_sdk::agent!(Diary);
