//! The comparison of what a component imports with what its agent is granted.
//!
//! Nothing here refuses a component: language runtimes import more than their programs use, so what is not granted is
//! denied when it is called.

use serde::Serialize;

use crate::grant::{Grants, Supply};
use crate::place::CallPlace;
use crate::tcp_place::TcpPlace;

/// The imports of a component as its agent may use them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// The imports that it may use.
    pub granted: Vec<ImportUse>,
    /// The imports that it has and may not use.
    pub denied: Vec<ImportUse>,
    /// The grants that it has no import for, such as `allow.env LANG`.
    pub in_vain: Vec<String>,
}

/// An import with the reason why it may be used or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportUse {
    /// The name, such as `wasi:clocks/wall-clock@0.2.6`.
    pub import: String,
    /// The setting that decides, with what it says; empty for what every agent may use.
    pub by: String,
}

/// Compares imports with grants. `config` are the keys of the agent's configuration. Interfaces that have only types are in
/// neither list.
pub fn import_report<'a>(
    imports: &[String],
    allow: &Grants,
    config: impl IntoIterator<Item = &'a String>,
) -> ImportReport {
    let mut report = ImportReport::default();
    for import in imports {
        let (list, by) = match verdict(import, allow) {
            Verdict::Types => continue,
            Verdict::Granted(by) => (&mut report.granted, by),
            Verdict::Denied(by) => (&mut report.denied, by),
        };
        list.push(ImportUse { import: import.clone(), by });
    }
    report.in_vain = in_vain(imports, allow, config);
    report
}

/// Returns the verdict by a list of grants.
fn by_list(key: &str, granted: impl Iterator<Item = String>) -> Verdict {
    let granted: Vec<String> = granted.collect();
    if granted.is_empty() {
        return Verdict::Denied(format!("allow.{key} is empty"));
    }
    Verdict::Granted(format!("allow.{key} = {}", granted.join(", ")))
}

enum Verdict {
    /// There is nothing to call.
    Types,
    Granted(String),
    Denied(String),
}

fn verdict(import: &str, allow: &Grants) -> Verdict {
    let name = import.split('@').next().unwrap_or(import);
    let (package, interface) = name.split_once('/').unwrap_or((name, ""));
    let by_supply = |key: &str, supply: Supply| match supply {
        Supply::Real => Verdict::Granted(format!("allow.{key} = real")),
        Supply::Message => Verdict::Granted(format!("allow.{key} = message")),
        Supply::None => Verdict::Denied(format!("allow.{key} = none")),
    };
    match (package, interface) {
        // Those of WASI are of 0.3, where they are apart from the functions.
        ("caxton:agent" | "wasmcloud:messaging" | "wasi:cli" | "wasi:clocks", "types") => Verdict::Types,
        ("wasmcloud:messaging", "consumer") if allow.send.is_empty() => {
            Verdict::Denied("allow.send is empty: only replies".to_owned())
        }
        ("caxton:agent", "messaging") if allow.send.is_empty() => {
            Verdict::Granted("allow.send is empty: only timers to itself".to_owned())
        }
        ("caxton:agent", "messaging") | ("wasmcloud:messaging", "consumer") => {
            let receivers: Vec<String> = allow.send.iter().map(ToString::to_string).collect();
            Verdict::Granted(format!("allow.send = {}", receivers.join(", ")))
        }
        ("wasi:cli", "environment") if allow.env.is_empty() => Verdict::Denied("allow.env is empty".to_owned()),
        ("wasi:cli", "environment") => {
            let names: Vec<&str> = allow.env.iter().map(String::as_str).collect();
            Verdict::Granted(format!("allow.env = {}", names.join(", ")))
        }
        ("wasi:clocks", _) => by_supply("clock", allow.clock),
        ("wasi:random", _) => by_supply("random", allow.random),
        // Of WASI 0.3, folders and connections are not offered.
        ("wasi:filesystem" | "wasi:sockets", _) if import.contains("@0.3.") => {
            Verdict::Denied("granted to components of WASI 0.2 alone".to_owned())
        }
        ("wasi:filesystem", _) => by_list("files", allow.files.iter().map(ToString::to_string)),
        ("wasi:sockets", "udp" | "udp-create-socket") => Verdict::Denied("no datagram can be granted".to_owned()),
        ("wasi:sockets", _) => by_list("tcp", allow.tcp.iter().map(TcpPlace::to)),
        // The second is that of WASI 0.3.
        ("wasi:http", "outgoing-handler" | "client") if allow.http.is_empty() => {
            Verdict::Denied("allow.http is empty".to_owned())
        }
        ("wasi:http", "outgoing-handler" | "client") => {
            let places: Vec<String> = allow.http.iter().map(CallPlace::url).collect();
            Verdict::Granted(format!("allow.http = {}", places.join(", ")))
        }
        _ => Verdict::Granted(String::new()),
    }
}

