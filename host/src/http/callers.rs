//! The callers of a route: their credentials and their rate, and the header by which an agent knows them.

use std::net::IpAddr;
use std::sync::Arc;

use caxton_control::access::rate::peer_network;
use caxton_control::access::{CALLER_HEADER, CallerIdentity, SIGNATURE_HEADER};
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::request;

use super::connection::ConnectionContext;
use super::rates::RateKey;
use crate::access::{AccessRefusal, CallRefusal, Credential};
use crate::directory::routes::RouteGuard;
use crate::problem::Problem;

/// The header by which an agent knows its caller.
const CALLER: HeaderName = HeaderName::from_static(CALLER_HEADER);

/// A request on a route, with what is known of its caller.
pub(super) struct RouteCaller {
    guard: Option<Arc<RouteGuard>>,
    credential: Credential,
    peer: Option<IpAddr>,
}

impl RouteCaller {
    /// Looks at the head of a request. A caller that is known by it is counted under its rate. Removes from the head what
    /// no agent may see: the credentials that the host has checked, and a caller's claim to be somebody.
    pub(super) fn admit(
        connection: &ConnectionContext,
        guard: Option<Arc<RouteGuard>>,
        head: &mut request::Parts,
    ) -> Result<Self, Problem> {
        head.headers.remove(CALLER);
        let peer = connection.activity.peer();
        let Some(guarded) = &guard else {
            return Ok(Self { guard, credential: Credential::Known(None), peer });
        };
        let credential = match &guarded.auth {
            None => Credential::Known(None),
            Some(auth) => {
                let access = &connection.listener.access;
                let credential = access.credential(auth, head, peer).map_err(|refusal| refused(&refusal))?;
                head.headers.remove(AUTHORIZATION);
                head.headers.remove(SIGNATURE_HEADER);
                credential
            }
        };
        let caller = Self { guard, credential, peer };
        if let Credential::Known(identity) = &caller.credential {
            caller.take_rate(connection, identity.as_ref())?;
        }
        Ok(caller)
    }

    /// Returns `true` if the caller is known only once the whole body is.
    pub(super) fn needs_body(&self) -> bool {
        matches!(self.credential, Credential::Signed(_))
    }

    /// Returns the caller, after the whole body was read if [`needs_body`](Self::needs_body).
    pub(super) fn identify(
        self,
        connection: &ConnectionContext,
        body: &[u8],
    ) -> Result<Option<CallerIdentity>, Problem> {
        let access = &connection.listener.access;
        let signed = match &self.credential {
            Credential::Known(identity) => return Ok(identity.clone()),
            Credential::Signed(signed) => signed,
        };
        let caller = access.check_signature(signed, body, self.peer).map_err(|refusal| refused(&refusal))?;
        // Only now: a caller that is merely claimed must not use up the rate of the real one.
        self.take_rate(connection, Some(&caller))?;
        Ok(Some(caller))
    }

    fn take_rate(&self, connection: &ConnectionContext, identity: Option<&CallerIdentity>) -> Result<(), Problem> {
        let Some(guard) = &self.guard else { return Ok(()) };
        let key = identity
            .map_or_else(|| RateKey::Peer(self.peer.map(peer_network)), |identity| RateKey::Identity(identity.clone()));
        let now = connection.listener.access.now();
        connection.listener.rates.take(guard, key, now).map_err(|wait| {
            let detail = "too many requests came from this caller; wait a moment";
            Problem::of_code("too-many-requests").with_detail(detail).with_retry_after(wait)
        })
    }
}

/// Returns the header by which an agent knows its caller.
pub(super) fn caller_header(caller: Option<&CallerIdentity>) -> Option<(HeaderName, HeaderValue)> {
    let value = HeaderValue::from_str(caller?.as_str()).expect("identities are printable ASCII");
    Some((CALLER, value))
}

/// Returns the problem of a caller that is turned away. It does not tell which part of a credential was wrong.
fn refused(refusal: &CallRefusal) -> Problem {
    let unauthorised = |detail: &'static str| {
        // Required with 401 (RFC 9110, section 11.6.1).
        let challenge = HeaderValue::from_static("Bearer, Caxton-Signature");
        Problem::of_code("unauthorised").with_detail(detail).with_header(WWW_AUTHENTICATE, challenge)
    };
    match refusal {
        CallRefusal::Credential(AccessRefusal::Missing) => {
            unauthorised("the route needs a credential, and none was given")
        }
        CallRefusal::Credential(AccessRefusal::Wrong | AccessRefusal::Expired(_)) => {
            unauthorised("the credential is not one of this route, or has expired")
        }
        CallRefusal::Stale => unauthorised("the time of the signature is more than five minutes from the host's"),
        CallRefusal::Credential(AccessRefusal::TooMany(wait)) => Problem::of_code("too-many-requests")
            .with_detail("too many wrong credentials came from this address; wait a moment")
            .with_retry_after(*wait),
        CallRefusal::Unavailable => Problem::of_code("keys-unavailable"),
    }
}
