//! The listeners of a host: where they listen, with which TLS, and what they allow their clients.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::cors::Cors;

/// The table `[http]`: the listener for calls of agents, and its limits for clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HttpSpec {
    /// Address and port; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Connections open at once; further ones wait to be accepted.
    pub max_connections: u32,
    /// The largest head of a request, in bytes.
    pub max_head_bytes: u64,
    /// The largest body of a request to an HTTP agent, in bytes. Message agents have `limits.message`.
    pub max_body_bytes: u64,
    /// The time for a client to send the head of a request.
    #[serde(with = "crate::units::serde_duration")]
    pub head_timeout: Duration,
    /// The longest pause of a client while it sends a body or reads a response.
    #[serde(with = "crate::units::serde_duration")]
    pub stall_timeout: Duration,
    /// The time after which a connection without a request is closed.
    #[serde(with = "crate::units::serde_duration")]
    pub idle_timeout: Duration,
    /// The bytes that are held of a request to an HTTP agent before it is called, and of its response while the client
    /// takes it.
    pub buffer_bytes: u64,
    /// The callers that see the error inside a failed agent.
    pub details: ErrorDetails,
    /// The host names that requests may be for; an empty set means all. See [`crate::hosts`].
    pub hosts: BTreeSet<String>,
    /// TLS at the listener; `None` for plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
    /// The access of pages from other origins.
    pub cors: Cors,
}

/// The table `tls` of a listener: files in PEM form, relative to the folder of the declaration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TlsSpec {
    /// The certificate, followed by those between it and its root.
    pub cert: String,
    /// The private key of the certificate.
    pub key: String,
    /// The certificates of those that issue certificates to clients. With `None`, clients need no certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<String>,
}

/// The setting `http.details`: the callers that see the error inside a failed agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorDetails {
    /// Callers on this machine whose requests came through no proxy.
    Loopback,
    /// Shows it to all callers.
    Always,
    /// Shows it to no caller.
    Never,
}

/// The table `[admin]`: the listener of the management API, metrics and probes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdminSpec {
    /// Address and port, beyond the loopback interface only with TLS; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// TLS at the listener; `None` for plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
    /// The most bytes of the audit log.
    pub audit_max_bytes: u64,
}

/// The table `[probes]`: a listener for probes and metrics only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProbesSpec {
    /// Address and port; port 0 lets the system choose. With `None`, probes and metrics are only at the listener of the
    /// management API.
    pub listen: Option<SocketAddr>,
}
