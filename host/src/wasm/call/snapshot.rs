//! The calls that save and restore the memory of a stateful agent. They have bounds of their own, and no effects.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;

use crate::message::Fault;
use crate::wasm::call::instance::{Instance, arm, bounded};

/// The limit of saving and restoring, on a core and by the clock. The limits of a message do not apply: the memory
/// grows with all messages so far.
const SNAPSHOT_TIME: Duration = Duration::from_secs(30);
/// The least limits of a save in a commit: the defaults of a message. An agent whose messages may use less has to be
/// able to save all the same.
const LEAST_CPU: Duration = Duration::from_secs(1);
const LEAST_TIME: Duration = Duration::from_secs(10);
/// The least fuel of a save in a commit: about a second on a core.
const LEAST_FUEL: u64 = 1_000_000_000;

/// The limits of a call that saves or restores.
#[derive(Debug, Clone, Copy)]
struct SnapshotLimits {
    cpu: Duration,
    time: Duration,
    /// The fuel, where it is counted.
    fuel: u64,
}

impl SnapshotLimits {
    /// The limits of a call apart from messages.
    const APART: Self = Self { cpu: SNAPSHOT_TIME, time: SNAPSHOT_TIME, fuel: u64::MAX };
}

impl Instance {
    /// Returns the guest's snapshot of at most `max` bytes; `None` if it does not export `snapshot`. The instance can
    /// be reused after [`NotSaved`], and must be dropped after a fault.
    pub(crate) async fn save(&mut self, max: u64) -> Result<Option<Result<Bytes, NotSaved>>, Fault> {
        self.save_within(max, SnapshotLimits::APART).await
    }

    /// Returns the guest's snapshot for the commit of a message: as [`save`](Self::save), within what a message may use
    /// by the clock, on a core and of fuel, but not less than by default.
    pub(crate) async fn save_for_commit(&mut self, max: u64) -> Result<Option<Result<Bytes, NotSaved>>, Fault> {
        let limits = &self.store.data().who.spec.limits;
        let within = SnapshotLimits {
            cpu: limits.cpu.max(LEAST_CPU),
            time: limits.time.max(LEAST_TIME),
            fuel: limits.fuel.unwrap_or_default().max(LEAST_FUEL),
        };
        self.save_within(max, within).await
    }

    async fn save_within(
        &mut self,
        max: u64,
        limits: SnapshotLimits,
    ) -> Result<Option<Result<Bytes, NotSaved>>, Fault> {
        self.begin_snapshot(limits);
        let Some(snapshot) = &self.exports.snapshot else { return Ok(None) };
        let result = bounded(&self.meter, limits.time, pin!(snapshot.call_save(&mut self.store))).await;
        let saved = self.explain_within(result, limits.time, (limits.cpu, Some(limits.fuel)))?;
        Ok(Some(match saved {
            Ok(saved) if saved.len() as u64 > max => Err(NotSaved::TooLarge { bytes: saved.len() as u64, max }),
            Ok(saved) => Ok(saved.into()),
            Err(why) => Err(NotSaved::Refused(self.store.data().config.shortened(&why))),
        }))
    }

    /// Passes a snapshot to the guest.
    pub(crate) async fn restore(&mut self, saved: &[u8]) -> Result<(), Fault> {
        let limits = SnapshotLimits::APART;
        self.begin_snapshot(limits);
        let Some(snapshot) = &self.exports.snapshot else { return Ok(()) };
        // The generated binding takes the bytes by value.
        let copied = saved.to_vec();
        let result = bounded(&self.meter, limits.time, pin!(snapshot.call_restore(&mut self.store, &copied))).await;
        let restored = self.explain_within(result, limits.time, (limits.cpu, Some(limits.fuel)))?;
        restored.map_err(|why| Fault::Restore(self.store.data().config.shortened(&why)))?;
        self.memory().note(saved);
        Ok(())
    }

    fn begin_snapshot(&mut self, limits: SnapshotLimits) {
        let counts_fuel = self.store.data().who.spec.limits.fuel.is_some();
        self.meter.begin(limits.cpu);
        arm(&mut self.store, counts_fuel.then_some(limits.fuel));
        let ctx = self.store.data_mut();
        ctx.memory.begin(limits.time);
        ctx.begin(None);
    }
}

/// The reason why a snapshot was not saved, after which the guest goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotSaved {
    /// The guest returned a reason.
    #[error("it refused to save its memory: {0}")]
    Refused(String),
    /// The snapshot exceeds the bound.
    #[error("it saved {bytes} bytes, more than snapshot.max ({max} bytes)")]
    TooLarge {
        /// The size of the snapshot.
        bytes: u64,
        /// The bound.
        max: u64,
    },
}