fn in_vain<'a>(imports: &[String], allow: &Grants, config: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let imports_any = |prefix: &str| imports.iter().any(|import| import.starts_with(prefix));
    let mut grants = Vec::new();
    if !imports_any("caxton:agent/messaging@") && !imports_any("wasmcloud:messaging/consumer@") {
        grants.extend(allow.send.iter().map(|receiver| format!("allow.send {receiver}")));
    }
    if !imports_any("wasi:cli/environment@") {
        grants.extend(allow.env.iter().map(|name| format!("allow.env {name}")));
    }
    if !imports_any("wasi:http/outgoing-handler@") && !imports_any("wasi:http/client@") {
        grants.extend(allow.http.iter().map(|place| format!("allow.http {}", place.url())));
    }
    if !imports_any("wasi:sockets/tcp@") {
        grants.extend(allow.tcp.iter().map(|place| format!("allow.tcp {}", place.to())));
    }
    // Without it a component is given no folder to begin with.
    if !imports_any("wasi:filesystem/preopens@") {
        grants.extend(allow.files.iter().map(|folder| format!("allow.files {}", folder.name())));
    }
    if allow.clock != Supply::Real && !imports_any("wasi:clocks/") {
        grants.push("allow.clock".to_owned());
    }
    if allow.random != Supply::Real && !imports_any("wasi:random/") {
        grants.push("allow.random".to_owned());
    }
    if !imports_any("wasi:config/") && !imports_any("fermyon:spin/variables@") {
        grants.extend(config.into_iter().map(|key| format!("config.{key}")));
    }
    grants
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::FolderGrant;
    use crate::place::PlaceUrl;

    fn place() -> CallPlace {
        CallPlace::new(PlaceUrl::parse("https://api.example.com/v1/*").unwrap(), [].into(), [].into(), false).unwrap()
    }

    #[test]
    fn imports_are_granted_denied_or_only_types() {
        let nothing = Grants::default;
        let much = || Grants {
            send: ["desk".parse().unwrap()].into(),
            env: ["LANG".to_owned()].into(),
            clock: Supply::Message,
            random: Supply::None,
            http: [place()].into(),
            tcp: [TcpPlace::new("db.example:5432", false).unwrap()].into(),
            files: [FolderGrant::new("data".to_owned(), None, true).unwrap()].into(),
        };
        // import, grants, granted, by
        for (import, allow, granted, by) in [
            ("caxton:agent/state@0.1.0", nothing(), true, ""),
            ("caxton:agent/messaging@0.1.0", nothing(), true, "allow.send is empty: only timers to itself"),
            ("caxton:agent/messaging@0.1.0", much(), true, "allow.send = desk"),
            ("wasmcloud:messaging/consumer@0.2.0", nothing(), false, "allow.send is empty: only replies"),
            ("wasmcloud:messaging/consumer@0.2.0", much(), true, "allow.send = desk"),
            ("fermyon:spin/key-value@2.0.0", nothing(), true, ""),
            ("wasi:cli/environment@0.2.6", nothing(), false, "allow.env is empty"),
            ("wasi:cli/environment@0.2.6", much(), true, "allow.env = LANG"),
            ("wasi:cli/stdout@0.2.6", nothing(), true, ""),
            ("wasi:clocks/wall-clock@0.2.6", nothing(), true, "allow.clock = real"),
            ("wasi:clocks/wall-clock@0.2.6", much(), true, "allow.clock = message"),
            ("wasi:random/random@0.2.6", much(), false, "allow.random = none"),
            ("wasi:filesystem/preopens@0.2.6", nothing(), false, "allow.files is empty"),
            ("wasi:filesystem/preopens@0.2.6", much(), true, "allow.files = /data (write)"),
            ("wasi:sockets/tcp@0.2.6", nothing(), false, "allow.tcp is empty"),
            ("wasi:sockets/tcp@0.2.6", much(), true, "allow.tcp = db.example:5432"),
            ("wasi:sockets/udp@0.2.6", much(), false, "no datagram can be granted"),
            ("wasi:http/outgoing-handler@0.2.6", nothing(), false, "allow.http is empty"),
            ("wasi:http/outgoing-handler@0.2.6", much(), true, "allow.http = https://api.example.com/v1/*"),
            ("wasi:http/client@0.3.0", nothing(), false, "allow.http is empty"),
            ("wasi:http/client@0.3.0", much(), true, "allow.http = https://api.example.com/v1/*"),
            ("wasi:http/types@0.2.6", nothing(), true, ""),
        ] {
            let report = import_report(&[import.to_owned()], &allow, []);
            let expected = vec![ImportUse { import: import.to_owned(), by: by.to_owned() }];
            let (yes, no) = if granted { (expected, Vec::new()) } else { (Vec::new(), expected) };
            assert_eq!((report.granted, report.denied), (yes, no), "{import}");
        }
        for types in ["caxton:agent/types@0.1.0", "wasi:clocks/types@0.3.0"] {
            assert_eq!(import_report(&[types.to_owned()], &nothing(), []), ImportReport::default());
        }
    }

    #[test]
    fn grants_without_an_import_are_in_vain() {
        let allow = Grants {
            send: ["desk".parse().unwrap()].into(),
            env: ["LANG", "TZ"].map(str::to_owned).into(),
            clock: Supply::None,
            random: Supply::Message,
            http: [place()].into(),
            tcp: [TcpPlace::new("db.example:5432", false).unwrap()].into(),
            files: [FolderGrant::new("data".to_owned(), None, true).unwrap()].into(),
        };
        let config = ["mood".to_owned()];
        let all = [
            "allow.send desk",
            "allow.env LANG",
            "allow.env TZ",
            "allow.http https://api.example.com/v1/*",
            "allow.tcp db.example:5432",
            "allow.files /data",
            "allow.clock",
            "allow.random",
            "config.mood",
        ];
        assert_eq!(import_report(&[], &allow, &config).in_vain, all);
        let imports = [
            "caxton:agent/messaging@0.1.0",
            "wasi:cli/environment@0.2.6",
            "wasi:http/outgoing-handler@0.2.6",
            "wasi:sockets/tcp@0.2.6",
            "wasi:filesystem/preopens@0.2.6",
            "wasi:clocks/monotonic-clock@0.2.6",
            "wasi:random/insecure-seed@0.2.6",
            "wasi:config/store@0.2.0-rc.1",
        ];
        assert_eq!(import_report(&imports.map(str::to_owned), &allow, &config).in_vain, [""; 0]);
        let others = ["wasmcloud:messaging/consumer@0.2.0", "fermyon:spin/variables@2.0.0"].map(str::to_owned);
        assert_eq!(import_report(&others, &allow, &config).in_vain, all[1..8]);
        let imports = imports.map(|import| import.replace("outgoing-handler@0.2.6", "client@0.3.0"));
        assert_eq!(import_report(&imports, &allow, &config).in_vain, [""; 0]);
    }
}
