//! The cost of passing a message to a guest: as a record that is copied whole, or as a resource from which the guest
//! fetches the parts it reads. `cargo bench -p caxton-benches --bench contract`
//!
//! The contract uses the record; this bench is the reason. The engine is configured as in the host.

use criterion::{Criterion, criterion_group, criterion_main};
use wasmtime::component::{Component, HasSelf, Linker, Resource, ResourceTable};
use wasmtime::{Config, Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

mod record {
    wasmtime::component::bindgen!({
        path: ["../wit", "../components/benches/contract"],
        world: "caxton:contract/by-record",
    });
}

mod resource {
    wasmtime::component::bindgen!({
        path: ["../wit", "../components/benches/contract"],
        world: "caxton:contract/by-resource",
        imports: { default: trappable },
        with: { "caxton:contract/messages.message": super::Kept },
    });
}

use record::caxton::agent::types::{Message, Performative, Priority};
use resource::caxton::agent::types as other;
use resource::caxton::contract::messages;

/// A message that stays with the host.
pub struct Kept(Message);

/// The store's data. WASI denies everything, as in the host.
pub struct Data {
    table: ResourceTable,
    wasi: WasiCtx,
}

impl WasiView for Data {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl Data {
    fn message(&self, message: &Resource<Kept>) -> wasmtime::Result<&Message> {
        Ok(&self.table.get(message)?.0)
    }
}

impl other::Host for Data {}
impl messages::Host for Data {}

/// Defines the getter of a part of the message.
macro_rules! part {
    ($name:ident: $type:ty) => {
        fn $name(&mut self, message: Resource<Kept>) -> wasmtime::Result<$type> {
            Ok(self.message(&message)?.$name.clone())
        }
    };
}

impl messages::HostMessage for Data {
    part!(id: String);
    part!(sender: String);
    part!(receiver: String);
    part!(content: Vec<u8>);
    part!(content_type: String);
    part!(ontology: Option<String>);
    part!(protocol: Option<String>);
    part!(conversation_id: String);
    part!(reply_with: Option<String>);
    part!(in_reply_to: Option<String>);
    part!(reply_by: Option<u64>);
    part!(sent_at: u64);
    part!(attempt: u32);
    part!(headers: Vec<(String, String)>);

    fn performative(&mut self, _: Resource<Kept>) -> wasmtime::Result<other::Performative> {
        Ok(other::Performative::Request)
    }

    fn priority(&mut self, _: Resource<Kept>) -> wasmtime::Result<other::Priority> {
        Ok(other::Priority::Normal)
    }

    fn drop(&mut self, message: Resource<Kept>) -> wasmtime::Result<()> {
        self.table.delete(message)?;
        Ok(())
    }
}

fn message(bytes: usize) -> Message {
    let id = || "01890a5d-ac96-774b-bcce-b302099a8057".to_owned();
    Message {
        id: id(),
        performative: Performative::Request,
        sender: "triage".to_owned(),
        receiver: "billing".to_owned(),
        content: vec![b'x'; bytes],
        content_type: "application/json".to_owned(),
        ontology: None,
        protocol: Some("fipa-contract-net".to_owned()),
        conversation_id: id(),
        reply_with: None,
        in_reply_to: None,
        reply_by: Some(1),
        priority: Priority::Normal,
        sent_at: 1,
        attempt: 1,
        headers: Vec::new(),
    }
}

fn bench(criterion: &mut Criterion) {
    caxton_benches::build_guests();
    let mut config = Config::new();
    config.concurrency_support(false).epoch_interruption(true);
    let engine = Engine::new(&config).expect("the engine can be made");
    let component =
        |name| Component::from_file(&engine, caxton_benches::guest(name)).expect("the guest is a component");
    let store = || {
        let mut store = Store::new(&engine, Data { table: ResourceTable::new(), wasi: WasiCtxBuilder::new().build() });
        store.set_epoch_deadline(u64::MAX / 2);
        store
    };

    let mut linker = Linker::<Data>::new(&engine);
    let by_record = component("by-record");
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker).expect("WASI can be linked");
    let mut record_store = store();
    let record = record::ByRecord::instantiate(&mut record_store, &by_record, &linker).expect("it can be instantiated");

    let mut linker = Linker::<Data>::new(&engine);
    let by_resource = component("by-resource");
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker).expect("WASI can be linked");
    messages::add_to_linker::<_, HasSelf<_>>(&mut linker, |data: &mut Data| data).expect("the host can be linked");
    other::add_to_linker::<_, HasSelf<_>>(&mut linker, |data: &mut Data| data).expect("the host can be linked");
    let mut kept_store = store();
    let resource =
        resource::ByResource::instantiate(&mut kept_store, &by_resource, &linker).expect("it can be instantiated");

    for (size, name) in [(256, "256 B"), (16 << 10, "16 KiB")] {
        let mut group = criterion.benchmark_group(format!("pass a message of {name}"));
        let given = message(size);
        group.bench_function("record, reads content", |b| {
            b.iter(|| record.call_read_content(&mut record_store, &given).expect("the guest answers"));
        });
        group.bench_function("record, reads content and routing", |b| {
            b.iter(|| record.call_read_routing(&mut record_store, &given).expect("the guest answers"));
        });
        group.bench_function("record, reads all", |b| {
            b.iter(|| record.call_read_all(&mut record_store, &given).expect("the guest answers"));
        });
        // A host would have to create a handle for every message.
        let with = |store: &mut Store<Data>, call: &dyn Fn(&mut Store<Data>, Resource<Kept>) -> u64| {
            let handle = store.data_mut().table.push(Kept(given.clone())).expect("the table has room");
            let borrowed = Resource::new_borrow(handle.rep());
            let result = call(store, borrowed);
            store.data_mut().table.delete(handle).expect("the handle is there");
            result
        };
        group.bench_function("resource, reads content", |b| {
            b.iter(|| with(&mut kept_store, &|s, m| resource.call_read_content(s, m).expect("the guest answers")));
        });
        group.bench_function("resource, reads content and routing", |b| {
            b.iter(|| with(&mut kept_store, &|s, m| resource.call_read_routing(s, m).expect("the guest answers")));
        });
        group.bench_function("resource, reads all", |b| {
            b.iter(|| with(&mut kept_store, &|s, m| resource.call_read_all(s, m).expect("the guest answers")));
        });
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
