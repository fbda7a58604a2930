//! A component whose instantiation never ends.

use caxton_sdk::prelude::*;

/// What makes a component of a module calls a function of this name while it is instantiated.
// SAFETY: no other function of this name is linked.
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    loop {
        std::hint::black_box(());
    }
}

struct SlowStart;

impl Agent for SlowStart {
    fn handle(_: Message) -> Handled {
        Ok(None)
    }
}

caxton_sdk::agent!(SlowStart);
