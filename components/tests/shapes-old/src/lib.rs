//! Keeps notes as text: version 1 of the state that `shapes-new` converts.

mod note;

use caxton_sdk::prelude::*;
use note::Text;

struct Shapes;

impl Agent for Shapes {
    fn handle(message: Message) -> Handled {
        note::handle::<Text>(&message)
    }
}

caxton_sdk::agent!(Shapes);
