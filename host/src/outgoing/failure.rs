//! The conversion of errors of the client to those of the standard.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};

use crate::bounds;
use crate::message::HttpCallError;

/// Finds the first error of a type in a chain of sources. What an [`io::Error`] wraps is no source of it, and is looked at
/// all the same.
fn find<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
        next = match inner {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// Returns the error of a call without a response, or of a connection.
pub(super) fn of_call(error: &(dyn Error + 'static)) -> HttpCallError {
    if let Some(own) = find::<HttpCallError>(error) {
        return own.clone();
    }
    if let Some(error) = find::<rustls::Error>(error) {
        return of_tls(error);
    }
    if let Some(error) = find::<hyper::Error>(error) {
        return of_hyper(error);
    }
    if let Some(error) = find::<io::Error>(error) {
        return of_io(error);
    }
    HttpCallError::Protocol(told(error))
}

/// Returns the error of a connection that speaks HTTP.
pub(super) fn of_hyper(error: &hyper::Error) -> HttpCallError {
    // The body of a request is the guest's, and its error the reason of this one.
    if let Some(own) = error.source().and_then(find::<HttpCallError>) {
        return own.clone();
    }
    if let Some(io) = error.source().and_then(find::<io::Error>) {
        return of_io(io);
    }
    if error.is_incomplete_message() {
        return HttpCallError::Incomplete;
    }
    if error.is_parse_too_large() {
        return HttpCallError::HeadTooLarge;
    }
    if error.is_canceled() || error.is_closed() {
        return HttpCallError::ConnectionTerminated;
    }
    HttpCallError::Protocol(told(error))
}

fn of_io(error: &io::Error) -> HttpCallError {
    match error.kind() {
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected => HttpCallError::ConnectionTerminated,
        // A body that ends in the middle, with TLS as well.
        io::ErrorKind::UnexpectedEof => HttpCallError::Incomplete,
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => HttpCallError::Protocol(told(error)),
        _ => HttpCallError::Unreachable(told(error)),
    }
}

fn of_tls(error: &rustls::Error) -> HttpCallError {
    match error {
        rustls::Error::InvalidCertificate(reason) => HttpCallError::Certificate(of_certificate(reason)),
        rustls::Error::AlertReceived(alert) => HttpCallError::TlsAlert(u8::from(*alert), alert_name(*alert)),
        other => HttpCallError::Tls(told(other)),
    }
}

fn of_certificate(reason: &CertificateError) -> String {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not valid yet".to_owned(),
        CertificateError::UnknownIssuer => {
            "its issuer is unknown; `outgoing.ca` names files with others to trust".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name".to_owned()
        }
        CertificateError::Revoked => "it was revoked".to_owned(),
        other => told(other),
    }
}

fn alert_name(alert: AlertDescription) -> String {
    bounds::cut(format!("{alert:?}"), MAX_REASON)
}

/// The characters of a reason. A server may choose some of them.
const MAX_REASON: usize = 200;

fn told(error: &(impl std::fmt::Display + ?Sized)) -> String {
    bounds::cut(error.to_string(), MAX_REASON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_found_in_chains() {
        let certificate = |reason| {
            let inner = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::InvalidCertificate(reason));
            io::Error::other(inner)
        };
        for (error, expected) in [
            (certificate(CertificateError::Expired), "TLS-certificate-error"),
            (certificate(CertificateError::UnknownIssuer), "TLS-certificate-error"),
            (io::Error::other(rustls::Error::HandshakeNotComplete), "TLS-protocol-error"),
            (io::Error::other(HttpCallError::AddressProhibited), "destination-IP-prohibited"),
            (io::Error::from(io::ErrorKind::ConnectionReset), "connection-terminated"),
            (io::Error::from(io::ErrorKind::UnexpectedEof), "HTTP-response-incomplete"),
        ] {
            assert_eq!(of_call(&error).code(), expected, "{error:?}");
        }
    }
}
