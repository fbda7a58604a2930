//! Components that were changed in a few bytes, through the whole of the host: the scan, the process that validates and
//! compiles, and for those that come through it an instance.

use std::fmt::Write as _;
use std::fs;

use caxton_tests::guest;

use super::Siege;
use crate::file;
use crate::mutation::{Case, mutate};

/// The number of components, fewer than inputs of other kinds: each starts a process.
const COMPONENTS: u64 = 40;

#[test]
fn changed_components_are_refused_or_run() {
    let mut siege = Siege::start("");
    let guests: Vec<Vec<u8>> =
        ["echo", "rogue-web", "counter"].map(|name| fs::read(guest(name)).expect("a built guest")).into();
    let mut toml = fs::read_to_string(siege.host.folder().join("caxton.toml")).expect("the file");
    for number in 0..COMPONENTS {
        let (_case, mut chance) = Case::begin("changed component", number);
        let guest = chance.pick(&guests);
        let bytes = mutate(&mut chance, guest, &[b"\xff\xff\xff\xff\x0f", b"\0", b"\x7f", b"\x0b"]);
        fs::write(siege.host.folder().join(format!("c{number}.wasm")), bytes).expect("it can be written");
        let limits = "limits = { cpu = \"300ms\", time = \"10s\" }";
        let _ = write!(toml, "\n[agents.c{number}]\ncomponent = \"c{number}.wasm\"\n{limits}\n");
    }
    siege.host.edit(&toml);
    let mut ran = 0;
    for number in 0..COMPONENTS {
        let name = format!("c{number}");
        siege.host.until(&format!("an end of {name}"), |host| {
            let status = host.api().get(&format!("/v1/agents/{name}"));
            let state = status.status.is_success().then(|| status.json()["state"].clone())?;
            ran += u64::from(state == "running");
            (state == "running" || state == "failed").then_some(())
        });
    }
    println!("{ran} of {COMPONENTS} changed components run");
    assert!(ran < COMPONENTS, "none was changed so that it matters");
    siege.host.edit(&file("[agents.echo]\ncomponent = \"GUEST(echo)\"\n[[agents.echo.http]]\nroute = \"/echo\"\n"));
    siege.host.until_agent("echo", "it is alone", |status| status["state"] == "running");
    siege.check();
}
