//! `wasi:keyvalue` of two drafts: `0.2.0-draft`, as wasmCloud 1 has it, and `0.2.0-draft2`, as Spin has it. They differ in
//! the cursor of a list and in what `atomics` has.

use caxton_control::Digest;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType};

use super::buckets::{Bucket, BucketAccess, BucketKey, Returned, describe};
use crate::wasm::bindings::caxton::agent::state::Host as _;
use crate::wasm::bindings::types::StateError;
use crate::wasm::call::ctx::Ctx;
use crate::wasm::digest::digest;

const DRAFT: &str = "0.2.0-draft";
const DRAFT_2: &str = "0.2.0-draft2";

/// The largest cursor of the first draft. It is a number of keys, which are counted from the first one for each page.
const MAX_OFFSET: u64 = 50_000;

/// `error` of `store`.
#[derive(Debug, Clone, ComponentType, Lift, Lower)]
#[component(variant)]
enum BucketError {
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

impl From<StateError> for BucketError {
    fn from(error: StateError) -> Self {
        Self::Other(describe(error))
    }
}

/// `key-response` of the first draft.
#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct CountedKeys {
    keys: Vec<String>,
    cursor: Option<u64>,
}

/// `key-response` of the second draft.
#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct ListedKeys {
    keys: Vec<String>,
    cursor: Option<String>,
}

/// `cas-error` of `atomics`.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum CasError {
    #[component(name = "store-error")]
    StoreError(BucketError),
    #[component(name = "cas-failed")]
    CasFailed(Resource<Cas>),
}

/// A handle of a value that is compared when it is swapped.
struct Cas {
    /// The key of the state.
    key: String,
    /// The value when the handle was made. Its digest, as a guest may have many handles of large values.
    seen: Option<Digest>,
}

/// Keys, each with its value if it has one.
type BucketPairs = Vec<(String, Option<Vec<u8>>)>;
type StoreReturn<T> = Returned<T, BucketError>;

/// Gives a guest the result of an access.
fn reply<T>(access: BucketAccess<T>) -> StoreReturn<T> {
    Ok((access?.map_err(BucketError::from),))
}

/// Defines all interfaces of both drafts.
pub(super) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    for version in [DRAFT, DRAFT_2] {
        let mut store = linker.instance(&format!("wasi:keyvalue/store@{version}"))?;
        add_store(&mut store)?;
        if version == DRAFT {
            add_counted_list(&mut store)?;
        } else {
            add_list(&mut store)?;
        }
        add_batch(&mut linker.instance(&format!("wasi:keyvalue/batch@{version}"))?)?;
        let mut atomics = linker.instance(&format!("wasi:keyvalue/atomics@{version}"))?;
        if version == DRAFT { add_unsigned_increment(&mut atomics)? } else { add_atomics(&mut atomics)? }
    }
    Ok(())
}

fn add_store(store: &mut LinkerInstance<'_, Ctx>) -> wasmtime::Result<()> {
    store.resource("bucket", ResourceType::host::<Bucket>(), |mut store, rep| {
        store.data_mut().table.delete(Resource::<Bucket>::new_own(rep))?;
        Ok(())
    })?;
    store.func_wrap(
        "open",
        |mut store: StoreContextMut<'_, Ctx>, (name,): (String,)| -> StoreReturn<Resource<Bucket>> {
            let Some(bucket) = Bucket::named(&name) else { return Ok((Err(BucketError::NoSuchStore),)) };
            Ok((Ok(store.data_mut().table.push(bucket)?),))
        },
    )?;
    store.func_wrap(
        "[method]bucket.get",
        |mut store: StoreContextMut<'_, Ctx>, (bucket, key): BucketKey| -> StoreReturn<Option<Vec<u8>>> {
            reply(store.data_mut().bucket_get(&bucket, &key))
        },
    )?;
    store.func_wrap(
        "[method]bucket.set",
        |mut store: StoreContextMut<'_, Ctx>,
         (bucket, key, value): (Resource<Bucket>, String, Vec<u8>)|
         -> StoreReturn<()> { reply(store.data_mut().bucket_set(&bucket, &key, value)) },
    )?;
    store.func_wrap(
        "[method]bucket.delete",
        |mut store: StoreContextMut<'_, Ctx>, (bucket, key): BucketKey| -> StoreReturn<()> {
            reply(store.data_mut().bucket_remove(&bucket, &key))
        },
    )?;
    store.func_wrap(
        "[method]bucket.exists",
        |mut store: StoreContextMut<'_, Ctx>, (bucket, key): BucketKey| -> StoreReturn<bool> {
            let found = store.data_mut().bucket_get(&bucket, &key)?;
            reply(Ok(found.map(|value| value.is_some())))
        },
    )
}

