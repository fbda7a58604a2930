//! The golden tests of whole files: the meaning of each, or the exact errors.
//!
//! `# env NAME=VALUE` and `# flag KEY=VALUE` at the head of a file set a variable and a flag, `# policy FILE` names the
//! operator's own file in `files/`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;

mod malformed;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("control/tests/config").join(name)
}

/// Returns the files of a folder in order of name.
fn files(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|ext| ext == "toml")).collect();
    files.sort();
    files
}

/// Returns variables in the form of the system.
fn env(variables: Vec<(String, String)>) -> impl Iterator<Item = (OsString, OsString)> {
    variables.into_iter().map(|(name, value)| (name.into(), value.into()))
}

/// Loads a file with the variables and flags of its head.
fn load_file(path: &Path) -> Result<Loaded, ConfigErrors> {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let head = |prefix: &str| -> Vec<(String, String)> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
        lines.map(|line| line.split_once('=').unwrap()).map(|(name, value)| (name.into(), value.into())).collect()
    };
    let flags = head("# flag ");
    let flags: Vec<(&str, String)> = flags.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    let operator = match text.lines().find_map(|line| line.strip_prefix("# policy ")) {
        Some(file) => load_operator(&folder("files").join(file), Path::new(file))?.operator,
        None => Operator::default(),
    };
    let mut loaded = load_within(path, env(head("# env ")), &flags, &operator)?;
    // As the start of a host does.
    loaded.file_errors.take().map_or(Ok(loaded), Err)
}

/// Compares with the golden file beside `path`, or writes it with `UPDATE_GOLDEN=1`.
fn assert_golden(path: &Path, extension: &str, actual: &str) {
    let golden = path.with_extension(extension);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, actual).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    assert!(expected == actual, "{} differs (UPDATE_GOLDEN=1 rewrites it); now:\n{actual}", golden.display());
}

#[test]
fn good_files_match_their_golden_files() {
    for path in files("good") {
        let loaded = load_file(&path).unwrap_or_else(|errors| panic!("{}:\n{errors}", path.display()));
        assert_golden(&path, "json", &format!("{}\n", serde_json::to_string_pretty(&loaded.desired).unwrap()));
        assert_eq!(loaded.dir, folder("good"));
    }
}

#[test]
fn the_file_at_the_root_loads() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../caxton.toml");
    let loaded = load(&path, std::iter::empty(), &[]).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(!loaded.desired.agents.is_empty());
}

#[test]
fn bad_files_match_their_golden_errors() {
    let mut codes = BTreeSet::new();
    for path in files("bad").into_iter().chain([folder("bad").join("missing-file.toml")]) {
        let Err(errors) = load_file(&path) else { panic!("{} has no error", path.display()) };
        let folder = format!("{}/", folder("bad").display());
        assert_golden(&path, "err", &errors.plain().replace(&folder, ""));
        assert!(errors.coloured().contains("\u{1b}["), "no colours");
        assert_eq!(errors.to_json().as_array().unwrap().len(), errors.errors().len());
        codes.extend(errors.errors().iter().map(ConfigError::code));
    }
    let untested: Vec<_> = ConfigError::CODES.iter().filter(|code| !codes.contains(*code)).collect();
    assert!(untested.is_empty(), "no bad file has {untested:?}");
}

#[test]
fn errors_as_json_name_the_line_or_the_variable() {
    let text = "caxton = 1\nstore = { \"pä\" = 1, pth = 1 }\n";
    let env = env(vec![("CAXTON_HTTP__LISTN".to_owned(), "x".to_owned())]);
    let errors = parse(text, env, &[("admin.listen", "x".to_owned())], &Operator::default()).unwrap_err();
    let json = ConfigErrors::new(Path::new("caxton.toml"), text.to_owned(), errors).to_json();
    let expected = serde_json::json!([
        {
            "code": "unknown-key", "key": "store.pä", "message": "unknown key",
            "help": "the keys here are `dead-letters`, `dead-letters-max`, `durability`, `history`, `history-max`, `path`", "file": "caxton.toml", "line": 2, "column": 11,
        },
        {
            "code": "unknown-key", "key": "store.pth", "message": "unknown key",
            "help": "did you mean `path`?", "file": "caxton.toml", "line": 2, "column": 21,
        },
        {
            "code": "unknown-key", "key": "http.listn", "message": "unknown key",
            "help": "did you mean `listen`?", "variable": "CAXTON_HTTP__LISTN",
        },
        {
            "code": "bad-address", "key": "admin.listen", "message": "`x` is not an address to listen on",
            "help": "an IP address and a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"; port 0 lets the system choose",
            "flag": "--admin",
        },
    ]);
    assert_eq!(json, expected);
}

