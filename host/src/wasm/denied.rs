//! Denied accesses of guests: refused where they occur, and logged once with the setting that would allow them.
//!
//! A guest gets an error, or an empty result for variables and folders, and its language runtime may hide either. The
//! line in the log tells its author what is in the way.

use std::sync::atomic::{AtomicU8, Ordering};

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::cli::WasiCliView;
use wasmtime_wasi::p2::bindings::cli::environment::Host as _;
use wasmtime_wasi::p2::bindings::filesystem::types::Descriptor;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::ResolveAddressStream;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, Network};
use wasmtime_wasi::p2::bindings::sockets::tcp::TcpSocket;
use wasmtime_wasi::p2::bindings::sockets::udp::UdpSocket;
use wasmtime_wasi_http::{Error as WasiHttpError, RequestOptions, WasiBody, WasiHttpHooks};

use super::guest::{Ctx, Identity, LogLevel, Outside};

/// The version of WASI that the host defines. A guest may use any 0.2.
pub(super) const WASI: &str = "0.2.12";

/// The longest part of a guest's text that is logged, in characters.
const MAX_SHOWN: usize = 200;

/// A kind of access that can be denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Files,
    Name,
    Tcp,
    Udp,
    Environment,
}

/// The kinds that were logged already, as bits. One line for each kind and revision, regardless of the number of
/// instances and accesses.
#[derive(Debug, Default)]
pub(crate) struct Denied(AtomicU8);

impl Denied {
    /// Returns `true` for the first denial of a kind.
    fn is_first(&self, kind: Kind) -> bool {
        // The load in front keeps repeated denials from contending for the cache line.
        let bit = 1 << kind as u8;
        self.0.load(Ordering::Relaxed) & bit == 0 && self.0.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

/// Logs the first denial of a kind to the agent's log.
fn log_once(who: &Identity, outside: &dyn Outside, kind: Kind, text: impl FnOnce() -> String) {
    if who.denied.is_first(kind) {
        outside.log(who, LogLevel::Warn, "caxton", &text());
    }
}

impl Ctx {
    fn deny(&self, kind: Kind, text: impl FnOnce() -> String) {
        log_once(&self.who, self.outside(), kind, text);
    }
}

/// Returns a guest's text, cut and escaped for the log.
fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect::<String>().escape_debug().to_string()
}

/// Replaces functions of WASI by ones that log denials. Called after the originals are defined.
pub(super) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    // The originals are defined already, and defining them again is an error otherwise.
    linker.allow_shadowing(true);
    let mut interface = linker.instance(&format!("wasi:cli/environment@{WASI}"))?;
    interface.func_wrap("get-environment", |mut store: StoreContextMut<'_, Ctx>, (): ()| {
        let seen = store.data_mut().cli().get_environment()?;
        store.data().log_environment(&seen);
        Ok((seen,))
    })?;
    let mut interface = linker.instance(&format!("wasi:filesystem/preopens@{WASI}"))?;
    interface.func_wrap("get-directories", |store: StoreContextMut<'_, Ctx>, (): ()| {
        store.data().deny(Kind::Files, || {
            "it asked for files and sees none: no folder can be granted by this version (`allow.files` is known and not \
             implemented); keep data with `caxton:agent/state`, or build it into the component"
                .to_owned()
        });
        Ok((Vec::<(Resource<Descriptor>, String)>::new(),))
    })?;
    let mut interface = linker.instance(&format!("wasi:sockets/ip-name-lookup@{WASI}"))?;
    interface.func_wrap(
        "resolve-addresses",
        |store: StoreContextMut<'_, Ctx>, (_, name): (Resource<Network>, String)| {
            store.data().deny(Kind::Name, || {
                format!(
                    "it asked for the address of `{}`, which was denied: no setting of this version allows names to be \
                     resolved",
                    shown(&name)
                )
            });
            Ok((Err::<Resource<ResolveAddressStream>, _>(ErrorCode::PermanentResolverFailure),))
        },
    )?;
    let mut interface = linker.instance(&format!("wasi:sockets/tcp-create-socket@{WASI}"))?;
    interface.func_wrap("create-tcp-socket", |store: StoreContextMut<'_, Ctx>, (_,): (IpAddressFamily,)| {
        store.data().deny(Kind::Tcp, || denied_socket("TCP"));
        Ok((Err::<Resource<TcpSocket>, _>(ErrorCode::AccessDenied),))
    })?;
    let mut interface = linker.instance(&format!("wasi:sockets/udp-create-socket@{WASI}"))?;
    interface.func_wrap("create-udp-socket", |store: StoreContextMut<'_, Ctx>, (_,): (IpAddressFamily,)| {
        store.data().deny(Kind::Udp, || denied_socket("UDP"));
        Ok((Err::<Resource<UdpSocket>, _>(ErrorCode::AccessDenied),))
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

fn denied_socket(kind: &str) -> String {
    format!("it asked for a {kind} socket, which was denied: no setting of this version allows sockets")
}

impl Ctx {
    /// Logs what a guest that reads its environment gets. WASI passes all variables at once, so that the one it looks
    /// for is unknown.
    fn log_environment(&self, seen: &[(String, String)]) {
        let granted = &self.who.spec.allow.env;
        let missing: Vec<&str> =
            granted.iter().map(String::as_str).filter(|name| !seen.iter().any(|(seen, _)| seen == name)).collect();
        if granted.is_empty() {
            self.deny(Kind::Environment, || {
                "it read its environment variables and sees none: `allow.env` lists those of the host that it sees"
                    .to_owned()
            });
        } else if !missing.is_empty() {
            self.deny(Kind::Environment, || {
                format!(
                    "it read its environment variables, and the host does not have {} of those that `allow.env` lists",
                    missing.join(", ")
                )
            });
        } else if self.who.denied.is_first(Kind::Environment) {
            let names: Vec<&str> = granted.iter().map(String::as_str).collect();
            let text =
                format!("it read its environment variables and sees {}: `allow.env` lists no others", names.join(", "));
            self.outside().log(&self.who, LogLevel::Info, "caxton", &text);
        }
    }
}

/// The largest piece of a body that a guest writes at once. Twice as much may be queued.
const CHUNK: usize = 64 << 10;

/// Outgoing HTTP requests of guests, which are all denied in this version.
pub(super) struct Outbound {
    pub(super) who: std::sync::Arc<Identity>,
    pub(super) outside: std::sync::Arc<dyn Outside>,
}

impl WasiHttpHooks for Outbound {
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _sent: Box<dyn Future<Output = Result<(), WasiHttpError>> + Send>,
    ) -> Box<
        dyn Future<
                Output = Result<
                    (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), WasiHttpError>> + Send>),
                    WasiHttpError,
                >,
            > + Send,
    > {
        log_once(&self.who, &*self.outside, Kind::Http, || {
            format!(
                "it called `{} {}`, which was denied: no call over HTTP can be granted by this version (`allow.http` is \
                 known and not implemented)",
                request.method(),
                // The path and the query may contain secrets.
                shown(&origin(request.uri()))
            )
        });
        Box::new(std::future::ready(Err(WasiHttpError::HttpRequestDenied)))
    }
}

/// Returns scheme, host and port of an address.
fn origin(uri: &http::Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("http");
    format!("{scheme}://{}", uri.authority().map_or("", |authority| authority.as_str()))
}