fn add_list(store: &mut LinkerInstance<'_, Ctx>) -> wasmtime::Result<()> {
    store.func_wrap(
        "[method]bucket.list-keys",
        |mut store: StoreContextMut<'_, Ctx>,
         (bucket, cursor): (Resource<Bucket>, Option<String>)|
         -> StoreReturn<ListedKeys> {
            let page = store.data_mut().bucket_keys(&bucket, cursor)?;
            reply(Ok(page.map(|page| ListedKeys { keys: page.keys, cursor: page.cursor })))
        },
    )
}

fn add_counted_list(store: &mut LinkerInstance<'_, Ctx>) -> wasmtime::Result<()> {
    store.func_wrap(
        "[method]bucket.list-keys",
        |mut store: StoreContextMut<'_, Ctx>,
         (bucket, cursor): (Resource<Bucket>, Option<u64>)|
         -> StoreReturn<CountedKeys> {
            let offset = cursor.unwrap_or(0);
            if offset > MAX_OFFSET {
                let why =
                    format!("a list goes on up to the key {MAX_OFFSET}; wasi:keyvalue@{DRAFT_2} has no such bound");
                return Ok((Err(BucketError::Other(why)),));
            }
            let (mut seen, mut place) = (0, None);
            loop {
                let page = match store.data_mut().bucket_keys(&bucket, place)? {
                    Ok(page) => page,
                    Err(error) => return Ok((Err(error.into()),)),
                };
                let end = seen + page.keys.len() as u64;
                if end > offset || page.cursor.is_none() {
                    let skipped = usize::try_from(offset - seen.min(offset)).unwrap_or(usize::MAX);
                    let keys = page.keys.into_iter().skip(skipped).collect();
                    return Ok((Ok(CountedKeys { keys, cursor: page.cursor.map(|_| end) }),));
                }
                (seen, place) = (end, page.cursor);
            }
        },
    )
}

fn add_batch(batch: &mut LinkerInstance<'_, Ctx>) -> wasmtime::Result<()> {
    type Pairs = Vec<Option<(String, Vec<u8>)>>;
    batch.func_wrap(
        "get-many",
        |mut store: StoreContextMut<'_, Ctx>, (bucket, keys): (Resource<Bucket>, Vec<String>)| -> StoreReturn<Pairs> {
            let found = store.data_mut().get_many(&bucket, keys)?;
            let pair = |(key, value): (String, Option<Vec<u8>>)| value.map(|value| (key, value));
            Ok((found.map(|found| found.into_iter().map(pair).collect()),))
        },
    )?;
    batch.func_wrap(
        "set-many",
        |mut store: StoreContextMut<'_, Ctx>,
         (bucket, pairs): (Resource<Bucket>, Vec<(String, Vec<u8>)>)|
         -> StoreReturn<()> {
            for (key, value) in pairs {
                if let Err(error) = store.data_mut().bucket_set(&bucket, &key, value)? {
                    return Ok((Err(error.into()),));
                }
            }
            Ok((Ok(()),))
        },
    )?;
    batch.func_wrap(
        "delete-many",
        |mut store: StoreContextMut<'_, Ctx>, (bucket, keys): (Resource<Bucket>, Vec<String>)| -> StoreReturn<()> {
            for key in keys {
                if let Err(error) = store.data_mut().bucket_remove(&bucket, &key)? {
                    return Ok((Err(error.into()),));
                }
            }
            Ok((Ok(()),))
        },
    )
}

fn add_unsigned_increment(atomics: &mut LinkerInstance<'_, Ctx>) -> wasmtime::Result<()> {
    atomics.func_wrap(
        "increment",
        |mut store: StoreContextMut<'_, Ctx>, (bucket, key, by): (Resource<Bucket>, String, u64)| -> StoreReturn<u64> {
            // Numbers of the state are signed, and a sum that is none of this interface's is no number to it.
            let Ok(by) = i64::try_from(by) else { return Ok((Err(StateError::NotANumber.into()),)) };
            let sum = store.data_mut().bucket_increment(&bucket, &key, by)?;
            if let Ok(sum) = sum
                && sum < 0
            {
                // An access that fails leaves nothing behind.
                let undone = store.data_mut().bucket_increment(&bucket, &key, -by)?;
                return reply(Ok(undone.and(Err(StateError::NotANumber))));
            }
            reply(Ok(sum.map(i64::unsigned_abs)))
        },
    )
}