/// Settings that a piece of a file on a page leaves to the rest of the file: the components of the agents that it
/// names, and agents for those that it sends to. Given as variables, so that errors keep their lines.
fn rest_of_the_file(text: &str) -> Vec<(String, String)> {
    let Ok(piece) = text.parse::<toml_edit::DocumentMut>() else { return Vec::new() };
    let variable = |agent: &str, key: &str| format!("CAXTON_AGENTS__{}__{key}", agent.to_uppercase().replace('-', "_"));
    let mut rest = Vec::new();
    let agents = piece.get("agents").and_then(|agents| agents.as_table_like());
    let agents: Vec<_> = agents.into_iter().flat_map(|agents| agents.iter()).collect();
    for (name, agent) in &agents {
        if agent.get("component").is_none() {
            rest.push((variable(name, "COMPONENT"), "a.wasm".to_owned()));
        }
        let sends = agent.get("allow").and_then(|allow| allow.get("send")).and_then(|send| send.as_array());
        for receiver in sends.into_iter().flatten().filter_map(|receiver| receiver.as_str()) {
            match receiver.strip_prefix("cap:") {
                None if agents.iter().any(|(known, _)| *known == receiver) => {}
                None => rest.push((variable(receiver, "COMPONENT"), "a.wasm".to_owned())),
                Some(capability) => {
                    rest.push((variable("others", "COMPONENT"), "a.wasm".to_owned()));
                    rest.push((variable("others", "CAPABILITIES"), format!("[\"{capability}\"]")));
                }
            }
        }
    }
    rest.sort();
    rest.dedup();
    rest
}

