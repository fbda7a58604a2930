//! Tests of the artefact cache: trusted artefacts are used, others compiled anew.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::guests::{Guest, counts, handles};
use super::{Bench, ProgramError, call, spec};

fn files(bench: &Bench, extension: &str) -> Vec<PathBuf> {
    let folder = fs::read_dir(bench.folder.path().join("cache")).unwrap();
    let paths = folder.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

/// Modifies a file that is read-only.
fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

async fn compiles(bench: &Bench, bytes: &[u8]) -> bool {
    let (program, compiled) = bench.load(bytes, false).await.unwrap();
    assert_eq!(call(&bench.pool_of(program, spec())).await.unwrap(), [1], "what was loaded works");
    compiled
}

#[tokio::test(flavor = "multi_thread")]
async fn components_are_compiled_once() {
    let bench = Bench::new();
    assert!(compiles(&bench, &counts()).await);
    assert!(!compiles(&bench, &counts()).await);
    let bench = bench.again();
    assert!(!compiles(&bench, &counts()).await, "also after a restart");
    let (_, compiled) = bench.load(&counts(), true).await.unwrap();
    assert!(compiled, "counting fuel is other code");
    assert_eq!((files(&bench, "cwasm").len(), files(&bench, "seal").len()), (2, 2));
    assert!(files(&bench, "tmp").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_loads_compile_once() {
    let bench = Bench::new();
    let (bytes, compiled) = (counts(), AtomicU32::new(0));
    let path = bench.folder.path().join("guest.wasm");
    fs::write(&path, &bytes).unwrap();
    let load = |_| {
        let heard = |_| _ = compiled.fetch_add(1, Ordering::Relaxed);
        bench.runtime.program(&path, super::digest(&bytes), false, heard)
    };
    let programs = futures::future::join_all((0..8).map(load)).await;
    assert!(programs.iter().all(|program| Arc::ptr_eq(program.as_ref().unwrap(), programs[0].as_ref().unwrap())));
    assert_eq!(compiled.into_inner(), 1);
}

/// A modification of a file.
type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);

#[tokio::test(flavor = "multi_thread")]
async fn modified_artefacts_are_compiled_anew() {
    let flip = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    let damages: [(&str, &str, Damage); 6] = [
        ("a changed artefact", "cwasm", &flip),
        ("a changed seal", "seal", &flip),
        ("a truncated artefact", "cwasm", &|bytes| bytes.truncate(100)),
        ("an empty artefact", "cwasm", &Vec::clear),
        ("an artefact with more behind it", "cwasm", &|bytes| bytes.push(0)),
        ("an empty seal", "seal", &Vec::clear),
    ];
    let mut bench = Bench::new();
    assert!(compiles(&bench, &counts()).await);
    for (name, extension, damage) in damages {
        change(&files(&bench, extension)[0], damage);
        bench = bench.again();
        assert!(compiles(&bench, &counts()).await, "{name}");
        bench = bench.again();
        assert!(!compiles(&bench, &counts()).await, "{name}: what was made anew is good");
    }
    fs::remove_file(&files(&bench, "seal")[0]).unwrap();
    bench = bench.again();
    assert!(compiles(&bench, &counts()).await, "no seal");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artefact_that_is_cut_while_it_is_loaded_ends_no_process() {
    let bench = Bench::new();
    let (program, _) = bench.load(&counts(), false).await.unwrap();
    let artefact = &files(&bench, "cwasm")[0];
    // In place: a file of another name would leave the old one to whoever has mapped it.
    fs::set_permissions(artefact, fs::Permissions::from_mode(0o600)).unwrap();
    fs::File::options().write(true).open(artefact).unwrap().set_len(0).unwrap();
    assert_eq!(call(&bench.pool_of(program, spec())).await.unwrap(), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artefact_cannot_stand_in_for_another() {
    let (bench, other) = (Bench::new(), handles("(call $reply (i32.const 600) (i32.const 1))"));
    assert!(compiles(&bench, &counts()).await);
    let [artefact, seal] = ["cwasm", "seal"].map(|extension| files(&bench, extension).remove(0));
    bench.load(&other, false).await.unwrap();
    for (from, extension) in [(artefact, "cwasm"), (seal, "seal")] {
        let others = files(&bench, extension).into_iter().find(|path| *path != from).unwrap();
        change(&others, |bytes| *bytes = fs::read(from).unwrap());
    }
    let bench = bench.again();
    let (_, compiled) = bench.load(&other, false).await.unwrap();
    assert!(compiled);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_and_the_key_are_private() {
    let bench = Bench::new();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = bench.folder.path().join("cache");
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&folder.join("key")), 0o400);
    assert!(compiles(&bench, &counts()).await);
    assert_eq!(mode(&files(&bench, "cwasm")[0]), 0o400);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    // A truncated key is replaced, and with it everything that it sealed.
    change(&folder.join("key"), |key| key.truncate(7));
    let bench = bench.again();
    assert_eq!(mode(&folder), 0o700);
    assert!(compiles(&bench, &counts()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_compiler_are_reported() {
    let shell = |script: &str| -> Vec<OsString> { ["/bin/sh", "-c", script].map(OsString::from).to_vec() };
    for (compiler, says) in [
        (shell("echo first >&2; echo no luck >&2; exit 3"), "compiling the component: no luck"),
        (shell("exit 3"), "compiling the component: the compiler ended with exit status: 3"),
        (shell("kill -9 $$"), "compiling the component: the compiler ended with signal: 9 (SIGKILL)"),
        (
            vec!["/nowhere/caxton".into()],
            "compiling the component: /nowhere/caxton did not start: No such file or directory (os error 2)",
        ),
    ] {
        let bench = Bench::with(tempfile::tempdir().unwrap(), 2, compiler);
        let error = bench.load(&counts(), false).await.err().expect("it cannot be compiled");
        assert_eq!(error.to_string(), says);
        assert!(files(&bench, "cwasm").is_empty() && files(&bench, "tmp").is_empty(), "nothing is left behind");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_is_validated_by_the_process_that_compiles_it() {
    let mut guest = Guest { more: "(func (result i32) i32.const 77)", ..Guest::default() }.build();
    let constant = [0x41, 0xcd, 0x00];
    let at = guest.windows(3).position(|bytes| bytes == constant).expect("the constant is there");
    // Three instructions that do nothing: what would be the result is missing.
    guest[at..at + 3].fill(0x01);
    let compiler = ["/bin/sh", "-c", "exit 3"].map(OsString::from).to_vec();
    let bench = Bench::with(tempfile::tempdir().unwrap(), 2, compiler);
    let error = bench.load(&guest, false).await.err().expect("it is not compiled");
    assert_eq!(error.to_string(), "compiling the component: the compiler ended with exit status: 3");
    let error = Bench::new().load(&guest, false).await.err().expect("a function does not give what it says");
    assert!(matches!(error, ProgramError::Findings(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compilation_that_is_not_wanted_any_more_ends_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("compiler");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec tail -f /dev/null", note.display());
    let compiler = ["/bin/sh".into(), "-c".into(), script.into()].to_vec();
    let bench = Bench::with(folder, 2, compiler);
    let number = async {
        loop {
            if let Ok(number) = fs::read_to_string(&note) {
                return number.trim().to_owned();
            }
            tokio::task::yield_now().await;
        }
    };
    let guest = counts();
    // As where an agent is removed while it is prepared.
    let number = tokio::select! {
        number = number => number,
        _ = bench.load(&guest, false) => panic!("it never ends by itself"),
    };
    let runs = || fs::read_to_string(format!("/proc/{number}/cmdline")).is_ok_and(|line| line.contains("tail"));
    while runs() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn components_too_large_for_the_pool_are_refused() {
    let bench = Bench::new();
    let guest = Guest { more: "(table 70000 funcref)", ..Guest::default() }.build();
    let error = bench.load(&guest, false).await.err().expect("the table is too large");
    let text = error.to_string();
    assert!(text.contains("70000") && text.contains("65536"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_with_another_digest_are_refused() {
    let bench = Bench::new();
    let path = bench.folder.path().join("guest.wasm");
    fs::write(&path, b"something else").unwrap();
    let result = bench.runtime.program(&path, super::digest(&counts()), false, |_| {}).await;
    assert!(matches!(result, Err(ProgramError::Changed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn used_artefacts_are_not_evicted() {
    let bench = Bench::new();
    assert!(compiles(&bench, &counts()).await);
    bench.load(&counts(), true).await.unwrap();
    let (other, _) = bench.load(&handles("(call $reply (i32.const 8) (i32.const 0))"), false).await.unwrap();
    let used = [super::digest(&counts())].into();
    bench.runtime.remove_unused(&used, true);
    assert_eq!(files(&bench, "cwasm").len(), 3, "both kinds of what is asked for, and what is in use");
    drop(other);
    bench.runtime.remove_unused(&used, false);
    assert_eq!((files(&bench, "cwasm").len(), files(&bench, "seal").len()), (2, 2));
    let bench = bench.again();
    bench.runtime.remove_unused(&used, true);
    assert!(!compiles(&bench, &counts()).await);
    assert!(!bench.load(&counts(), true).await.unwrap().1);
    bench.runtime.remove_unused(&[].into(), true);
    assert!(files(&bench, "cwasm").is_empty());
}