fn add_atomics(atomics: &mut LinkerInstance<'_, Ctx>) -> wasmtime::Result<()> {
    atomics.func_wrap(
        "increment",
        |mut store: StoreContextMut<'_, Ctx>, (bucket, key, by): (Resource<Bucket>, String, i64)| -> StoreReturn<i64> {
            reply(store.data_mut().bucket_increment(&bucket, &key, by))
        },
    )?;
    atomics.resource("cas", ResourceType::host::<Cas>(), |mut store, rep| {
        store.data_mut().table.delete(Resource::<Cas>::new_own(rep))?;
        Ok(())
    })?;
    atomics.func_wrap(
        "[static]cas.new",
        |mut store: StoreContextMut<'_, Ctx>,
         (bucket, key): (Resource<Bucket>, String)|
         -> StoreReturn<Resource<Cas>> {
            let ctx = store.data_mut();
            match ctx.bucket_key(&bucket, &key)? {
                Ok(key) => reply(ctx.compared(key)),
                Err(error) => Ok((Err(error.into()),)),
            }
        },
    )?;
    atomics.func_wrap(
        "[method]cas.current",
        |mut store: StoreContextMut<'_, Ctx>, (cas,): (Resource<Cas>,)| -> StoreReturn<Option<Vec<u8>>> {
            let key = store.data().table.get(&cas)?.key.clone();
            reply(store.data_mut().get(key))
        },
    )?;
    atomics.func_wrap(
        "swap",
        |mut store: StoreContextMut<'_, Ctx>, (cas, value): (Resource<Cas>, Vec<u8>)| -> Swapped {
            let ctx = store.data_mut();
            let Cas { key, seen } = ctx.table.delete(cas)?;
            let now = match ctx.compared(key.clone())? {
                Ok(now) => now,
                Err(error) => return Ok((Err(CasError::StoreError(error.into())),)),
            };
            // Only this call itself can have changed what it sees: another call's change shows at the commit, and then
            // this one runs again.
            if ctx.table.get(&now)?.seen != seen {
                return Ok((Err(CasError::CasFailed(now)),));
            }
            ctx.table.delete(now)?;
            let written = ctx.set(key, value)?;
            Ok((written.map_err(|error| CasError::StoreError(error.into())),))
        },
    )
}

type Swapped = wasmtime::Result<(Result<(), CasError>,)>;

/// Returns a linker in which `get-many` of the second draft has the form that Spin's SDK gives it. The text of the proposal
/// has another under the same name and version.
pub(super) fn with_form_of_spin(linker: &Linker<Ctx>) -> wasmtime::Result<Linker<Ctx>> {
    let mut linker = linker.clone();
    linker.allow_shadowing(true);
    linker.instance(&format!("wasi:keyvalue/batch@{DRAFT_2}"))?.func_wrap(
        "get-many",
        |mut store: StoreContextMut<'_, Ctx>,
         (bucket, keys): (Resource<Bucket>, Vec<String>)|
         -> StoreReturn<BucketPairs> { Ok((store.data_mut().get_many(&bucket, keys)?,)) },
    )?;
    linker.allow_shadowing(false);
    Ok(linker)
}

impl Ctx {
    /// Reads keys of a bucket, each with its value.
    fn get_many(
        &mut self,
        bucket: &Resource<Bucket>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<BucketPairs, BucketError>> {
        // No more than the guest could take: a value may be asked for any number of times.
        let mut left = self.limits().memory_bytes;
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let value = match self.bucket_get(bucket, &key)? {
                Ok(value) => value,
                Err(error) => return Ok(Err(error.into())),
            };
            let bytes = value.as_ref().map_or(0, |value| (key.len() + value.len()) as u64);
            let Some(rest) = left.checked_sub(bytes) else {
                let why = "the values are larger than the instance's memory (limits.memory)";
                return Ok(Err(BucketError::Other(why.to_owned())));
            };
            left = rest;
            found.push((key, value));
        }
        Ok(Ok(found))
    }

    /// Makes a handle with the value that a key of the state has now.
    fn compared(&mut self, key: String) -> BucketAccess<Resource<Cas>> {
        match self.get(key.clone())? {
            Ok(value) => {
                let seen = value.map(|value| digest(&value));
                Ok(Ok(self.table.push(Cas { key, seen })?))
            }
            Err(error) => Ok(Err(error)),
        }
    }
}
