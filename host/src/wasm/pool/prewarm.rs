//! The warm instances of a pool: started ahead of calls, and ended when idle for long.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use caxton_control::supervision::InstanceFailure;
use tokio::runtime::Handle;

use crate::message::Fault;
use crate::wasm::call::instance::Instance;
use crate::wasm::pool::slots::InstanceSlot;
use crate::wasm::pool::{Memory, Pool};

/// The time in which the host has to find memory for an instance that no caller waits for.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause before the next try to start one, while memory is short.
const MEMORY_PAUSE: Duration = Duration::from_millis(200);

impl Pool {
    /// Starts instances until `count` are warm. Each has restored its state and passed its health check.
    pub(crate) async fn warm(self: &Arc<Self>, count: u32) -> Result<(), Fault> {
        // Checked again for each: an instance that was warm and was evicted meanwhile is not replaced here.
        for _ in 0..self.missing(count) {
            if self.missing(count) > 0 {
                self.start_patiently(|| Memory::Saved).await?;
            }
        }
        Ok(())
    }

    /// Starts instances as long as there are free slots: a warm instance is not worth evicting one of another agent.
    /// From now on an instance that ends is replaced at once.
    pub(crate) async fn keep_warm(self: &Arc<Self>, count: u32) -> Result<(), Fault> {
        self.min.store(count, Ordering::Relaxed);
        self.fill(count).await.map(drop)
    }

    /// Starts missing instances as long as there are free slots. Returns their number.
    async fn fill(self: &Arc<Self>, count: u32) -> Result<u32, Fault> {
        let mut started = 0;
        while self.missing(count) > 0
            && let Some(slot) = self.runtime.take_free_slot()
        {
            match self.start_idle(slot, Memory::Saved).await {
                // A warm instance is not worth a wait; the next sweep tries again.
                Err(Fault::HostMemory) => break,
                other => other?,
            }
            started += 1;
        }
        Ok(started)
    }

    /// Replaces ended instances in a task of its own, so that the next call finds a warm one. After failures this is
    /// left to the supervision, which has a backoff.
    pub(in crate::wasm) fn refill(self: &Arc<Self>) {
        let well = !self.closed.load(Ordering::SeqCst) && !self.is_troubled.load(Ordering::Relaxed);
        let wants = well && self.is_evictable() && self.missing(self.min.load(Ordering::Relaxed)) > 0;
        // One task at a time: two would start more instances than are missing.
        if !wants || self.refilling.swap(true, Ordering::SeqCst) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            // Without a runtime the process ends, and nothing needs to be warm.
            return self.refilling.store(false, Ordering::SeqCst);
        };
        let pool = Arc::clone(self);
        runtime.spawn(async move {
            let filled = pool.fill(pool.min.load(Ordering::Relaxed)).await;
            // Before the next `refill`, which would find its own task in the way.
            pool.refilling.store(false, Ordering::SeqCst);
            match filled {
                // No free slots; the next sweep tries again.
                Ok(0) => {}
                // Another instance may have ended while `refilling` was set.
                Ok(_) => pool.refill(),
                Err(fault) => pool.failed(InstanceFailure::Start, &fault),
            }
        });
    }

    /// Returns the number of instances to start so that `count` live.
    fn missing(&self, count: u32) -> u32 {
        count.min(self.max()).saturating_sub(self.live())
    }

    /// Returns `true` if other pools wait for slots.
    pub(crate) fn is_crowded(&self) -> bool {
        self.runtime.has_waiters()
    }

    /// Starts the instance of a stateful agent without a saved state.
    pub(crate) async fn start_without_state(self: &Arc<Self>) -> Result<(), Fault> {
        self.start_patiently(|| Memory::None).await
    }

    /// Starts the instance of a stateful agent with the state `saved`.
    pub(crate) async fn start_with_state(self: &Arc<Self>, saved: &[u8]) -> Result<(), Fault> {
        self.start_patiently(|| Memory::Given(saved)).await
    }

    /// Starts an instance for which no caller waits, once there is memory for it.
    async fn start_patiently<'a>(self: &Arc<Self>, memory: impl Fn() -> Memory<'a>) -> Result<(), Fault> {
        loop {
            match self.start_idle(self.runtime.slot().await, memory()).await {
                // The revision waits for its turn: the want of memory says nothing of it.
                Err(Fault::HostMemory) => self.wait_for_memory().await,
                started => return started,
            }
        }
    }

    /// Returns `true` if starts may be waiting for memory of the host, which is no fault of what is started.
    pub(crate) fn is_short_of_memory(&self) -> bool {
        self.runtime.memory.has_waiters()
    }

    /// Starts an instance, runs its health check, and puts it among the idle ones.
    async fn start_idle(self: &Arc<Self>, slot: InstanceSlot, memory: Memory<'_>) -> Result<(), Fault> {
        let mut instance = self.start(memory, Instant::now() + PATIENCE).await?;
        if let Err(fault) = check(&mut instance).await {
            self.live.fetch_sub(1, Ordering::Relaxed);
            return Err(fault);
        }
        self.put_idle(instance, slot, Instant::now());
        Ok(())
    }

    /// Starts an instance without a snapshot, runs its health check, and ends it.
    pub(crate) async fn check_start(&self) -> Result<(), Fault> {
        // The trial counts against the host's bound as any instance, and not against `instances.max`.
        let _slot = self.runtime.slot().await;
        let mut instance = self.instantiate_patiently().await?;
        check(&mut instance).await
    }

    /// Instantiates the program for a purpose of the host's own, once there is memory for it.
    pub(in crate::wasm) async fn instantiate_patiently(&self) -> Result<Instance, Fault> {
        loop {
            match Instance::start(&self.program, &self.environment, Instant::now() + PATIENCE).await {
                Err(Fault::HostMemory) => self.wait_for_memory().await,
                started => return started,
            }
        }
    }

    /// Waits until an instance may start. Returns after a while even if none may, as a bound on what is not known: an
    /// instance may need more than there is room for.
    async fn wait_for_memory(&self) {
        let (budget, priority) = &self.environment.memory;
        tracing::warn!(agent = %self.who.revision, "an instance waits for memory of the host (host.memory)");
        // Without the memory the caller tries again, and waits here again.
        let _ = budget.admit(*priority, Instant::now() + PATIENCE).await;
        // Room for one byte is no room for an instance: others go on before the next try.
        tokio::time::sleep(MEMORY_PAUSE).await;
    }

    /// Ends instances above `min` that were idle for `age`. Not for stateful agents, whose instance has to be saved
    /// first.
    pub(crate) fn trim(&self, min: u32, age: Duration) {
        while self.live() > min {
            let mut idle = self.idle.lock();
            // Instances are taken from the top, so that the first has been idle for longest.
            if idle.first().is_none_or(|oldest| oldest.since.elapsed() < age) {
                return;
            }
            let dropped = idle.remove(0);
            // The lock is released first: ending an instance takes long.
            drop(idle);
            self.live.fetch_sub(1, Ordering::Relaxed);
            drop(dropped);
        }
    }
}

/// Runs the health check of an instance.
pub(in crate::wasm) async fn check(instance: &mut Instance) -> Result<(), Fault> {
    let time = instance.time();
    instance.check(time).await?.map_err(|why| Fault::Start(format!("its health check says: {why}")))
}
