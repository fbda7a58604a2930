//! Access: the roles of callers, the tokens that have them, the rates at which callers may come, and the record of what
//! they did.
//!
//! ```text
//! token --digest--> TokenTable --> name and role --> routes: the role that the route needs
//! peer or caller --> RateTable --> a request, or the time to wait
//! AuditEntry --chain--> a line with the hash of the one before; Verifier finds what was changed
//! ```
//! Files, sockets and chance are the host's: what is here is given texts, digests and times.

mod audit;
pub mod chain;
pub mod rate;
mod role;
mod route_auth;
mod routes;
mod tokens;

pub use audit::{AuditEntry, AuditRequest, MAX_TARGET, cut_target};
pub use role::{Role, UnknownRole};
pub use route_auth::{
    CALLER_HEADER, CallerIdentity, CallerToken, CallerTokenError, JwtSpec, KeySource, RateError, RequestSignature,
    RouteAuth, RouteRate, SIGNATURE_AGE, SIGNATURE_HEADER, signed_text,
};
pub use routes::{AdminRoute, admin_routes, role_of};
pub use tokens::{
    LOCAL_TOKEN, MAX_TOKENS, TokenDigest, TokenName, TokenRecord, TokenRefusal, TokenTable, TokenTableError,
};
