//! The calls over HTTP that guests make: what the engine passes to the host, and what it gets back.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// A body of a call, in either direction. It is passed on as it comes.
pub(crate) type CallBody = UnsyncBoxBody<Bytes, HttpCallError>;

/// A call that a guest makes.
pub(crate) struct GuestHttpCall {
    /// The request, with an absolute URI.
    pub(crate) request: http::Request<CallBody>,
    /// The timeouts that the guest asks for.
    pub(crate) timeouts: CallTimeouts,
    /// The calls of the same message.
    pub(crate) scope: Arc<CallScope>,
}

/// The timeouts that a guest asks for. They shorten those of the host.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CallTimeouts {
    pub(crate) connect: Option<Duration>,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) between_bytes: Option<Duration>,
}

/// The calls over HTTP and the connections of one message. They end with it, also those that the guest has left open.
#[derive(Default)]
pub(crate) struct CallScope {
    made: AtomicU32,
    connected: AtomicU32,
    ended: CancellationToken,
    /// The responses that are open. Held weakly: one that the guest has read or dropped is gone.
    // Locked for each call and at the end of the message, never across a wait.
    open: Mutex<Vec<Weak<dyn OpenResponse>>>,
}

/// A response that a guest has not read to its end, a request that is still being sent, or a connection.
pub(crate) trait OpenResponse: Send + Sync {
    /// Gives the connection up.
    fn close(&self);
}

impl CallScope {
    /// Counts a call. Returns `false` if it would be more than `most`.
    pub(crate) fn admit(&self, most: u32) -> bool {
        self.made.fetch_add(1, Ordering::Relaxed) < most
    }

    /// Counts a connection. Returns `false` if it would be more than `most`.
    pub(crate) fn admit_connection(&self, most: u32) -> bool {
        self.connected.fetch_add(1, Ordering::Relaxed) < most
    }

    /// Adds a response, which is closed with the message.
    pub(crate) fn add(&self, response: Weak<dyn OpenResponse>) {
        let mut open = self.open.lock();
        // Now and then, so that a message with many calls keeps no list of all of them.
        if open.len() == open.capacity() {
            open.retain(|response| response.strong_count() > 0);
        }
        open.push(response);
        drop(open);
        // The message may have ended while the head of the response came.
        if self.is_ended() {
            self.end();
        }
    }

    /// Ends all calls.
    pub(crate) fn end(&self) {
        self.ended.cancel();
        let open = std::mem::take(&mut *self.open.lock());
        open.iter().filter_map(Weak::upgrade).for_each(|response| response.close());
    }

    /// Returns `true` once the message has ended.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Waits for the end of the message.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl Drop for CallScope {
    fn drop(&mut self) {
        self.end();
    }
}

/// The reason why a call fails, as the standard has it (`wasi:http/types.error-code`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HttpCallError {
    /// A call that no grant covers.
    #[error("the call is not allowed")]
    Denied,
    /// The address of the server is one that the grant does not cover.
    #[error("the address is not allowed")]
    AddressProhibited,
    /// The name was not resolved in time.
    #[error("the name was not resolved in time")]
    DnsTimeout,
    /// The name has no address.
    #[error("the name has no address: {0}")]
    Dns(String),
    /// The server refuses connections.
    #[error("the connection was refused")]
    ConnectionRefused,
    /// A connection that was not made in time.
    #[error("no connection was made in time")]
    ConnectionTimeout,
    /// A server to which there is no way.
    #[error("no connection was made: {0}")]
    Unreachable(String),
    /// The connection ended.
    #[error("the connection ended")]
    ConnectionTerminated,
    /// The server sends nothing.
    #[error("the server sent nothing in time")]
    ReadTimeout,
    /// The server takes nothing.
    #[error("the server took nothing in time")]
    WriteTimeout,
    /// A bound on calls is reached.
    #[error("there are too many calls")]
    TooManyCalls,
    /// The certificate of the server is not trusted.
    #[error("the certificate is not trusted: {0}")]
    Certificate(String),
    /// The server ended the handshake of TLS.
    #[error("the server sent the alert {1} of TLS")]
    TlsAlert(u8, String),
    /// The handshake of TLS failed.
    #[error("the handshake of TLS failed: {0}")]
    Tls(String),
    /// The method is none that a call may have.
    #[error("no call may have the method")]
    MethodInvalid,
    /// The URL is none that a call may have.
    #[error("the URL is not valid")]
    UriInvalid,
    /// The body of the request is larger than the bound.
    #[error("the request is larger than {0} bytes")]
    RequestTooLarge(u64),
    /// The body of the response is larger than the bound.
    #[error("the response is larger than {0} bytes")]
    ResponseTooLarge(u64),
    /// The head of the response is larger than the bound.
    #[error("the head of the response is too large")]
    HeadTooLarge,
    /// The response ends in the middle.
    #[error("the response ends in the middle")]
    Incomplete,
    /// The message ended, or its time did.
    #[error("the time of the message is over")]
    TimeOver,
    /// A response, or a request of the guest, that is not valid HTTP.
    #[error("it is no valid HTTP: {0}")]
    Protocol(String),
    /// A limit of the budget would be passed; the text names it.
    #[error("{0}")]
    OverBudget(String),
    /// A setting cannot be used, such as a secret without a value.
    #[error("{0}")]
    Configuration(String),
}

