//! Migrations: conversion of an agent's state for a new version, in a call of its own that commits in steps.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Sleep, sleep_until};

use crate::message::{CallContext, Effects, Failure, Fault};
use crate::wasm::call::instance::{Instance, Late};
use crate::wasm::convert;
use crate::wasm::limits::{Meter, Metered};
use crate::wasm::pool::Pool;

impl Pool {
    /// Starts an instance without a snapshot, lets it convert the agent's state from the form of version `from`, and
    /// ends it. Returns the effects since its last commit, or the guest's failure. `limits.time` bounds each step; the
    /// caller bounds the whole.
    ///
    /// The instance does not belong to the pool: it counts neither as live nor against `instances.max`.
    pub(crate) async fn migrate(&self, from: u32, work: CallContext) -> Result<Result<Effects, Failure>, Fault> {
        // The allocator has room for as many instances as there are slots, whatever pool they belong to.
        let _slot = self.runtime.slot().await;
        let mut instance = self.instantiate_patiently().await?;
        let migrated = instance.migrate(from, work).await?;
        Ok(migrated.map(|()| instance.take_effects()))
    }
}

impl Instance {
    /// Lets the guest convert its agent's state.
    async fn migrate(&mut self, from: u32, work: CallContext) -> Result<Result<(), Failure>, Fault> {
        let time = self.time();
        self.begin(Some(work), time);
        self.meter.begin_step();
        let Some(migration) = &self.exports.migration else {
            return Err(Fault::Host("the component exports no caxton:agent/migration".to_owned()));
        };
        let result = bounded_by_step(&self.meter, time, pin!(migration.call_migrate(&mut self.store, from))).await;
        let migrated = self.explain(result, time)?;
        Ok(migrated.map_err(|failure| self.complete(convert::migration_failure(failure))))
    }
}

/// Runs a call, measures its CPU time, and bounds the time of each of its steps by the clock.
async fn bounded_by_step<F: Future + Unpin>(meter: &Meter, time: Duration, call: F) -> Result<F::Output, Late> {
    let mut call = Metered { meter, future: call };
    // Created at once, unlike that of a message: a migration reads and writes for long, and is rare.
    let mut timer: Pin<Box<Sleep>> = Box::pin(sleep_until((meter.step_began() + time).into()));
    poll_fn(|cx| {
        if let Poll::Ready(output) = Pin::new(&mut call).poll(cx) {
            return Poll::Ready(Ok(output));
        }
        // A step may have started within that poll.
        let end = (meter.step_began() + time).into();
        // A reset takes the lock of tokio's timer wheel, and most polls are within the same step.
        if timer.deadline() != end {
            timer.as_mut().reset(end);
        }
        timer.as_mut().poll(cx).map(|()| Err(Late))
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::clock;

    #[tokio::test]
    async fn time_limits_restart_with_each_step() {
        let (time, cpu) = (Duration::from_millis(300), Duration::from_millis(20));
        for (steps, ends) in [(true, true), (false, false)] {
            let meter = Meter::new();
            meter.begin(cpu);
            meter.begin_step();
            let call = async {
                for step in 0..2 {
                    let (began, core) = (Instant::now(), clock::core_time());
                    // Longer than a step may take, by the clock and on a core.
                    while began.elapsed() < time || clock::core_time() - core < cpu * 2 {}
                    // The CPU time of a first poll is not known.
                    assert_eq!(meter.is_over(), step > 0);
                    if steps {
                        meter.begin_step();
                        assert!(!meter.is_over());
                    }
                    // The runtime looks at its timers between some of these.
                    for _ in 0..100 {
                        tokio::task::yield_now().await;
                    }
                }
            };
            assert_eq!(bounded_by_step(&meter, time, pin!(call)).await.is_ok(), ends, "steps: {steps}");
        }
    }
}
