//! Connections of clients: binding, accepting, supervising and closing.
//!
//! ```text
//! bind -> listener: accept -> (tls) -> connection: hyper on a socket that reports reads and writes -> the face's service
//!            '-- activity: one task compares all connections with their limits, and shuts down the stalled and idle ones
//! ```
//! Both faces of the host, `http/` and `admin/`, are served here, so that both have the same protection, and TLS has one
//! place. An end of input cancels no call: a client may close its sending side once its request is sent. A
//! reset or a failed write does. A stop waits for requests whose head has arrived, and for nothing else. No timer is
//! set for a single request: that would cost more than the request on a busy listener. When places or files are short,
//! connections without a request are closed for new ones (`listener`), and some files are kept back for the rest of the
//! host (`files`).

mod activity;
mod bind;
mod body_clock;
mod client_body;
mod connection;
mod files;
mod limits;
mod listener;
mod socket;
mod tls;
mod tracking;

pub(crate) use activity::{ConnectionActivity, RequestGuard};
pub(crate) use bind::{BoundListener, bind};
pub(crate) use body_clock::{BodyClock, LateBody, TimedBody};
pub(crate) use client_body::ClientBody;
pub(crate) use files::{FileReserve, raise_limit, restore_limit};
pub(crate) use limits::ConnectionLimits;
pub(crate) use listener::serve;
pub(crate) use tls::{
    CaError, ListenerTls, TlsError, TlsFiles, TlsMaterial, ca_errors, ca_files, calls_config, fingerprint, read_ca,
};
pub(crate) use tracking::track_requests;
