//! `caxton wit`: the contract with agents, as compiled into this program.

use serde_json::{Map, json};

use super::args::WitArgs;
use super::options::Format;
use super::output::{CliError, Out, count, say};

/// The files of the folder `wit`.
const FILES: [(&str, &str); 5] = [
    ("agent.wit", include_str!("../../../wit/agent.wit")),
    ("deps/wasi-config/store.wit", include_str!("../../../wit/deps/wasi-config/store.wit")),
    ("deps/wasi-config/world.wit", include_str!("../../../wit/deps/wasi-config/world.wit")),
    ("deps/wasi-logging/logging.wit", include_str!("../../../wit/deps/wasi-logging/logging.wit")),
    ("deps/wasi-logging/world.wit", include_str!("../../../wit/deps/wasi-logging/world.wit")),
];

/// Prints the contract, or writes it to a folder.
pub(super) fn run(wit: &WitArgs, out: &mut Out) -> Result<(), CliError> {
    if let Some(folder) = &wit.out {
        for (name, text) in FILES {
            let path = folder.join(name);
            let parent = path.parent().unwrap_or(folder);
            let write = || std::fs::create_dir_all(parent).and_then(|()| std::fs::write(&path, text));
            write().map_err(|error| anyhow::anyhow!("writing {}: {error}", path.display()))?;
        }
        if out.format() == Format::Json {
            let names: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
            return out.json(&json!({ "folder": folder.to_string_lossy(), "files": names }));
        }
        say(&format!("the contract is in {}: {}", folder.display(), count(FILES.len(), "file")));
        return Ok(());
    }
    // The contract itself is the first file.
    let wanted = || FILES.iter().take(if wit.deps { FILES.len() } else { 1 });
    match out.format() {
        Format::Json => {
            let files: Map<String, serde_json::Value> =
                wanted().map(|(name, text)| ((*name).to_owned(), (*text).into())).collect();
            out.json(&json!({ "package": "caxton:agent@0.1.0", "files": files }))
        }
        Format::Text if wit.deps => wanted().try_for_each(|(name, text)| out.line(&format!("// {name}\n{text}"))),
        Format::Text => out.bytes(FILES[0].1.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn files(root: &Path, folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(root, &path, found);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn the_whole_contract_is_in_the_program() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
        let mut found = BTreeSet::new();
        files(&root, &root, &mut found);
        assert_eq!(found, FILES.iter().map(|(name, _)| (*name).to_owned()).collect());
    }

    #[test]
    fn the_written_folder_parses() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("wit");
        run(&WitArgs { deps: false, out: Some(out.clone()) }, &mut Out::new(Format::Text)).unwrap();
        let mut resolve = wit_parser::Resolve::default();
        let (package, _) = resolve.push_dir(&out).unwrap();
        assert_eq!(resolve.packages[package].name.to_string(), "caxton:agent@0.1.0");
    }
}