/// Checks that each block of TOML in the documentation is a file or a piece of one, unless it names another file.
#[test]
fn pieces_of_the_file_on_the_pages_are_right() {
    let (mut wrong, mut pieces) = (String::new(), 0);
    for page in &crate::pages::pages() {
        for block in page.blocks().iter().filter(|block| block.language == "toml") {
            // On the lines that they have on the page.
            let text = format!("{}{}\n", "\n".repeat(block.line - 1), block.lines.join("\n"));
            let path = Path::new(&page.path);
            if block.file.is_some() {
                if let Err(error) = text.parse::<toml_edit::DocumentMut>() {
                    wrong.push_str(&format!("{}: {error}", page.path));
                }
                continue;
            }
            pieces += 1;
            if let Err(errors) =
                parse(&text, env(rest_of_the_file(&text)), &[("caxton", "1".to_owned())], &Operator::default())
            {
                wrong.push_str(&ConfigErrors::new(path, text, errors).plain());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(pieces > 10, "the pages have {pieces} pieces of a file, or they are not found");
}

/// Returns a file with this many agents. If it is not `good`, each of them has three errors.
fn many(count: usize, good: bool) -> String {
    let (memory, name) = if good { ("memory", "agent") } else { ("memry", "agnt") };
    let agent = |n| {
        let next = (n + 1) % count;
        let route = if good { format!("/agent-{n}/{{id}}") } else { "/tickets/{id}".to_owned() };
        format!(
            "[agents.agent-{n}]\ncomponent = \"a.wasm\"\nlimits = {{ {memory} = \"32MiB\" }}\n\
             allow = {{ send = [\"{name}-{next}\"] }}\nhttp = [{{ route = \"{route}\" }}]\n"
        )
    };
    std::iter::once("caxton = 1\n".to_owned()).chain((0..count).map(agent)).collect()
}

/// Returns the CPU time of this thread for `act`, which is independent of the machine's load.
fn core_time(act: impl FnOnce()) -> f64 {
    let began = crate::clock::core_time();
    act();
    (crate::clock::core_time() - began).as_secs_f64()
}

#[test]
fn loading_time_is_linear_in_agents() {
    let load = |count: usize| {
        let env = env(vec![("CAXTON_AGENTS__AGENT_7__LIMITS__CPU".to_owned(), "2s".to_owned())]);
        let Parsed { desired, .. } = parse(&many(count, true), env, &[], &Operator::default()).unwrap();
        assert_eq!(desired.agents["agent-7"].limits.cpu, std::time::Duration::from_secs(2));
        assert_eq!(desired.agents.len(), count);
    };
    let refuse = |count: usize| {
        let bad = many(count, false);
        let errors = parse(&bad, std::iter::empty(), &[], &Operator::default()).unwrap_err();
        // The first agent with the route is right.
        let expected = 3 * count - 1;
        assert_eq!(errors.len(), expected);
        let errors = ConfigErrors::new(Path::new("caxton.toml"), bad, errors);
        let (plain, json) = (errors.plain(), errors.to_json());
        assert!(plain.ends_with(&format!("{expected} errors in caxton.toml\n")), "{}", plain.len());
        assert_eq!(json.as_array().unwrap().len(), expected);
    };
    for (what, act) in [("good", &load as &dyn Fn(usize)), ("bad", &refuse)] {
        let [few, many] = [1_000, 10_000].map(|count| core_time(|| act(count)));
        // Quadratic behaviour would take a hundred times as long.
        assert!(many < 40.0 * few, "{what}: {few:.3} s for 1,000 agents, {many:.3} s for 10,000");
    }
}

#[test]
fn no_broken_file_panics() {
    for path in files("good").into_iter().chain(files("bad")) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (at, c) in text.char_indices() {
            let after = &text[at + c.len_utf8()..];
            for broken in ["", "\"", "[", "=", "\n", "\r", "ü", "\u{0}"] {
                let text = format!("{}{broken}{after}", &text[..at]);
                if let Err(errors) = parse(&text, std::iter::empty(), &[], &Operator::default()) {
                    let errors = ConfigErrors::new(Path::new("caxton.toml"), text, errors);
                    assert!(!errors.errors().is_empty());
                    let _ = (errors.plain(), errors.to_json());
                }
            }
        }
    }
}

#[test]
fn variables_of_the_build_are_not_settings() {
    // `cargo run` passes variables of the build script to the program.
    let script = include_str!("../../build-script.rs");
    let given: Vec<_> = script.lines().filter_map(|line| line.split("rustc-env=").nth(1)).collect();
    assert!(!given.is_empty());
    assert!(given.iter().all(|name| !name.starts_with("CAXTON_")), "{given:?}");
}

/// Parses an environment with a small file. Returns the language of its agent, the warnings and the codes of errors.
fn taken(env: &[(&[u8], &[u8])]) -> (Option<String>, Vec<String>, Vec<String>) {
    use std::os::unix::ffi::OsStringExt;

    let os = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let env = env.iter().map(|(name, value)| (os(name), os(value)));
    match parse("caxton = 1\n[agents.ab]\ncomponent = \"a.wasm\"\n", env, &[], &Operator::default()) {
        Ok(Parsed { desired, warnings, .. }) => {
            (desired.agents["ab"].config.get("language").cloned(), warnings, Vec::new())
        }
        Err(errors) => (None, Vec::new(), errors.iter().map(|error| error.code().to_owned()).collect()),
    }
}

#[test]
fn variables_of_services_are_warnings_only() {
    // The names are those of Services and of their ports, with `_` for `-`.
    for service in ["CAXTON", "CAXTON_HTTP", "CAXTON_ADMIN", "CAXTON__HTTP", "CAXTON_HTTP__LISTEN", "CAXTON_AGENTS__AB"]
    {
        for port in ["TCP", "UDP", "SCTP"] {
            let url = format!("{}://10.43.0.7:8080", port.to_lowercase());
            let variables: Vec<(String, String)> = [
                ("SERVICE_HOST".to_owned(), "10.43.0.7"),
                ("SERVICE_PORT".to_owned(), "8080"),
                ("SERVICE_PORT_HTTP".to_owned(), "8080"),
                ("SERVICE_PORT_WEB_SECURE".to_owned(), "8443"),
                ("PORT".to_owned(), url.as_str()),
                (format!("PORT_8080_{port}"), &url),
                (format!("PORT_8080_{port}_PROTO"), "tcp"),
                (format!("PORT_8080_{port}_PORT"), "8080"),
                (format!("PORT_8080_{port}_ADDR"), "fd00::7"),
            ]
            .map(|(rest, value)| (format!("{service}_{rest}"), value.to_owned()))
            .into();
            let bytes: Vec<(&[u8], &[u8])> =
                variables.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            let (_, warnings, errors) = taken(&bytes);
            assert_eq!(errors, [""; 0], "{service}");
            assert_eq!(warnings.len(), 1, "{service}: {warnings:?}");
            assert!(warnings[0].contains("and 8 others") && warnings[0].contains("enableServiceLinks"), "{warnings:?}");
        }
    }
}

#[test]
fn only_names_of_settings_are_errors() {
    let none: &[&str] = &[];
    for (name, value, language, warnings, errors) in [
        (&b"CAXTON_AGENTS__AB__CONFIG__LANGUAGE"[..], &b"en"[..], Some("en"), none, none),
        (b"CAXTON_AGENTS__AB__CONFIG__LANGUAGE", b"", Some(""), none, none),
        // A setting of an agent may end like a variable of a Service.
        (b"CAXTON_AGENTS__AB__CONFIG__DB_SERVICE_HOST", b"10.0.0.1", None, none, none),
        (b"CAXTON_AGENTS__AB__CONFIG__LANGUAGE", b"caf\xe9", None, none, &["wrong-type"]),
        (b"CAXTON_HTTP__LISTEN", b"", None, &["CAXTON_HTTP__LISTEN is empty"], none),
        (b"CAXTON_DEFAULTS__LIMITS__MEMORY", b"", None, &["CAXTON_DEFAULTS__LIMITS__MEMORY is empty"], none),
        (b"CAXTON_HTTP__LISTEN", b"\xff", None, none, &["wrong-type"]),
        (b"CAXTON_HTTP__LISTN", b"", None, none, &["unknown-key"]),
        (b"CAXTON_HTTP__LISTN", b"x", None, none, &["unknown-key"]),
        (b"CAXTON_HTTP__", b"x", None, none, &["unknown-variable"]),
        (b"CAXTON_HTTP__\xff", b"x", None, none, &["unknown-variable"]),
        (b"CAXTON___X", b"x", None, none, &["unknown-variable"]),
        (b"CAXTON_DTAA", b"x", None, &["did you mean `CAXTON_DATA`"], none),
        (b"CAXTON_HTTP_LISTEN", b"x", None, &["did you mean `CAXTON_HTTP__LISTEN`"], none),
        (b"CAXTON_VERSION", b"1", None, &["CAXTON_VERSION sets nothing"], none),
        (b"CAXTON_", b"", None, &["CAXTON_ sets nothing"], none),
        (b"CAXTON_\xff", b"x", None, &["sets nothing"], none),
        (b"CAXTON_PORT", b"8080", None, &["CAXTON_PORT sets nothing"], none),
        (b"CAXTON_DATA", b"\xff", None, none, none),
        (b"CAXTON_LOG", b"", None, none, none),
        (b"caxton_http__listen", b"x", None, none, none),
        (b"CAXTON", b"x", None, none, none),
        (b"OLDNAME", b"caf\xe9", None, none, none),
        (b"\xff\xfe", b"\xff", None, none, none),
    ] {
        let shown = format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        let found = taken(&[(name, value)]);
        assert_eq!(
            (found.0.as_deref(), found.2.as_slice()),
            (language, &*errors.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>()),
            "{shown}"
        );
        assert_eq!(found.1.len(), warnings.len(), "{shown}: {:?}", found.1);
        assert!(found.1.iter().zip(warnings).all(|(found, part)| found.contains(part)), "{shown}: {:?}", found.1);
    }
}
