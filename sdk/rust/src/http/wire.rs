//! The conversion of calls to and from the resources of `wasi:http`.

use std::io;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, Method, OutgoingBody, OutgoingRequest as WasiRequest,
    RequestOptions, Scheme, http_error_code,
};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

use super::{CallError, IncomingResponse, OutgoingRequest, PendingResponse, Upload, parts};

/// The most bytes that one call of the host reads.
const READ: u64 = 64 << 10;

/// Begins a call. Returns a writer for what is left to be sent of its body.
pub(super) fn begin(
    request: &OutgoingRequest,
    upload: Upload,
) -> Result<(PendingResponse, Option<BodyWriter>), CallError> {
    let invalid = || CallError::new("HTTP-request-URI-invalid");
    let (scheme, authority, path) = parts(&request.url).ok_or_else(invalid)?;
    let head = WasiRequest::new(fields(request, upload)?);
    head.set_method(&method(&request.method)).map_err(|()| CallError::new("HTTP-request-method-invalid"))?;
    let scheme = match scheme {
        "http" | "HTTP" => Scheme::Http,
        "https" | "HTTPS" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    head.set_scheme(Some(&scheme)).map_err(|()| invalid())?;
    head.set_authority(Some(authority)).map_err(|()| invalid())?;
    head.set_path_with_query(Some(&path)).map_err(|()| invalid())?;
    // Taken before the request is handed over, after which there is no way to it.
    let mut writer = match upload {
        Upload::Nothing => None,
        Upload::Whole | Upload::Parts => {
            Some(BodyWriter::of(head.body().map_err(|()| CallError::new("internal-error"))?)?)
        }
    };
    // Before the call begins, so that head and body leave in one packet.
    if upload == Upload::Whole
        && let Some(mut whole) = writer.take()
    {
        match whole.write_at_once(&request.body) {
            true => whole.end(&[])?,
            false => writer = Some(whole),
        }
    }
    let future = outgoing_handler::handle(head, options(request)).map_err(of_code)?;
    Ok((PendingResponse(Pending(future)), writer))
}

/// Returns the headers of a request.
fn fields(request: &OutgoingRequest, upload: Upload) -> Result<Fields, CallError> {
    let mut all: Vec<(String, Vec<u8>)> =
        request.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
    // Given by the caller already, it is that one which counts.
    if upload == Upload::Whole && !request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        all.push((String::from("content-length"), request.body.len().to_string().into_bytes()));
    }
    // One call of the host, which does not say which header is wrong.
    Fields::from_list(&all).map_err(|error| {
        let wrong = all.iter().find(|(name, value)| Fields::new().append(name, value).is_err());
        let name = wrong.map_or("", |(name, _)| name.as_str());
        CallError { code: "HTTP-request-header-size", detail: Some(format!("the header {name:?}: {error:?}")) }
    })
}

