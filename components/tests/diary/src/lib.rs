//! Records each message that it handles, and behaves as its kind demands: see `page`.

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
