//! Pages of lists, bounded in entries and in bytes.
//!
//! A list in order of name is an array, and the header `link` names its next page (RFC 8288), so that a client that reads
//! one page sees the same as before there were several.

use std::io;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{HeaderValue, LINK};
use serde::{Deserialize, Serialize};

use super::extract::{MAX_PAGE, page_size};
use crate::bounds::PAGE_BYTES;
use crate::problem::Problem;

/// The query of a list in order of name.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Selects those whose name is after this one in the order of names.
    pub(super) after: Option<String>,
    /// The most to return: 1000 by default and at most. The header `link` names the next page, if there is one.
    pub(super) limit: Option<u32>,
}

impl ListParams {
    /// Returns the number of entries on the page.
    pub(super) fn size(&self) -> Result<u32, Problem> {
        page_size(self.limit, MAX_PAGE)
    }
}

/// A page of a list in order of name.
pub(super) struct Page<T> {
    entries: Vec<T>,
    /// The path and query of the next page, if there is one.
    next: Option<String>,
}

impl<T: Serialize> Page<T> {
    /// Creates a page of the list at `path` from its entries and at least one of the next page, if there is one. Entries
    /// of one name stay together.
    pub(super) fn new(path: &str, mut entries: Vec<T>, size: u32, name: impl Fn(&T) -> &str) -> Self {
        let fitting = fitting(entries.iter()).min(size as usize);
        // A page ends where the name changes, because the next one begins after a name.
        let is_end = |at: &usize| entries.get(*at).is_none_or(|next| name(&entries[at - 1]) != name(next));
        let end = (1..=fitting).rev().find(is_end).or_else(|| (fitting.max(1)..=entries.len()).find(is_end));
        let end = end.unwrap_or(entries.len());
        let next = (end < entries.len()).then(|| {
            // Names of agents need no escape in a query.
            let join = if path.contains('?') { '&' } else { '?' };
            format!("{path}{join}after={}&limit={size}", name(&entries[end - 1]))
        });
        entries.truncate(end);
        Self { entries, next }
    }
}

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.entries).into_response();
        if let Some(link) = self.next.and_then(|next| HeaderValue::try_from(format!("<{next}>; rel=\"next\"")).ok()) {
            response.headers_mut().insert(LINK, link);
        }
        response
    }
}

/// Keeps the first entries whose JSON has no more than [`PAGE_BYTES`], and one in any case. Returns `true` if others
/// were left out.
pub(super) fn keep_first<T: Serialize>(entries: &mut Vec<T>) -> bool {
    let fitting = fitting(entries.iter());
    let left_out = fitting < entries.len();
    entries.truncate(fitting);
    left_out
}

/// Keeps the last entries whose JSON has no more than [`PAGE_BYTES`], and one in any case. Returns `true` if others were
/// left out.
pub(super) fn keep_last<T: Serialize>(entries: &mut Vec<T>) -> bool {
    let surplus = entries.len() - fitting(entries.iter().rev());
    entries.drain(..surplus);
    surplus > 0
}

/// Returns the number of entries that fit into a page, at least one if there is one.
fn fitting<'e, T: Serialize + 'e>(entries: impl Iterator<Item = &'e T>) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&T| {
        bytes += json_bytes(*entry) + 1;
        bytes <= PAGE_BYTES
    };
    let mut entries = entries.peekable();
    let is_empty = entries.peek().is_none();
    entries.take_while(fits).count().max(usize::from(!is_empty))
}

/// Returns the length of an entry as JSON.
fn json_bytes(entry: &impl Serialize) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    // Written into nothing: a second copy of the page would take as much memory as the page.
    let mut count = Count(0);
    // Only maps with keys that are not text fail, and no entry has one.
    let _ = serde_json::to_writer(&mut count, entry);
    count.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_end_before_they_are_too_large() {
        let entry = "x".repeat(PAGE_BYTES / 3);
        for (count, kept) in [(0, 0), (1, 1), (2, 2), (3, 2), (9, 2)] {
            let mut entries: Vec<String> = (0..count).map(|number| format!("{number}{entry}")).collect();
            let mut newest = entries.clone();
            assert_eq!((keep_first(&mut entries), entries.len()), (count > kept, kept));
            assert_eq!((keep_last(&mut newest), newest.len()), (count > kept, kept));
            let first_of = |entries: &[String]| entries.first().map(|entry| entry.as_bytes()[0]);
            assert_eq!(first_of(&entries), (count > 0).then_some(b'0'));
            assert_eq!(first_of(&newest), (count > 0).then(|| b'0' + u8::try_from(count - kept).unwrap()));
        }
        let mut large = vec!["x".repeat(PAGE_BYTES), "y".to_owned()];
        assert!(keep_first(&mut large) && large.len() == 1, "an entry that is larger than a page has one of its own");
    }

    #[test]
    fn entries_of_one_name_are_on_one_page() {
        for (names, size, expected, next) in [
            ("a b c", 3, 3, None),
            ("a b c", 2, 2, Some("/v1/x?after=b&limit=2")),
            ("a b b", 2, 1, Some("/v1/x?after=a&limit=2")),
            ("b b b c", 2, 3, Some("/v1/x?after=b&limit=2")),
            ("b b b", 2, 3, None),
            ("", 2, 0, None),
        ] {
            let entries: Vec<&str> = names.split_whitespace().collect();
            let page = Page::new("/v1/x", entries, size, |name| name);
            assert_eq!((page.entries.len(), page.next.as_deref()), (expected, next), "{names} by {size}");
        }
        assert_eq!(Page::new("/v1/x?a=1", vec!["a", "b"], 1, |name| name).next.unwrap(), "/v1/x?a=1&after=a&limit=1");
    }
}
