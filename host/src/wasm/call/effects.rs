//! The host functions of `caxton:agent/effects`: commits before the end of a call.

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use crate::message::{CLOSED, CommitFailure, CommitMode};
use crate::wasm::bindings::caxton::agent::effects;
use crate::wasm::call::ctx::Ctx;
use crate::wasm::call::fault::Reserved;

/// Replaces `commit` by a function with access to the store, which is needed to refill its fuel.
pub(in crate::wasm) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut interface = linker.instance("caxton:agent/effects@0.1.0")?;
    interface.func_wrap_async("commit", |mut store: StoreContextMut<'_, Ctx>, (): ()| {
        Box::new(async move {
            let committed = effects::Host::commit(store.data_mut()).await?;
            if committed.is_ok()
                && store.data().is_migration()
                && let Some(fuel) = store.data().limits().fuel
            {
                // Each step of a migration has the budget of one message: the whole grows with the state.
                store.set_fuel(fuel)?;
            }
            Ok((committed,))
        })
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

impl Ctx {
    /// Returns `true` in a migration, which sends no messages.
    pub(in crate::wasm) fn is_migration(&self) -> bool {
        self.work.as_ref().is_some_and(|work| matches!(work.commit_mode, CommitMode::InSteps(_)))
    }

    /// Resets the limits for the next step of a migration.
    fn begin_step(&self) {
        let mut effects = self.effects.lock();
        (effects.write_count, effects.bytes) = (0, 0);
        drop(effects);
        self.meter.begin_step();
    }

    /// Returns the way in which the current call may still commit.
    fn commits(&self) -> Result<CommitMode, String> {
        let commits = self.work.as_ref().map_or(CommitMode::WithResult, |work| work.commit_mode.clone());
        if let CommitMode::WithResult = commits {
            return Err("the effects of a message handler are committed when it returns ok, and not before".to_owned());
        }
        if self.effects.lock().closed {
            return Err(CLOSED.to_owned());
        }
        Ok(commits)
    }
}

impl effects::Host for Ctx {
    async fn commit(&mut self) -> wasmtime::Result<Result<(), String>> {
        let (committer, is_step) = match self.commits() {
            Ok(CommitMode::Through(committer)) => (committer, false),
            Ok(CommitMode::InSteps(committer)) => (committer, true),
            Ok(CommitMode::Nowhere | CommitMode::WithResult) => {
                // A copy commits nowhere, but its comparison needs the point up to which effects would have been kept.
                self.effects.lock().set_checkpoint();
                return Ok(Ok(()));
            }
            Err(why) => return Ok(Err(why)),
        };
        // A commit cannot be undone, so that a run which has to be repeated ends before it.
        self.check_not_blocked()?;
        if let Some(head) = self.answer.commit_of_head()
            && !head.is_made().await
        {
            return Ok(Err("what came before the response was not committed".to_owned()));
        }
        // A statement of its own, so that the guard does not live across the wait below.
        let taken = self.effects.lock().take_part();
        match committer(taken, false).await {
            Ok(()) => {
                self.effects.lock().partly_committed = true;
                if is_step {
                    self.begin_step();
                }
                Ok(Ok(()))
            }
            Err(CommitFailure::Other(why)) => Ok(Err(why)),
            Err(CommitFailure::Conflict(conflict)) => {
                let runs_again = self.work.as_ref().is_some_and(|work| work.run.is_repeatable);
                let mut effects = self.effects.lock();
                if !runs_again || effects.partly_committed {
                    return Ok(Err(format!("the key `{}` has changed meanwhile", conflict.key)));
                }
                // The run is repeated from its beginning, which is possible as nothing of it is committed.
                effects.reads.extend(conflict.keys.into_iter().map(|key| (key, 0)));
                Err(Reserved(conflict.key).into())
            }
        }
    }

    fn discard(&mut self) -> wasmtime::Result<Result<(), String>> {
        Ok(self.commits().map(|_| self.effects.lock().discard()))
    }
}
