//! The traits of message agents, and the macros that export them from a component.

use std::marker::PhantomData;

use crate::bindings::exports::caxton::agent::handler;
use crate::bindings::memory::exports::caxton::agent::snapshot;
use crate::bindings::probe::exports::caxton::agent::health;
use crate::{Failure, Message, Reply};

/// The result of handling a message: a reply, no reply, or a failure that undoes everything.
pub type Handled = Result<Option<Reply>, Failure>;

/// An agent that keeps nothing in its memory between messages.
///
/// The host may run any number of instances of it. Data that has to last belongs into [`state`](crate::state).
pub trait Agent {
    /// Handles one message.
    ///
    /// # Errors
    /// A [`Failure`] discards everything that was written and sent; its cause decides if there is another attempt.
    fn handle(message: Message) -> Handled;

    /// Checks if the agent can work. The host calls it before a new revision takes messages.
    ///
    /// # Errors
    /// The reason why it cannot, for people to read.
    fn check() -> Result<(), String> {
        Ok(())
    }
}

/// An agent that keeps state in its memory. It starts as `Default` and has one live instance.
///
/// The host saves it after each message, as a part of the message's commit (`snapshot.save`), and restores it before the
/// next instance takes its first message. After a failure, a panic or a refused commit it is restored as it was
/// committed last. [`snapshot`](crate::snapshot) has both functions for types that serde can write.
pub trait StatefulAgent: Default + 'static {
    /// Handles one message.
    ///
    /// # Errors
    /// A [`Failure`] discards everything that was written and sent, and the changes of `self`: the next message finds
    /// the agent as it was committed last. With a `snapshot.save` other than `commit`, or a memory above
    /// `snapshot.commit-max`, the host cannot undo changes of `self`: make them after everything that may fail.
    fn handle(&mut self, message: Message) -> Handled;

    /// Returns the agent's state as bytes, in a format of its own. Called after each message, so it should take no longer
    /// than handling one; equal states should give equal bytes, which cost no commit. It can neither send nor write
    /// [`state`](crate::state).
    ///
    /// # Errors
    /// The reason why it cannot be saved, for people to read. The message that was handled fails with it.
    fn save(&self) -> Result<Vec<u8>, String>;

    /// Creates the agent from saved bytes, possibly of an earlier revision.
    ///
    /// # Errors
    /// The reason why it cannot be restored. The host then refuses the instance.
    fn restore(saved: &[u8]) -> Result<Self, String>;

    /// Checks if the agent can work. The host calls it before a new revision takes messages.
    ///
    /// # Errors
    /// The reason why it cannot, for people to read.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Exports a type that implements [`Agent`] from the component. Use it once in a crate, at the top level.
#[macro_export]
macro_rules! agent {
    ($agent:ty) => {
        // An anonymous constant, so that the expansion adds no name to the crate.
        const _: () = {
            type Exported = $crate::Stateless<$agent>;
            $crate::is_agent::<Exported>();
            // The names of the exports are invalid for the linkers of other targets.
            #[cfg(target_family = "wasm")]
            $crate::bindings::export_agent! { Exported with_types_in $crate::bindings }
            #[cfg(target_family = "wasm")]
            $crate::bindings::probe::export_probe! { Exported with_types_in $crate::bindings::probe }
        };
    };
}

/// Exports a type that implements [`StatefulAgent`] from the component. Use it once in a crate, at the top level.
#[macro_export]
macro_rules! stateful_agent {
    ($agent:ty) => {
        const _: () = {
            // A component has one thread, so this is a global value that needs no lock.
            ::std::thread_local! {
                static MEMORY: ::std::cell::RefCell<::std::option::Option<$agent>> =
                    const { ::std::cell::RefCell::new(::std::option::Option::None) };
            }

            // Implemented in the expansion, since a static cannot be generic over the agent.
            impl $crate::Memory for $agent {
                fn with<R>(work: impl FnOnce(&mut ::std::option::Option<Self>) -> R) -> R {
                    // Never borrowed twice: the host does not enter an instance while a call of it runs.
                    MEMORY.with_borrow_mut(work)
                }
            }

            type Exported = $crate::Stateful<$agent>;
            $crate::is_agent::<Exported>();
            #[cfg(target_family = "wasm")]
            $crate::bindings::export_agent! { Exported with_types_in $crate::bindings }
            #[cfg(target_family = "wasm")]
            $crate::bindings::probe::export_probe! { Exported with_types_in $crate::bindings::probe }
            #[cfg(target_family = "wasm")]
            $crate::bindings::memory::export_memory! { Exported with_types_in $crate::bindings::memory }
        };
    };
}

/// Checks the traits at compile time, also on targets without exports.
pub const fn is_agent<Exported: handler::Guest + health::Guest>() {}

/// The exports of an [`Agent`].
pub struct Stateless<A>(PhantomData<A>);

impl<A: Agent> handler::Guest for Stateless<A> {
    fn handle(message: Message) -> Handled {
        A::handle(message)
    }
}

impl<A: Agent> health::Guest for Stateless<A> {
    fn check() -> Result<(), String> {
        A::check()
    }
}

/// Access to the single value of a [`StatefulAgent`], which is created when it is first needed.
pub trait Memory: StatefulAgent {
    /// Calls `work` with the value, `None` before it is first needed.
    fn with<R>(work: impl FnOnce(&mut Option<Self>) -> R) -> R;
}

/// The exports of a [`StatefulAgent`].
pub struct Stateful<A>(PhantomData<A>);

impl<A: Memory> handler::Guest for Stateful<A> {
    fn handle(message: Message) -> Handled {
        // Created here and not at the start: a restore that follows would discard the default.
        A::with(|memory| memory.get_or_insert_default().handle(message))
    }
}

impl<A: Memory> health::Guest for Stateful<A> {
    fn check() -> Result<(), String> {
        A::with(|memory| memory.get_or_insert_default().check())
    }
}

impl<A: Memory> snapshot::Guest for Stateful<A> {
    fn save() -> Result<Vec<u8>, String> {
        A::with(|memory| memory.get_or_insert_default().save())
    }

    fn restore(saved: Vec<u8>) -> Result<(), String> {
        // Restored before it is stored: after an error the present value is still whole.
        let restored = A::restore(&saved)?;
        A::with(|memory| *memory = Some(restored));
        Ok(())
    }
}
