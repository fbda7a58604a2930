//! Access: who a caller is, how often a wrong one may try, and the record of what callers did.
//!
//! ```text
//! admin::guard -> Access::identify -> Tokens (digests in memory, tokens.json) -> name and role, or a refusal
//!              |                         '-- the rate of wrong tokens by peer
//!              '-> AuditLog: asked, before it acts; answered, with the result -> AuditFile: audit.jsonl
//! http::callers -> Access::credential -> a token, a signature or a JWT (keys by KeyFiles) -> CallerIdentity
//! ```
//! `caxton-control` decides ([`caxton_control::access`]); here are the files, the clock and the random texts. The text
//! of a token is in no file but that of the host's own, which the commands on this machine read.

mod audit_file;
mod audit_log;
mod callers;
mod host_access;
mod identity;
mod jwt;
mod key_files;
mod local_token;
mod offline;
mod tokens;

pub(crate) use audit_file::{CheckedAudit, audit_path, verify_file};
pub(crate) use audit_log::AuditLog;
pub(crate) use callers::{CallRefusal, Credential, bearer_token, log_unread_keys, unread_keys};
pub(crate) use host_access::Access;
pub(crate) use identity::{AccessRefusal, Identity};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use jwt::examine_token;
pub(crate) use local_token::{TOKEN_FILE, read_token};
pub(crate) use offline::OfflineAccess;
pub(crate) use tokens::{MadeToken, TokenChangeError};