impl HttpCallError {
    /// Returns the code in the standard, by which logs, events and metrics name the error.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Denied => "HTTP-request-denied",
            Self::AddressProhibited => "destination-IP-prohibited",
            Self::DnsTimeout => "DNS-timeout",
            Self::Dns(_) => "DNS-error",
            Self::ConnectionRefused => "connection-refused",
            Self::ConnectionTimeout => "connection-timeout",
            Self::Unreachable(_) => "destination-unavailable",
            Self::ConnectionTerminated => "connection-terminated",
            Self::ReadTimeout => "connection-read-timeout",
            Self::WriteTimeout => "connection-write-timeout",
            Self::TooManyCalls => "connection-limit-reached",
            Self::Certificate(_) => "TLS-certificate-error",
            Self::TlsAlert(..) => "TLS-alert-received",
            Self::Tls(_) => "TLS-protocol-error",
            Self::MethodInvalid => "HTTP-request-method-invalid",
            Self::UriInvalid => "HTTP-request-URI-invalid",
            Self::RequestTooLarge(_) => "HTTP-request-body-size",
            Self::ResponseTooLarge(_) => "HTTP-response-body-size",
            Self::HeadTooLarge => "HTTP-response-header-section-size",
            Self::Incomplete => "HTTP-response-incomplete",
            Self::TimeOver => "HTTP-response-timeout",
            Self::Protocol(_) => "HTTP-protocol-error",
            Self::OverBudget(_) => "budget-exceeded",
            Self::Configuration(_) => "configuration-error",
        }
    }

    /// Returns `true` if nothing of the request has left the host.
    pub(crate) fn is_before_sending(&self) -> bool {
        matches!(
            self,
            Self::Denied
                | Self::AddressProhibited
                | Self::DnsTimeout
                | Self::Dns(_)
                | Self::ConnectionRefused
                | Self::ConnectionTimeout
                | Self::Unreachable(_)
                | Self::TooManyCalls
                | Self::Certificate(_)
                | Self::TlsAlert(..)
                | Self::Tls(_)
                | Self::MethodInvalid
                | Self::UriInvalid
        )
    }

    /// Returns `true` if the host refused the call, and `false` if the call was made and failed.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Denied
                | Self::AddressProhibited
                | Self::TooManyCalls
                | Self::MethodInvalid
                | Self::UriInvalid
                | Self::RequestTooLarge(_)
                | Self::ResponseTooLarge(_)
                | Self::OverBudget(_)
                | Self::Configuration(_)
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[derive(Default)]
    struct Opened(AtomicBool);

    impl OpenResponse for Opened {
        fn close(&self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn responses_close_with_their_message() {
        let (before, after) = (Arc::<Opened>::default(), Arc::<Opened>::default());
        let weak = |response: &Arc<Opened>| Arc::downgrade(response) as Weak<dyn OpenResponse>;
        let scope = CallScope::default();
        assert!(scope.admit(2) && scope.admit(2) && !scope.admit(2));
        scope.add(weak(&before));
        assert!(!before.0.load(Ordering::SeqCst));
        scope.end();
        assert!(before.0.load(Ordering::SeqCst));
        scope.add(weak(&after));
        assert!(after.0.load(Ordering::SeqCst), "the head came after the end of the message");
    }

    #[test]
    fn responses_that_are_gone_are_forgotten() {
        let scope = CallScope::default();
        for _ in 0..1_000 {
            scope.add(Arc::downgrade(&Arc::<Opened>::default()) as Weak<dyn OpenResponse>);
        }
        assert!(scope.open.lock().capacity() < 100);
    }
}
