//! The callers of agents' routes: who they are, by a token, a signature or a JWT.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use caxton_control::Desired;
use caxton_control::access::{
    CallerIdentity, RequestSignature, RouteAuth, SIGNATURE_HEADER, TokenDigest, TokenRefusal, signed_text,
};
use hmac::{Hmac, KeyInit, Mac};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, request};
use sha2::{Digest, Sha256};

use super::host_access::Access;
use super::identity::AccessRefusal;
use super::key_files::KeyFiles;
use crate::clock;

/// The result of looking at the head of a request.
pub(crate) enum Credential {
    /// The caller is known; `None` on a route that asks for nothing.
    Known(Option<CallerIdentity>),
    /// The caller is known once the body is read, which its signature covers.
    Signed(SignedRequest),
}

/// A request with a signature that is yet to be checked.
pub(crate) struct SignedRequest {
    signature: RequestSignature,
    key: Arc<Vec<u8>>,
    method: String,
    target: String,
}

/// The reason why a caller of a route is turned away.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CallRefusal {
    /// No credential was given, or one that is not right.
    Credential(AccessRefusal),
    /// The time of the signature is too far from the host's.
    Stale,
    /// The keys of the route cannot be read.
    Unavailable,
}

impl Access {
    /// Finds the caller of a request by its head.
    pub(crate) fn credential(
        &self,
        auth: &RouteAuth,
        head: &request::Parts,
        peer: Option<IpAddr>,
    ) -> Result<Credential, CallRefusal> {
        let wrong = || Err(self.wrong_credential(peer, AccessRefusal::Wrong));
        if let Some(value) = single(&head.headers, &HeaderName::from_static(SIGNATURE_HEADER)) {
            let parsed = value.and_then(RequestSignature::parse);
            let source = parsed.as_ref().and_then(|signature| auth.hmac.get(&signature.caller));
            let (Some(signature), Some(source)) = (parsed, source) else { return wrong() };
            if !signature.is_fresh(clock::now_ms() / 1_000) {
                return Err(CallRefusal::Stale);
            }
            let key = self.keys.shared(source).map_err(|_| CallRefusal::Unavailable)?;
            let target = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
            return Ok(Credential::Signed(SignedRequest { signature, key, method: head.method.to_string(), target }));
        }
        let Some(value) = single(&head.headers, &AUTHORIZATION) else {
            return Err(CallRefusal::Credential(AccessRefusal::Missing));
        };
        let Some(token) = value.and_then(bearer_token) else { return wrong() };
        if let Some(name) = auth.declared_caller(&TokenDigest::of(token)) {
            return Ok(Credential::Known(Some(CallerIdentity::token(name))));
        }
        if !auth.tokens.is_empty() {
            match self.tokens.find(token, clock::now_ms()) {
                Ok(identity) if auth.names(&identity.name) => {
                    return Ok(Credential::Known(Some(CallerIdentity::token(&identity.name))));
                }
                Err(TokenRefusal::Expired(name)) if auth.names(&name) => {
                    return Err(self.wrong_credential(peer, AccessRefusal::Expired(name)));
                }
                Ok(_) | Err(_) => {}
            }
        }
        if let Some(spec) = &auth.jwt {
            let set = self.keys.set(&spec.jwks).map_err(|_| CallRefusal::Unavailable)?;
            if let Some(caller) = set.check(token, spec) {
                return Ok(Credential::Known(Some(caller)));
            }
        }
        wrong()
    }

    /// Checks the signature of a request, and returns its caller.
    pub(crate) fn check_signature(
        &self,
        signed: &SignedRequest,
        body: &[u8],
        peer: Option<IpAddr>,
    ) -> Result<CallerIdentity, CallRefusal> {
        let SignedRequest { signature, key, method, target } = signed;
        let digest = TokenDigest::from_bytes(Sha256::digest(body).into());
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key may have any length");
        mac.update(signed_text(method, target, signature.time, &digest).as_bytes());
        // In constant time: the time of a comparison must not tell how much of a guess was right.
        if mac.verify_slice(&signature.mac).is_err() {
            return Err(self.wrong_credential(peer, AccessRefusal::Wrong));
        }
        Ok(CallerIdentity::hmac(&signature.caller))
    }

    /// Counts a wrong credential, and returns the refusal.
    fn wrong_credential(&self, peer: Option<IpAddr>, refusal: AccessRefusal) -> CallRefusal {
        CallRefusal::Credential(self.count_wrong(peer).err().unwrap_or(refusal))
    }
}

/// Reads the keys of a route, and returns why some of them cannot be read. Paths start from the folder of the
/// declaration.
pub(crate) fn unread_keys(declaration: &Path, auth: &RouteAuth) -> Vec<String> {
    let keys = KeyFiles::new(declaration);
    let shared = auth.hmac.iter().filter_map(|(caller, source)| {
        let why = keys.shared(source).err()?;
        Some(format!("http.auth.hmac.{caller}: {why}"))
    });
    let sets = auth.jwt.iter().filter_map(|spec| {
        let why = keys.set(&spec.jwks).err()?;
        Some(format!("http.auth.jwt.jwks: {why}"))
    });
    shared.chain(sets).collect()
}

/// Logs which keys of routes cannot be read: their callers would be the first to notice.
pub(crate) fn log_unread_keys(desired: &Desired, declaration: &Path) {
    for (name, agent) in &desired.agents {
        for route in &agent.http {
            for why in route.auth.iter().flat_map(|auth| unread_keys(declaration, auth)) {
                let route = route.pattern.as_str();
                tracing::error!(
                    "agents.{name}.{why}; callers of {route} whose key this is are refused until it can be read"
                );
            }
        }
    }
}

/// Returns the value of a header that may be there once; `Some(None)` if it is there twice or is no text.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Option<&'h str>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    // Of two, a proxy before the host may have checked the other.
    Some(if values.next().is_some() { None } else { first.to_str().ok() })
}

/// Returns the token of an `authorization` header.
pub(crate) fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    // The scheme is case-insensitive (RFC 9110, section 11.1).
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
