//! Buckets: the key-value stores of other hosts as parts of the agent's own state.
//!
//! ```text
//! bucket `default`   key `a`    -> key `a` of the state
//!                    key `@a`   -> key `@/@a`
//! bucket `sessions`  key `a`    -> key `@sessions/a`
//! ```
//! The default bucket is the state itself, so that a component that imports `caxton:agent/state` as well sees the same
//! keys under the same names. A mark keeps those of named buckets apart, and out of its lists.

use wasmtime::component::Resource;

use crate::wasm::bindings::caxton::agent::state::Host as _;
use crate::wasm::bindings::types::StateError;
use crate::wasm::call::ctx::Ctx;
use crate::wasm::call::state::MAX_KEY;

/// The start of the keys of named buckets.
const MARK: char = '@';
/// The start of keys of the default bucket that begin with the mark themselves.
const ESCAPED: &str = "@/";
/// A cursor behind the keys of all named buckets.
const BEHIND_NAMED: &str = "@\u{10ffff}";
/// The longest name of a bucket.
const MAX_NAME: usize = 64;
/// The most keys in one page of a list.
const PAGE: u32 = 1_000;
/// The pages that are looked through for one with keys: those of others may fill any number of them.
const MAX_LOOKS: usize = 16;

/// An open bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    /// The start of its keys in the state; empty for the default one.
    prefix: String,
}

/// A page of the keys in a bucket.
pub(super) struct BucketPage {
    pub(super) keys: Vec<String>,
    /// The place at which the next page begins.
    pub(super) cursor: Option<String>,
}

/// A key, with the bucket that it is in.
pub(super) type BucketKey = (Resource<Bucket>, String);

/// The result of a function for the guest.
pub(super) type Returned<T, E> = wasmtime::Result<(Result<T, E>,)>;

/// The result of an access: the guest's own error, or one that ends the guest.
pub(super) type BucketAccess<T> = wasmtime::Result<Result<T, StateError>>;

impl Bucket {
    /// Opens the bucket of this name; `None` if no bucket can have it.
    pub(super) fn named(name: &str) -> Option<Self> {
        if name.is_empty() || name == "default" {
            return Some(Self { prefix: String::new() });
        }
        // The first character sorts behind the slash, so that escaped keys come before those of buckets.
        let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        let is_name = name.len() <= MAX_NAME && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        (begins_well && is_name).then(|| Self { prefix: format!("{MARK}{name}/") })
    }

    /// Returns the key of the state for a key of the bucket.
    fn stored(&self, key: &str) -> String {
        let prefix = if self.prefix.is_empty() && key.starts_with(MARK) { ESCAPED } else { &self.prefix };
        format!("{prefix}{key}")
    }

    /// Returns the key of the bucket for a key of the state; `None` for one of another bucket.
    fn shown(&self, stored: &str) -> Option<String> {
        if !self.prefix.is_empty() {
            return stored.strip_prefix(&self.prefix).map(str::to_owned);
        }
        match stored.strip_prefix(ESCAPED) {
            Some(key) => Some(key.to_owned()),
            None => (!stored.starts_with(MARK)).then(|| stored.to_owned()),
        }
    }

    /// Returns the page that follows from these keys of the state.
    fn page(&self, stored: Vec<String>, cursor: Option<String>) -> BucketPage {
        let mut keys = Vec::with_capacity(stored.len());
        for key in stored {
            match self.shown(&key) {
                Some(key) => keys.push(key),
                // Skipped as a whole: a bucket may have a million keys.
                None if key.as_str() > ESCAPED && key.as_str() < BEHIND_NAMED => {
                    return BucketPage { keys, cursor: Some(BEHIND_NAMED.to_owned()) };
                }
                None => {}
            }
        }
        BucketPage { keys, cursor }
    }
}

impl Ctx {
    /// Returns the key of the state for a key of a bucket.
    pub(super) fn bucket_key(&self, bucket: &Resource<Bucket>, key: &str) -> BucketAccess<String> {
        let stored = self.table.get(bucket)?.stored(key);
        // Here, because the state sees the bucket's name in front of it.
        Ok(if key.is_empty() { Err(StateError::InvalidKey(MAX_KEY)) } else { Ok(stored) })
    }

