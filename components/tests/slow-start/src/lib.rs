//! A component whose instantiation never ends.

use caxton_sdk::prelude::*;

/// Runs while the component is instantiated: the adapter that makes a component of a module calls a function of this name.
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
