//! The denied accesses of guests: refused where they occur, and logged once with the setting that would allow them.
//!
//! A guest gets an error, or an empty result for variables and folders, and its language runtime may hide either. The
//! line in the log tells its author what is in the way.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::cli::WasiCliView;
use wasmtime_wasi::p2::bindings::cli::environment::Host as _;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily};
use wasmtime_wasi::p2::bindings::sockets::udp::UdpSocket;

use crate::message::LogLevel;
use crate::wasm::call::ctx::Ctx;
use crate::wasm::call::outbound::{DeniedAccess, log_once};

/// The version of WASI that the host defines. A guest may use any 0.2.
pub(in crate::wasm) const WASI: &str = "0.2.12";

impl Ctx {
    /// Logs a denial, if it is the first of its kind.
    pub(in crate::wasm) fn deny(&self, kind: DeniedAccess, text: impl FnOnce() -> String) {
        log_once(&self.denials, &self.who, self.host(), kind, text);
    }
}

/// Replaces functions of WASI by ones that log denials. Called after the originals are defined.
pub(in crate::wasm) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    // The originals are defined already, and defining them again is an error otherwise.
    linker.allow_shadowing(true);
    let mut interface = linker.instance(&format!("wasi:cli/environment@{WASI}"))?;
    interface.func_wrap("get-environment", |mut store: StoreContextMut<'_, Ctx>, (): ()| {
        // The original is called for the values, because only it knows the variables in the store's context.
        let seen = store.data_mut().cli().get_environment()?;
        store.data().log_environment(&seen);
        Ok((seen,))
    })?;
    let mut interface = linker.instance(&format!("wasi:filesystem/preopens@{WASI}"))?;
    interface.func_wrap("get-directories", |mut store: StoreContextMut<'_, Ctx>, (): ()| {
        let ctx = store.data_mut();
        if ctx.reach.folders.is_empty() {
            ctx.deny_files();
        }
        // An empty list and not a trap: language runtimes ask for folders at their start.
        Ok((ctx.granted_folders()?,))
    })?;
    let mut interface = linker.instance(&format!("wasi:sockets/udp-create-socket@{WASI}"))?;
    interface.func_wrap("create-udp-socket", |store: StoreContextMut<'_, Ctx>, (_,): (IpAddressFamily,)| {
        store.data().deny(DeniedAccess::Udp, || {
            "it asked for a UDP socket, which was denied: no setting of this version allows UDP".to_owned()
        });
        Ok((Err::<Resource<UdpSocket>, _>(ErrorCode::AccessDenied),))
    })?;
    // A second definition by mistake is an error again.
    linker.allow_shadowing(false);
    Ok(())
}

/// Renders the denial of sockets to a component of WASI 0.3.
pub(in crate::wasm) fn denied_socket(kind: &str) -> String {
    format!("it asked for a {kind} socket, which was denied: connections are granted to components of WASI 0.2 alone")
}

impl Ctx {
    /// Logs that a guest asked for folders and sees none.
    pub(in crate::wasm) fn deny_files(&self) {
        self.deny(DeniedAccess::Files, || {
            "it asked for files and sees none: `allow.files` lists the folders that it sees, and has none; data of its own \
             belongs into `caxton:agent/state`"
                .to_owned()
        });
    }

    /// Logs the variables that a guest gets when it reads its environment. WASI passes all at once, so that the one it
    /// looks for is unknown.
    pub(in crate::wasm) fn log_environment(&self, seen: &[(String, String)]) {
        let granted = &self.who.spec.allow.env;
        let missing: Vec<&str> =
            granted.iter().map(String::as_str).filter(|name| !seen.iter().any(|(seen, _)| seen == name)).collect();
        if granted.is_empty() {
            self.deny(DeniedAccess::Environment, || {
                "it read its environment variables and sees none: `allow.env` lists those of the host that it sees"
                    .to_owned()
            });
        } else if !missing.is_empty() {
            self.deny(DeniedAccess::Environment, || {
                format!(
                    "it read its environment variables, and the host does not have {} of those that `allow.env` lists",
                    missing.join(", ")
                )
            });
        } else if self.denials.is_first(DeniedAccess::Environment) {
            let names: Vec<&str> = granted.iter().map(String::as_str).collect();
            let text =
                format!("it read its environment variables and sees {}: `allow.env` lists no others", names.join(", "));
            self.host().log(&self.who, LogLevel::Info, "caxton", &text);
        }
    }
}
