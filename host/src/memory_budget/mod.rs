//! The budget of memory: the bytes that the host holds for others, by kind, and their bound (`host.memory`).
//!
//! ```text
//! reserve --> fits? --> Reservation --> drop: the bytes are free, and the first waiter that fits gets them
//!               '-- no --> end idle instances --> wait in turn --> MemoryShortage
//! ```
//! Which share of the budget each priority may fill is decided in `caxton_control::memory`, and who is next in
//! `caxton_control::memory_queue`. What is held is counted, not measured: the bytes that a guest may touch, the capacity of a buffer. The program itself, the caches of
//! the store and what the allocator keeps are not in it.

mod budget;
mod guest;
mod kind;
mod machine;
mod requests;
mod waiters;

pub(crate) use self::budget::{MemoryBudget, Reservation};
pub(crate) use self::guest::{ExpectedMemory, GuestMemory};
pub(crate) use self::kind::{MemoryKind, MemoryShortage};
pub(crate) use self::machine::{describe_bound, machine_budget};

#[cfg(test)]
mod tests;
