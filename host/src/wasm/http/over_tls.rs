//! The mark of requests that came over TLS.

/// The extension of a request that came over TLS, which gives it the scheme `https`. What the request itself says of
/// its scheme is the client's word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OverTls;
