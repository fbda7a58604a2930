//! The functions that take bytes from outside, in the one form that fuzz targets have.
//!
//! Compiled for the targets in `fuzz/`, which ask for it by the feature `fuzzing`, and for the test that runs each over its
//! corpus. Nothing here is a part of the program.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use caxton_control::access::{RequestSignature, TokenDigest};
use caxton_control::cron::Cron;
use caxton_control::desired::Limits;
use caxton_control::hosts::{is_host_pattern, serves};
use caxton_control::mailbox::Priority;
use caxton_control::route::RoutePattern;
use caxton_control::template::Template;
use caxton_control::units::{parse_bytes, parse_duration, parse_percent};
use caxton_control::{Performative, Receiver};

use crate::message::{Delivery, Draft};
use crate::{access, agent, config, http, store, wasm};

/// A function that takes any bytes and panics over none.
pub type FuzzTarget = fn(&[u8]);

/// The targets, by the names of their folders in `fuzz/corpus`.
pub const TARGETS: [(&str, FuzzTarget); 7] = [
    ("component", component),
    ("config", config_text),
    ("credential", credential),
    ("cron", cron),
    ("draft", draft),
    ("record", record),
    ("route", route),
];

/// Inspects a component.
pub fn component(bytes: &[u8]) {
    wasm::is_cut(bytes);
    if let Err(findings) = wasm::outline(bytes) {
        assert!(!findings.is_empty(), "refused without a finding");
    }
    let _ = wasm::summarise(bytes);
}

/// Reads a configuration.
pub fn config_text(bytes: &[u8]) {
    config::examine::examine(&String::from_utf8_lossy(bytes));
}

/// Reads the credentials of a request.
pub fn credential(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    access::examine_token(&text);
    TokenDigest::parse(&text);
    if let Some(signature) = RequestSignature::parse(&text) {
        signature.is_fresh(0);
    }
}

/// Parses a cron pattern and other short texts of the file.
pub fn cron(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = Cron::from_str(&text);
    let _ = parse_bytes(&text);
    let _ = parse_duration(&text);
    let _ = parse_percent(&text);
}

/// Checks a draft whose fields are the lines of a text.
pub fn draft(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n').map(str::to_owned);
    let mut next = || lines.next().unwrap_or_default();
    let mut some = || Some(next()).filter(|line| line != "-");
    let receiver = some().unwrap_or_default();
    let draft = Draft {
        performative: some().and_then(|line| line.parse::<Performative>().ok()).unwrap_or(Performative::Request),
        content_type: some().unwrap_or_default(),
        ontology: some(),
        protocol: some(),
        conversation_id: some(),
        reply_with: some(),
        in_reply_to: some(),
        reply_by: some().and_then(|line| line.parse().ok()),
        delivery: some().and_then(|line| line.parse().ok()).map_or(Delivery::Now, Delivery::AfterMs),
        priority: Priority::Normal,
        headers: std::iter::from_fn(|| Some((some()?, some().unwrap_or_default())))
            .take_while(|(name, value)| !(name.is_empty() && value.is_empty()))
            .collect(),
        content: bytes.to_vec(),
        receiver,
    };
    let _ = Receiver::from_str(&draft.receiver);
    let _ = agent::draft::check_draft(&draft, &Limits::default());
    let _ = agent::draft::timer_name(&draft);
    let _ = agent::draft::due(draft.delivery);
}

/// Reads a record of a commit; one that can be read is written to the same bytes.
pub fn record(bytes: &[u8]) {
    store::examine_record(bytes);
}

/// Parses a route and a template, and compares a path with the route: a line for each.
pub fn route(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (pattern, template, path, host) = (next(), next(), next(), next());
    if is_host_pattern(host) {
        serves(&BTreeSet::from([host.to_owned()]), path);
    }
    let path = http::plain_path(path);
    assert_eq!(http::plain_path(&path), path, "the plain form of a path is plain");
    let Ok(route) = RoutePattern::from_str(pattern) else { return };
    let _ = Template::parse(template, &route);
    let mut router = matchit::Router::new();
    router.insert(route.shape(), ()).expect("the shape of a route is one of the router's");
    let began = std::time::Instant::now();
    let _ = router.at(&path);
    // Far longer than a path of this size takes on any machine.
    assert!(began.elapsed() < Duration::from_secs(5), "matching took {:?}", began.elapsed());
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::mutation::{Case, mutate};

    /// Inputs that are made of each corpus: the kinds with tests of their own have more.
    const MUTATIONS: u64 = 1_000;

    #[test]
    fn corpora_of_the_fuzz_targets_and_what_is_made_of_them_pass() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for (name, target) in TARGETS {
            let paths = fs::read_dir(corpus.join(name)).unwrap().map(|entry| entry.unwrap().path());
            let mut paths: Vec<_> = paths.collect();
            paths.sort();
            let inputs: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
            assert!(!inputs.is_empty(), "{name} has no corpus");
            inputs.iter().for_each(|input| target(input));
            let words: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).filter(|input| input.len() < 64).collect();
            for number in 0..MUTATIONS {
                let (_case, mut chance) = Case::begin(name, number);
                let input = chance.pick(&inputs);
                target(&mutate(&mut chance, input, &words));
            }
        }
    }

    #[test]
    fn each_target_has_its_program() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        for (name, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name} is not in fuzz/Cargo.toml");
            assert!(folder.join(format!("targets/{name}.rs")).is_file(), "{name} has no file in fuzz/targets");
        }
    }
}
