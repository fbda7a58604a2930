//! `fermyon:spin@2.0.0`: its key-value stores, which are buckets of the agent's state, and its variables, which are the
//! agent's `config`.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource, ResourceType};

use super::buckets::{Bucket, BucketAccess, BucketKey, Returned, describe};
use crate::bounds::quoted;
use crate::wasm::bindings::types::StateError;
use crate::wasm::call::ctx::Ctx;

/// The most bytes of keys in the answer to `get-keys`, which has no pages.
const MAX_KEYS_BYTES: usize = 4 << 20;

/// `error` of `key-value`.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum SpinStoreError {
    #[component(name = "store-table-full")]
    StoreTableFull,
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

impl From<StateError> for SpinStoreError {
    fn from(error: StateError) -> Self {
        Self::Other(describe(error))
    }
}

/// `error` of `variables`.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum VariableError {
    #[component(name = "invalid-name")]
    InvalidName(String),
    #[component(name = "undefined")]
    Undefined(String),
    #[component(name = "provider")]
    Provider(String),
    #[component(name = "other")]
    Other(String),
}

type SpinReturn<T> = Returned<T, SpinStoreError>;

/// Gives a guest the result of an access.
fn reply<T>(access: BucketAccess<T>) -> SpinReturn<T> {
    Ok((access?.map_err(SpinStoreError::from),))
}

/// Defines the functions of both interfaces.
pub(super) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    add_key_value(linker)?;
    let mut variables = linker.instance("fermyon:spin/variables@2.0.0")?;
    variables.func_wrap(
        "get",
        |store: StoreContextMut<'_, Ctx>, (name,): (String,)| -> wasmtime::Result<(Result<String, VariableError>,)> {
            let ctx = store.data();
            // The name comes back in an error, and may be as long as the guest's memory.
            let found = ctx.config.texts(&ctx.who.spec.config).get(&name).cloned();
            Ok((found.ok_or_else(|| VariableError::Undefined(quoted(&name))),))
        },
    )
}

fn add_key_value(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    let mut interface = linker.instance("fermyon:spin/key-value@2.0.0")?;
    interface.resource("store", ResourceType::host::<Bucket>(), |mut store, rep| {
        store.data_mut().table.delete(Resource::<Bucket>::new_own(rep))?;
        Ok(())
    })?;
    interface.func_wrap(
        "[static]store.open",
        |mut store: StoreContextMut<'_, Ctx>, (label,): (String,)| -> SpinReturn<Resource<Bucket>> {
            let Some(bucket) = Bucket::named(&label) else { return Ok((Err(SpinStoreError::NoSuchStore),)) };
            Ok((store.data_mut().table.push(bucket).map_err(|_| SpinStoreError::StoreTableFull),))
        },
    )?;
    interface.func_wrap(
        "[method]store.get",
        |mut store: StoreContextMut<'_, Ctx>, (bucket, key): BucketKey| -> SpinReturn<Option<Vec<u8>>> {
            reply(store.data_mut().bucket_get(&bucket, &key))
        },
    )?;
    interface.func_wrap(
        "[method]store.set",
        |mut store: StoreContextMut<'_, Ctx>,
         (bucket, key, value): (Resource<Bucket>, String, Vec<u8>)|
         -> SpinReturn<()> { reply(store.data_mut().bucket_set(&bucket, &key, value)) },
    )?;
    interface.func_wrap(
        "[method]store.delete",
        |mut store: StoreContextMut<'_, Ctx>, (bucket, key): BucketKey| -> SpinReturn<()> {
            reply(store.data_mut().bucket_remove(&bucket, &key))
        },
    )?;
    interface.func_wrap(
        "[method]store.exists",
        |mut store: StoreContextMut<'_, Ctx>, (bucket, key): BucketKey| -> SpinReturn<bool> {
            let found = store.data_mut().bucket_get(&bucket, &key)?;
            reply(Ok(found.map(|value| value.is_some())))
        },
    )?;
    interface.func_wrap(
        "[method]store.get-keys",
        |mut store: StoreContextMut<'_, Ctx>, (bucket,): (Resource<Bucket>,)| -> SpinReturn<Vec<String>> {
            Ok((store.data_mut().all_keys(&bucket)?,))
        },
    )
}

impl Ctx {
    /// Lists all keys of a bucket.
    fn all_keys(&mut self, bucket: &Resource<Bucket>) -> wasmtime::Result<Result<Vec<String>, SpinStoreError>> {
        let (mut keys, mut bytes, mut cursor) = (Vec::new(), 0, None);
        loop {
            let page = match self.bucket_keys(bucket, cursor)? {
                Ok(page) => page,
                Err(error) => return Ok(Err(error.into())),
            };
            bytes += page.keys.iter().map(|key| key.len() + size_of::<String>()).sum::<usize>();
            if bytes > MAX_KEYS_BYTES {
                let why = format!(
                    "its keys are more than {MAX_KEYS_BYTES} bytes, and this interface has no pages: \
                     wasi:keyvalue@0.2.0-draft2 has"
                );
                return Ok(Err(SpinStoreError::Other(why)));
            }
            keys.extend(page.keys);
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(Ok(keys));
            }
        }
    }
}
