//! Instances that wait for calls: how many stand, how they come to, and when they end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use caxton_control::supervise::Failure;
use tokio::runtime::Handle;

use super::Fault;
use super::instance::Instance;
use super::places::Place;
use super::pool::{Memory, Pool};

impl Pool {
    /// Starts instances until so many are warm; each has its saved state and says that it can work.
    pub(crate) async fn warm(self: &Arc<Self>, count: u32) -> Result<(), Fault> {
        // One that stood and made way for another agent's is not started again.
        for _ in 0..self.missing(count) {
            if self.missing(count) > 0 {
                self.stand(self.runtime.place().await, Memory::Saved).await?;
            }
        }
        Ok(())
    }

    /// The same as far as there are places that nobody else uses: an instance that waits for calls is not worth that
    /// another's makes way. From now on an instance that ends is replaced at once.
    pub(crate) async fn keep_warm(self: &Arc<Self>, count: u32) -> Result<(), Fault> {
        self.min.store(count, Ordering::Relaxed);
        self.fill(count).await.map(drop)
    }

    /// Starts what is missing, as far as there are places. Returns how many it started.
    async fn fill(self: &Arc<Self>, count: u32) -> Result<u32, Fault> {
        let mut started = 0;
        while self.missing(count) > 0
            && let Some(place) = self.runtime.free_place()
        {
            self.stand(place, Memory::Saved).await?;
            started += 1;
        }
        Ok(started)
    }

    /// Starts instances in place of those that ended, in a task of its own: the next call finds one that is fresh and
    /// warm. After failures this is left to supervision, which knows when to try again.
    pub(super) fn refill(self: &Arc<Self>) {
        let well = !self.closed.load(Ordering::SeqCst) && !self.troubled.load(Ordering::Relaxed);
        let wants = well && self.makes_way() && self.missing(self.min.load(Ordering::Relaxed)) > 0;
        if !wants || self.refilling.swap(true, Ordering::SeqCst) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return self.refilling.store(false, Ordering::SeqCst);
        };
        let pool = Arc::clone(self);
        runtime.spawn(async move {
            let filled = pool.fill(pool.min.load(Ordering::Relaxed)).await;
            pool.refilling.store(false, Ordering::SeqCst);
            match filled {
                // Others have all places; the next sweep looks again.
                Ok(0) => {}
                // One may have ended as this was about to.
                Ok(_) => pool.refill(),
                Err(fault) => pool.failed(Failure::Start, &fault),
            }
        });
    }

    /// How many more instances have to live that there are so many.
    fn missing(&self, count: u32) -> u32 {
        count.min(self.max()).saturating_sub(self.live())
    }

    /// Whether others wait for the places that its instances have.
    pub(crate) fn is_crowded(&self) -> bool {
        self.runtime.is_awaited()
    }

    /// Lets one instance of a stateful agent stand that remembers nothing and says that it can work.
    pub(crate) async fn begin_anew(self: &Arc<Self>) -> Result<(), Fault> {
        self.stand(self.runtime.place().await, Memory::None).await
    }

    /// Lets one instance of a stateful agent stand that remembers `saved` and says that it can work.
    pub(crate) async fn take_up(self: &Arc<Self>, saved: &[u8]) -> Result<(), Fault> {
        self.stand(self.runtime.place().await, Memory::Given(saved)).await
    }

    /// Starts an instance that says that it can work, and lets it wait for a call.
    async fn stand(self: &Arc<Self>, place: Place, memory: Memory<'_>) -> Result<(), Fault> {
        let mut instance = self.start(memory).await?;
        if let Err(fault) = check(&mut instance).await {
            self.live.fetch_sub(1, Ordering::Relaxed);
            return Err(fault);
        }
        self.rest(instance, place, Instant::now());
        Ok(())
    }

    /// Drops instances above `min` that were idle for `age`. Not for stateful agents, whose instance is saved
    /// first.
    pub(crate) fn trim(&self, min: u32, age: Duration) {
        while self.live() > min {
            let mut idle = self.idle.lock();
            // The oldest is at the bottom.
            if idle.first().is_none_or(|oldest| oldest.since.elapsed() < age) {
                return;
            }
            let dropped = idle.remove(0);
            drop(idle);
            self.live.fetch_sub(1, Ordering::Relaxed);
            drop(dropped);
        }
    }
}

/// Asks an instance whether it can work.
pub(super) async fn check(instance: &mut Instance) -> Result<(), Fault> {
    let time = instance.time();
    instance.check(time).await?.map_err(|why| Fault::Start(format!("its health check says: {why}")))
}