/// Returns the timeouts of a request, if it has any.
fn options(request: &OutgoingRequest) -> Option<RequestOptions> {
    let times = [request.connect_timeout, request.first_byte_timeout, request.between_bytes_timeout];
    if times.iter().all(Option::is_none) {
        return None;
    }
    let options = RequestOptions::new();
    let nanoseconds =
        |time: Option<std::time::Duration>| time.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    // A host that has no such timeout says so here, and keeps its own.
    let _ = options.set_connect_timeout(nanoseconds(request.connect_timeout));
    let _ = options.set_first_byte_timeout(nanoseconds(request.first_byte_timeout));
    let _ = options.set_between_bytes_timeout(nanoseconds(request.between_bytes_timeout));
    Some(options)
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "CONNECT" => Method::Connect,
        "OPTIONS" => Method::Options,
        "TRACE" => Method::Trace,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

/// A body that is written. A drop without [`end`](Self::end) breaks the request off.
pub(in crate::http) struct BodyWriter {
    // Before the body, of which it is a part: parts are dropped first.
    stream: Option<OutputStream>,
    body: Option<OutgoingBody>,
}

impl BodyWriter {
    /// Takes the stream of a body, to which nothing was written yet.
    pub(in crate::http) fn of(body: OutgoingBody) -> Result<Self, CallError> {
        let stream = body.write().map_err(|()| CallError::new("internal-error"))?;
        Ok(Self { stream: Some(stream), body: Some(body) })
    }

    pub(in crate::http) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(stream) = &self.stream else { return Err(io::ErrorKind::BrokenPipe.into()) };
        if bytes.is_empty() {
            return Ok(0);
        }
        // As much as the host takes at once, and not the 4 KiB of the calls that wait: each call has its cost.
        let most = loop {
            match stream.check_write().map_err(of_stream)? {
                0 => stream.subscribe().block(),
                most => break usize::try_from(most).unwrap_or(usize::MAX),
            }
        };
        let part = &bytes[..bytes.len().min(most)];
        stream.write(part).map_err(of_stream)?;
        Ok(part.len())
    }

    /// Writes all of it without a wait, if the host takes as much at present. Nothing reads the body before the call begins.
    fn write_at_once(&mut self, bytes: &[u8]) -> bool {
        let Some(stream) = &self.stream else { return false };
        stream.check_write().is_ok_and(|most| most >= bytes.len() as u64) && stream.write(bytes).is_ok()
    }

    pub(in crate::http) fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.write(bytes)?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    pub(in crate::http) fn flush(&mut self) -> io::Result<()> {
        match &self.stream {
            Some(stream) => stream.blocking_flush().map_err(of_stream),
            None => Ok(()),
        }
    }

    pub(in crate::http) fn end(mut self, trailers: &[(&str, &str)]) -> Result<(), CallError> {
        drop(self.stream.take());
        let Some(body) = self.body.take() else { return Ok(()) };
        let mut fields = None;
        for (name, value) in trailers {
            let fields = fields.get_or_insert_with(Fields::new);
            fields
                .append(name, value.as_bytes())
                .map_err(|error| CallError { code: "HTTP-request-trailer-size", detail: Some(format!("{error:?}")) })?;
        }
        OutgoingBody::finish(body, fields).map_err(of_code)
    }
}

/// A call that waits for its response.
pub(super) struct Pending(FutureIncomingResponse);

impl Pending {
    pub(super) fn wait(self) -> Result<IncomingResponse, CallError> {
        let response = loop {
            match self.0.get() {
                Some(Ok(response)) => break response.map_err(of_code)?,
                Some(Err(())) => return Err(CallError::new("internal-error")),
                None => self.0.subscribe().block(),
            }
        };
        let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
        let headers = response.headers().entries().into_iter().map(|(name, value)| (name, text(value))).collect();
        let status = response.status();
        let body = response.consume().map_err(|()| CallError::new("internal-error"))?;
        Ok(IncomingResponse { status, headers, body: BodyReader::of(body)? })
    }
}

/// A body that is read.
pub(in crate::http) struct BodyReader {
    // Before the body, of which it is a part: parts are dropped first.
    stream: Option<InputStream>,
    body: IncomingBody,
    /// The bytes that were read and not taken yet.
    left: Vec<u8>,
    at: usize,
}

impl BodyReader {
    /// Takes the stream of a body, of which nothing was read yet.
    pub(in crate::http) fn of(body: IncomingBody) -> Result<Self, CallError> {
        let stream = body.stream().map_err(|()| CallError::new("internal-error"))?;
        Ok(Self { stream: Some(stream), body, left: Vec::new(), at: 0 })
    }

