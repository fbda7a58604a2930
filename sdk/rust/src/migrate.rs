//! The conversion of an agent's state by a version that keeps it in another format.

use std::marker::PhantomData;

use crate::Failure;
use crate::bindings::migration::exports::caxton::agent::migration;

/// An agent of any kind that converts the [`state`](crate::state) that another version of it wrote.
///
/// The host calls it once before the first message or request of a revision whose `state.version` in `caxton.toml` is
/// another than that of the revision that ran, while nothing is being handled. The component exports it with
/// [`migration!`](crate::migration).
///
/// ```
/// use caxton_sdk::prelude::*;
/// use serde_json::json;
///
/// struct Notes;
///
/// impl Agent for Notes {
///     fn handle(_: Message) -> Handled {
///         Ok(None)
///     }
/// }
///
/// impl Migrate for Notes {
///     fn migrate(from: u32) -> Result<(), Failure> {
///         if from != 1 {
///             return Err(Failure::fault(format!("version {from} is not known")));
///         }
///         // Version 1 kept a note as text, version 2 keeps it as JSON.
///         for (done, key) in state::keys("note/").enumerate() {
///             let key = key?;
///             let Some(value) = state::get(&key)? else { continue };
///             // A note that an earlier call has converted, which did not come to its end.
///             if value.starts_with(b"{") {
///                 continue;
///             }
///             state::set_json(&key, &json!({ "text": String::from_utf8_lossy(&value) }))?;
///             // A step: `limits.writes`, `limits.cpu` and `limits.time` count anew.
///             if done % 500 == 499 {
///                 effects::commit()?;
///             }
///         }
///         Ok(())
///     }
/// }
///
/// caxton_sdk::agent!(Notes);
/// caxton_sdk::migration!(Notes);
/// # fn main() {}
/// ```
pub trait Migrate {
    /// Converts the state from the form that version `from` wrote. All that it wrote commits when it returns `Ok`.
    ///
    /// A large state is converted in steps with [`effects::commit`](crate::effects::commit). After a failure, or when the
    /// host ends in between, this may be called again with the same version and finds what was committed. Sends, timers
    /// and requests are refused. The memory of a [`StatefulAgent`](crate::StatefulAgent) is not there: its
    /// [`restore`](crate::StatefulAgent::restore) converts it.
    ///
    /// # Errors
    /// A [`Failure`] discards what was written since it began or last committed, and keeps the revision from taking
    /// messages.
    fn migrate(from: u32) -> Result<(), Failure>;
}

/// Lets a component export the [`Migrate`] of its agent, beside [`agent!`](macro@crate::agent),
/// [`stateful_agent!`](crate::stateful_agent) or [`http_agent!`](crate::http_agent). Once in a crate, at its top level.
#[macro_export]
macro_rules! migration {
    ($agent:ty) => {
        // A macro of its own, since an export without a conversion would claim one.
        const _: () = {
            type Exported = $crate::Migrating<$agent>;
            $crate::is_migration::<Exported>();
            #[cfg(target_family = "wasm")]
            $crate::bindings::migration::export_migration! { Exported with_types_in $crate::bindings::migration }
        };
    };
}

/// Holds the compiler to the trait where there are no exports to do it.
pub const fn is_migration<Exported: migration::Guest>() {}

/// The export of a [`Migrate`].
pub struct Migrating<A>(PhantomData<A>);

impl<A: Migrate> migration::Guest for Migrating<A> {
    fn migrate(from_version: u32) -> Result<(), Failure> {
        A::migrate(from_version)
    }
}
