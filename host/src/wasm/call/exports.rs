//! The exports of an instance, and the room that its program has for one.

use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;
use wasmtime::Store;

use crate::message::Fault;
use crate::wasm::bindings::{handler, health, incoming_handler, migration, service_handler, snapshot};
use crate::wasm::call::ctx::Ctx;
use crate::wasm::compat::messaging::BrokerHandler;
use crate::wasm::compile::program::Program;

/// The exported functions of an instance.
pub(in crate::wasm) struct Exports {
    pub(super) handler: Option<handler::Guest>,
    /// The handler of wasmCloud's messages, in place of the contract's.
    pub(super) broker: Option<BrokerHandler>,
    pub(super) http: Option<incoming_handler::Guest>,
    pub(in crate::wasm) service: Option<service_handler::Guest>,
    pub(in crate::wasm) snapshot: Option<snapshot::Guest>,
    pub(super) health: Option<health::Guest>,
    pub(in crate::wasm) migration: Option<migration::Guest>,
}

impl Program {
    /// Looks up the exports of an instance.
    pub(super) fn exports(
        &self,
        store: &mut Store<Ctx>,
        instance: &wasmtime::component::Instance,
    ) -> wasmtime::Result<Exports> {
        Ok(Exports {
            handler: self.handler.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
            broker: self.broker.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
            http: self.http.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
            service: self.service.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
            snapshot: self.snapshot.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
            health: self.health.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
            migration: self.migration.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
        })
    }

    /// Waits for room in an engine that has fewer instances than the host has slots.
    pub(super) async fn permit(&self, deadline: Instant) -> Result<Option<OwnedSemaphorePermit>, Fault> {
        let Some(permits) = &self.permits else { return Ok(None) };
        match tokio::time::timeout_at(deadline.into(), permits.clone().acquire_owned()).await {
            Ok(permit) => Ok(permit.ok()),
            Err(_) => Err(Fault::Overloaded),
        }
    }
}