    pub(in crate::http) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        while self.at == self.left.len() {
            let Some(stream) = &self.stream else { return Ok(0) };
            match stream.blocking_read(READ) {
                // Nothing came, and there may be more.
                Ok(bytes) => (self.left, self.at) = (bytes, 0),
                Err(StreamError::Closed) => self.stream = None,
                Err(error) => {
                    self.stream = None;
                    return Err(of_stream(error));
                }
            }
        }
        let taken = into.len().min(self.left.len() - self.at);
        into[..taken].copy_from_slice(&self.left[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }

    pub(in crate::http) fn trailers(mut self) -> Result<Vec<(String, String)>, CallError> {
        let mut rest = [0; 4_096];
        while self.read(&mut rest).map_err(CallError::of_io)? > 0 {}
        drop(self.stream.take());
        let future = IncomingBody::finish(self.body);
        let trailers = loop {
            match future.get() {
                Some(Ok(trailers)) => break trailers.map_err(of_code)?,
                Some(Err(())) => return Err(CallError::new("internal-error")),
                None => future.subscribe().block(),
            }
        };
        let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
        let entries = trailers.map(|fields| fields.entries()).unwrap_or_default();
        Ok(entries.into_iter().map(|(name, value)| (name, text(value))).collect())
    }
}

fn of_stream(error: StreamError) -> io::Error {
    match error {
        StreamError::Closed => io::ErrorKind::BrokenPipe.into(),
        StreamError::LastOperationFailed(error) => io::Error::other(match http_error_code(&error) {
            Some(code) => of_code(code),
            None => CallError { code: "internal-error", detail: Some(error.to_debug_string()) },
        }),
    }
}

fn of_code(code: ErrorCode) -> CallError {
    let (code, detail) = match code {
        ErrorCode::DnsTimeout => ("DNS-timeout", None),
        ErrorCode::DnsError(payload) => ("DNS-error", payload.rcode),
        ErrorCode::DestinationNotFound => ("destination-not-found", None),
        ErrorCode::DestinationUnavailable => ("destination-unavailable", None),
        ErrorCode::DestinationIpProhibited => ("destination-IP-prohibited", None),
        ErrorCode::DestinationIpUnroutable => ("destination-IP-unroutable", None),
        ErrorCode::ConnectionRefused => ("connection-refused", None),
        ErrorCode::ConnectionTerminated => ("connection-terminated", None),
        ErrorCode::ConnectionTimeout => ("connection-timeout", None),
        ErrorCode::ConnectionReadTimeout => ("connection-read-timeout", None),
        ErrorCode::ConnectionWriteTimeout => ("connection-write-timeout", None),
        ErrorCode::ConnectionLimitReached => ("connection-limit-reached", None),
        ErrorCode::TlsProtocolError => ("TLS-protocol-error", None),
        ErrorCode::TlsCertificateError => ("TLS-certificate-error", None),
        ErrorCode::TlsAlertReceived(payload) => ("TLS-alert-received", payload.alert_message),
        ErrorCode::HttpRequestDenied => ("HTTP-request-denied", None),
        ErrorCode::HttpRequestLengthRequired => ("HTTP-request-length-required", None),
        ErrorCode::HttpRequestBodySize(most) => ("HTTP-request-body-size", most.map(|most| most.to_string())),
        ErrorCode::HttpRequestMethodInvalid => ("HTTP-request-method-invalid", None),
        ErrorCode::HttpRequestUriInvalid => ("HTTP-request-URI-invalid", None),
        ErrorCode::HttpRequestUriTooLong => ("HTTP-request-URI-too-long", None),
        ErrorCode::HttpRequestHeaderSectionSize(most) => {
            ("HTTP-request-header-section-size", most.map(|most| most.to_string()))
        }
        ErrorCode::HttpRequestHeaderSize(field) => {
            ("HTTP-request-header-size", field.and_then(|field| field.field_name))
        }
        ErrorCode::HttpRequestTrailerSectionSize(most) => {
            ("HTTP-request-trailer-section-size", most.map(|most| most.to_string()))
        }
        ErrorCode::HttpRequestTrailerSize(field) => ("HTTP-request-trailer-size", field.field_name),
        ErrorCode::HttpResponseIncomplete => ("HTTP-response-incomplete", None),
        ErrorCode::HttpResponseHeaderSectionSize(most) => {
            ("HTTP-response-header-section-size", most.map(|most| most.to_string()))
        }
        ErrorCode::HttpResponseHeaderSize(field) => ("HTTP-response-header-size", field.field_name),
        ErrorCode::HttpResponseBodySize(most) => ("HTTP-response-body-size", most.map(|most| most.to_string())),
        ErrorCode::HttpResponseTrailerSectionSize(most) => {
            ("HTTP-response-trailer-section-size", most.map(|most| most.to_string()))
        }
        ErrorCode::HttpResponseTrailerSize(field) => ("HTTP-response-trailer-size", field.field_name),
        ErrorCode::HttpResponseTransferCoding(coding) => ("HTTP-response-transfer-coding", coding),
        ErrorCode::HttpResponseContentCoding(coding) => ("HTTP-response-content-coding", coding),
        ErrorCode::HttpResponseTimeout => ("HTTP-response-timeout", None),
        ErrorCode::HttpUpgradeFailed => ("HTTP-upgrade-failed", None),
        ErrorCode::HttpProtocolError => ("HTTP-protocol-error", None),
        ErrorCode::LoopDetected => ("loop-detected", None),
        ErrorCode::ConfigurationError => ("configuration-error", None),
        ErrorCode::InternalError(detail) => ("internal-error", detail),
    };
    CallError { code, detail }
}