    /// Reads a key of a bucket.
    pub(super) fn bucket_get(&mut self, bucket: &Resource<Bucket>, key: &str) -> BucketAccess<Option<Vec<u8>>> {
        match self.bucket_key(bucket, key)? {
            Ok(key) => self.get(key),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Writes a key of a bucket.
    pub(super) fn bucket_set(&mut self, bucket: &Resource<Bucket>, key: &str, value: Vec<u8>) -> BucketAccess<()> {
        match self.bucket_key(bucket, key)? {
            Ok(key) => self.set(key, value),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Removes a key of a bucket.
    pub(super) fn bucket_remove(&mut self, bucket: &Resource<Bucket>, key: &str) -> BucketAccess<()> {
        match self.bucket_key(bucket, key)? {
            Ok(key) => self.remove(key),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Adds to a number in a bucket, and returns the sum.
    pub(super) fn bucket_increment(&mut self, bucket: &Resource<Bucket>, key: &str, by: i64) -> BucketAccess<i64> {
        match self.bucket_key(bucket, key)? {
            Ok(key) => self.increment(key, by),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Lists keys of a bucket, in the order of the state. A page without keys may have a cursor.
    pub(super) fn bucket_keys(
        &mut self,
        bucket: &Resource<Bucket>,
        mut cursor: Option<String>,
    ) -> BucketAccess<BucketPage> {
        if cursor.as_ref().is_some_and(|cursor| cursor.len() > MAX_KEY as usize) {
            return Ok(Err(StateError::InvalidKey(MAX_KEY)));
        }
        let prefix = self.table.get(bucket)?.prefix.clone();
        for _ in 0..MAX_LOOKS {
            let found = match self.list_keys(prefix.clone(), cursor, PAGE)? {
                Ok(found) => found,
                Err(error) => return Ok(Err(error)),
            };
            let page = self.table.get(bucket)?.page(found.keys, found.cursor);
            if !page.keys.is_empty() || page.cursor.is_none() {
                return Ok(Ok(page));
            }
            cursor = page.cursor;
        }
        Ok(Ok(BucketPage { keys: Vec::new(), cursor }))
    }
}

/// Tells a guest of another host, whose interfaces have no errors of their own for it, why an access failed.
pub(super) fn describe(error: StateError) -> String {
    match error {
        StateError::Quota(most) => format!("the agent's state would be larger than {most} bytes (limits.state)"),
        StateError::InvalidKey(most) => format!("a key has 1 to {most} bytes, with the name of its bucket"),
        StateError::TooLarge(most) => format!(
            "the value is larger than {most} bytes, or all that this call writes and sends would be (limits.state, \
             limits.effects)"
        ),
        StateError::TooManyWrites(most) => {
            format!("this call has made {most} writes, as many as it may (limits.writes)")
        }
        StateError::NotANumber => "the value is no number in decimal text, or the sum is out of its range".to_owned(),
        StateError::Unavailable(why) => why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_share_no_key() {
        let (default, named) = (Bucket::named("default").unwrap(), Bucket::named("a.b").unwrap());
        for (bucket, key, stored) in [
            (&default, "a", "a"),
            (&default, "@a.b/c", "@/@a.b/c"),
            (&default, "@", "@/@"),
            (&named, "c", "@a.b/c"),
            (&named, "@c", "@a.b/@c"),
        ] {
            assert_eq!(bucket.stored(key), stored, "{key}");
            assert_eq!(bucket.shown(stored).as_deref(), Some(key), "{stored}");
        }
        assert_eq!(default.shown("@a.b/c"), None);
        assert_eq!(named.shown("@a.bc/d"), None);
        for name in ["/", "a/b", "@a", "-a", "a b", "ä", &"x".repeat(65)] {
            assert!(Bucket::named(name).is_none(), "{name}");
        }
    }

    #[test]
    fn a_list_of_the_default_bucket_leaves_others_out_at_once() {
        let default = Bucket::named("").unwrap();
        let page = |keys: &[&str]| {
            let page = default.page(keys.iter().map(|key| (*key).to_owned()).collect(), None);
            (page.keys.join(" "), page.cursor)
        };
        assert_eq!(page(&["!", "@!", "@/@x", "A"]), ("! @x A".to_owned(), None));
        assert_eq!(page(&["!", "@a/1", "@a/2", "A"]), ("!".to_owned(), Some(BEHIND_NAMED.to_owned())));
        assert_eq!(page(&["@\u{10ffff}z", "A"]), ("A".to_owned(), None), "it comes behind the cursor");
    }
}
