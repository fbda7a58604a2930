//! What a guest asks for and is not given: refused where it asks, and told once in its log with what would allow it.
//!
//! A guest sees an error, or nothing at all where it looks for variables or folders, and its language makes of that what
//! it likes. What the log says is for the author, who does not know what stands in the way.

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

/// The version of WASI that the host defines; a guest's may be any of 0.2.
pub(super) const WASI: &str = "0.2.12";

/// The longest part of what a guest asked for that is told, in characters.
const MAX_ASKED: usize = 200;

/// What can be denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Files,
    Name,
    Tcp,
    Udp,
    Environment,
}

/// The kinds that were told already: a bit for each. One line for an agent's revision and kind, however many instances
/// ask how often.
#[derive(Debug, Default)]
pub(crate) struct Denied(AtomicU8);

impl Denied {
    /// Whether a kind is told for the first time.
    fn is_first(&self, kind: Kind) -> bool {
        let bit = 1 << kind as u8;
        self.0.load(Ordering::Relaxed) & bit == 0 && self.0.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

/// Tells of a denial in the agent's log, unless that was done.
fn tell(who: &Identity, outside: &dyn Outside, kind: Kind, text: impl FnOnce() -> String) {
    if who.denied.is_first(kind) {
        outside.log(who, LogLevel::Warn, "caxton", &text());
    }
}

impl Ctx {
    fn deny(&self, kind: Kind, text: impl FnOnce() -> String) {
        tell(&self.who, self.outside(), kind, text);
    }
}

/// What a guest chose, as far as it is told.
fn shown(text: &str) -> String {
    text.chars().take(MAX_ASKED).collect::<String>().escape_debug().to_string()
}

/// Puts in place of WASI's own functions those that tell what they deny. To be called after those are defined.
pub(super) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut interface = linker.instance(&format!("wasi:cli/environment@{WASI}"))?;
    interface.func_wrap("get-environment", |mut store: StoreContextMut<'_, Ctx>, (): ()| {
        let seen = store.data_mut().cli().get_environment()?;
        store.data().tell_environment(&seen);
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
    /// Tells what a guest sees that reads its environment. Which variable it looks for is not known: it takes all.
    fn tell_environment(&self, seen: &[(String, String)]) {
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

/// The most that a guest writes of a body at once; twice as much waits to be taken.
const CHUNK: usize = 64 << 10;

/// Requests that guests make of others. Nothing can be granted, so everything is denied.
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
        tell(&self.who, &*self.outside, Kind::Http, || {
            format!(
                "it called `{} {}`, which was denied: no call over HTTP can be granted by this version (`allow.http` is \
                 known and not implemented)",
                request.method(),
                // Its path and query may hold secrets.
                shown(&origin(request.uri()))
            )
        });
        Box::new(std::future::ready(Err(WasiHttpError::HttpRequestDenied)))
    }
}

/// Scheme, host and port of an address.
fn origin(uri: &http::Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("http");
    format!("{scheme}://{}", uri.authority().map_or("", |authority| authority.as_str()))
}
