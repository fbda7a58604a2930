//! `caxton check`: checks the declaration and the components that it names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use caxton_control::config::json_schema;
use caxton_control::inspection::{Finding, ImportReport, ImportUse, InspectionStage, import_report, in_order};
use caxton_control::policy::{ComponentFacts, Policy};
use caxton_control::rollout::check_memory;
use caxton_control::{AgentSpec, Digest};
use serde::Serialize;
use serde_json::json;

use super::args::CheckArgs;
use super::check_notes::notes;
use super::formats::Ledgers;
use super::options::Format;
use super::output::{Cell, CliError, Exit, Out, Style, Table, count, say};
use super::time::size;
use super::up::config_errors;
use crate::access::unread_keys;
use crate::config::{self, ConfigErrors, Loaded};
use crate::reconcile::watcher::{ExcludedFiles, Pattern, WatchSet, no_match_warning};
use crate::reconcile::{check_settings, check_signatures, memory_finding, route_text, signature_path};
use crate::wasm::{Kind, MAX_COMPONENT, Summary, digest, imports_and_exports, summarise};

/// The code of a problem with the key of a caller, without which an agent runs.
const KEY: &str = "key";

/// An agent with the result of its check.
#[derive(Debug, Serialize)]
struct Checked {
    agent: String,
    /// `None` if the component cannot be used.
    kind: Option<Kind>,
    component: String,
    /// The size of the component in bytes.
    size: Option<u64>,
    routes: Vec<String>,
    /// The imports and what is granted of them; `None` if the component cannot be used.
    #[serde(flatten)]
    imports: Option<ImportReport>,
    findings: Vec<CheckProblem>,
    /// Settings that work and may not be intended.
    notes: Vec<String>,
}

/// An error of an agent.
#[derive(Debug, Clone, Serialize)]
struct CheckProblem {
    code: &'static str,
    /// The stage of the inspection, and the place in the component; `None` for a problem of another kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<InspectionStage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    message: String,
    help: String,
}

impl CheckProblem {
    /// Creates a problem that no stage of the inspection finds.
    fn new(code: &'static str, message: String, help: String) -> Self {
        Self { code, stage: None, at: None, message, help }
    }
}

impl From<Finding> for CheckProblem {
    fn from(Finding { code, stage, at, message, help }: Finding) -> Self {
        Self { code, stage: Some(stage), at: Some(at), message, help }
    }
}

/// Checks and prints. Fails with code 2 if there is an error.
pub(super) fn run(check: &CheckArgs, out: &mut Out) -> Result<ExitCode, CliError> {
    if check.schema {
        out.json(&json_schema())?;
        return Ok(ExitCode::SUCCESS);
    }
    let file = check.file.file.display().to_string();
    let operator = match check.file.operator() {
        Ok(operator) => operator,
        Err(errors) => {
            if out.format() == Format::Json {
                let none: [u8; 0] = [];
                out.json(&json!({ "file": file, "valid": false, "errors": errors.to_json(), "agents": none }))?;
                return Err(CliError::quiet(Exit::Usage));
            }
            return Err(config_errors(&errors));
        }
    };
    let loaded = match config::load_within(&check.file.file, std::env::vars_os(), &[], &operator) {
        Ok(loaded) => loaded,
        Err(errors) => {
            // Unusable components are reported along with the errors of the file, so that all can be fixed at once.
            let agents = if check.no_components { Vec::new() } else { unusable(&check.file.file) };
            if out.format() == Format::Json {
                out.json(&json!({ "file": file, "valid": false, "errors": errors.to_json(), "agents": agents }))?;
                return Err(CliError::quiet(Exit::Usage));
            }
            let wrong = config_errors(&errors);
            agents.iter().for_each(print_findings);
            return Err(wrong);
        }
    };
    if out.format() == Format::Text {
        loaded.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    }
    let agents = check_agents(&loaded, !check.no_components);
    let wrong = agents.iter().filter(|agent| !agent.findings.is_empty()).count();
    if let Some(errors) = &loaded.file_errors {
        return Err(broken_files(errors, &file, &agents, &loaded.warnings, out)?);
    }
    match out.format() {
        Format::Json => {
            let none: [u8; 0] = [];
            out.json(&json!({ "file": file, "valid": wrong == 0, "errors": none, "warnings": loaded.warnings, "agents": agents }))?;
        }
        Format::Text => print(out, &file, &agents)?,
    }
    if wrong == 0 { Ok(ExitCode::SUCCESS) } else { Err(CliError::quiet(Exit::Usage)) }
}

/// Prints the errors of files that the declaration names, with those of its agents. Returns the error of the command.
fn broken_files(
    errors: &ConfigErrors,
    file: &str,
    agents: &[Checked],
    warnings: &[String],
    out: &mut Out,
) -> Result<CliError, CliError> {
    if out.format() == Format::Json {
        out.json(&json!({ "file": file, "valid": false, "errors": errors.to_json(), "warnings": warnings, "agents": agents }))?;
        return Ok(CliError::quiet(Exit::Usage));
    }
    let wrong = config_errors(errors);
    agents.iter().for_each(print_findings);
    Ok(wrong)
}

/// Returns the agents of a file with errors whose components cannot be used.
fn unusable(file: &Path) -> Vec<Checked> {
    let mut seen: HashMap<PathBuf, Vec<CheckProblem>> = HashMap::new();
    let (dir, named) = config::components(file, std::env::vars_os());
    let agents = named.into_iter().map(|(agent, component)| {
        let found = seen
            .entry(dir.join(&component))
            .or_insert_with_key(|path| read(path, &component, &Policy::default()).problems);
        let findings = found.clone();
        Checked {
            agent,
            kind: None,
            component,
            size: None,
            routes: Vec::new(),
            imports: None,
            findings,
            notes: Vec::new(),
        }
    });
    agents.filter(|agent| !agent.findings.is_empty()).collect()
}

/// Checks every agent with its component. Agents often share a component, which is read once.
fn check_agents(loaded: &Loaded, components: bool) -> Vec<Checked> {
    let mut seen: HashMap<PathBuf, Rc<ReadComponent>> = HashMap::new();
    let policy = &loaded.desired.policy;
    let mut sources = HashMap::new();
    // The ledgers tell which revision an agent would follow; a first start has none.
    let data = loaded.dir.join(&loaded.desired.store.path);
    let ledgers = Ledgers::read(&data).unwrap_or_else(|why| {
        // A note and no error: everything else can be checked without it.
        say(&format!("note: what ran before is not known, and so whether it can be followed: {why}"));
        Ledgers::default()
    });
    // The same exclusions as in the host, so that the note tells what it would see.
    let excluded = WatchSet::new(&loaded.dir, &loaded.dir, &data, &loaded.desired).excluded();
    loaded
        .desired
        .agents
        .values()
        .map(|spec| {
            let path = loaded.dir.join(&spec.component);
            let found = components.then(|| {
                Rc::clone(
                    seen.entry(path.clone()).or_insert_with_key(|path| Rc::new(read(path, &spec.component, policy))),
                )
            });
            let mut agent = checked(spec, found.as_deref());
            agent
                .findings
                .extend(found.as_deref().into_iter().flat_map(|found| judge_origin(spec, &path, found, policy)));
            let summary = found.as_deref().and_then(|found| found.summary.as_ref());
            if let Err(why) = ledgers.check(spec, summary) {
                let help = format!("as it is, the host refuses the change, and what runs of {} goes on", spec.name);
                agent.findings.push(CheckProblem::new("format", why.to_string(), help));
            }
            for why in spec.http.iter().flat_map(|route| &route.auth).flat_map(|auth| unread_keys(&loaded.dir, auth)) {
                let help = "the agent runs, and callers whose key this is are refused until it can be read".to_owned();
                agent.findings.push(CheckProblem::new(KEY, why, help));
            }
            for written in spec.build.iter().flat_map(|build| &build.watch) {
                // Agents often share a pattern, whose search may read many folders.
                let warning = sources.entry(written).or_insert_with(|| pattern(written, &loaded.dir, &excluded));
                match warning.clone() {
                    Some(Err(wrong)) => agent.findings.push(wrong),
                    Some(Ok(note)) => agent.notes.push(note),
                    None => {}
                }
            }
            agent
        })
        .collect()
}

/// Checks a pattern of `build.watch`. Returns an error for an invalid one, and a note for one that matches nothing.
fn pattern(written: &str, dir: &Path, excluded: &ExcludedFiles) -> Option<Result<String, CheckProblem>> {
    let help = "such as \"src/**\", \"src\" or \"src/*.{rs,toml}\"".to_owned();
    match Pattern::parse(written, dir) {
        Err(why) => {
            let message = format!("the pattern `{written}` of build.watch means nothing: {why}");
            Some(Err(CheckProblem::new("pattern", message, help)))
        }
        Ok(patterns) => {
            let (message, help) = no_match_warning(&patterns, dir, excluded)?;
            Some(Ok(format!("{message}; {help}")))
        }
    }
}

/// Judges digest and signatures of a component for an agent.
fn judge_origin(spec: &AgentSpec, path: &Path, found: &ReadComponent, policy: &Policy) -> Vec<CheckProblem> {
    let Some(digest) = found.digest else { return Vec::new() };
    let signed = check_signatures(&signature_path(path), digest);
    policy.judge_origin(&spec.name, &spec.component, digest, &signed).into_iter().map(CheckProblem::from).collect()
}

fn checked(spec: &AgentSpec, found: Option<&ReadComponent>) -> Checked {
    let summary = found.and_then(|found| found.summary.as_ref());
    let mut findings = found.map(|found| found.problems.clone()).unwrap_or_default();
    match summary.map(|summary| (memory_finding(spec, summary), check_settings(spec, summary))) {
        Some((Some(finding), _)) => findings.push(finding.into()),
        Some((None, Err(message))) => {
            findings.push(CheckProblem::new("settings", message, "change the setting, or the component".to_owned()));
        }
        Some((None, Ok(()))) | None => {}
    }
    // The file alone does not tell whether an agent is stateful, so that loading it cannot check this.
    if summary.is_some_and(|summary| summary.kind == Kind::Stateful) {
        let (deploy, reload) = spec.rollout.settings(spec.reload.drain);
        for (table, settings) in [("deploy", deploy), ("reload", reload)] {
            if let Err(why) = check_memory(&settings.strategy, true) {
                let help = format!("change `{table}.strategy` of {}", spec.name);
                findings.push(CheckProblem::new("strategy", why.to_string(), help));
            }
        }
    }
    Checked {
        agent: spec.name.to_string(),
        kind: summary.map(|summary| summary.kind),
        component: spec.component.clone(),
        size: summary.map(|summary| summary.size),
        routes: spec.http.iter().map(route_text).collect(),
        imports: summary.map(|summary| import_report(&summary.imports, &spec.allow, spec.config.keys())),
        findings,
        notes: notes(spec, summary),
    }
}

/// A component as it was read.
#[derive(Default)]
struct ReadComponent {
    /// The properties; `None` if it cannot be used.
    summary: Option<Summary>,
    digest: Option<Digest>,
    problems: Vec<CheckProblem>,
}

fn read(path: &Path, shown: &str, policy: &Policy) -> ReadComponent {
    let unusable = |code, message: String, help: &str| ReadComponent {
        problems: vec![CheckProblem::new(code, message, help.to_owned())],
        ..ReadComponent::default()
    };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return unusable(
                "missing",
                format!("the component {shown} is not there"),
                "build it (`caxton up --build`) or mend the path",
            );
        }
        Err(error) => return unusable("unreadable", format!("the component {shown}: {error}"), "mend the path"),
        Ok(found) if !found.is_file() => {
            return unusable("missing", format!("the component {shown} is not a file"), "mend the path");
        }
        // Not read: inspection would refuse it for the same reason.
        Ok(found) if found.len() > MAX_COMPONENT => {
            let message = format!("the component {shown} has {} bytes, more than {MAX_COMPONENT}", found.len());
            return unusable("too-large", message, "leave out debug information (`wasm-tools strip`)");
        }
        Ok(_) => {}
    }
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let message = format!("the component {shown} cannot be read: {error}");
            return unusable("unreadable", message, "mind its permissions");
        }
    };
    let (summary, mut findings) = match summarise(&bytes, policy.features.as_ref()) {
        Ok(summary) => (Some(summary), Vec::new()),
        Err(findings) => (None, findings),
    };
    if let Some((imports, exports)) = &imports_and_exports(&bytes) {
        findings.extend(policy.judge_component(ComponentFacts { imports, exports, size: bytes.len() as u64 }));
    }
    ReadComponent {
        summary,
        digest: Some(digest(&bytes)),
        problems: in_order(findings).into_iter().map(CheckProblem::from).collect(),
    }
}

/// Prints the errors and notes of an agent.
fn print_findings(agent: &Checked) {
    for problem in &agent.findings {
        say(&format!("agents.{}: {} ({}); {}", agent.agent, problem.message, problem.code, problem.help));
    }
    for note in &agent.notes {
        say(&format!("agents.{}: note: {note}", agent.agent));
    }
}

fn print(out: &mut Out, file: &str, agents: &[Checked]) -> Result<(), CliError> {
    let mut table = Table::new(&["AGENT", "KIND", "COMPONENT", ">SIZE", "ROUTES"]);
    for agent in agents {
        let kind = match (&agent.kind, agent.findings.is_empty()) {
            (Some(kind), true) => Cell::new(kind.to_string()),
            (_, true) => Cell::new("-"),
            // In place of the kind, which may not be known.
            (_, false) => Cell::styled("error", Style::Bad),
        };
        table.row(vec![
            Cell::new(&agent.agent),
            kind,
            Cell::new(&agent.component),
            Cell::new(agent.size.map_or_else(|| "-".to_owned(), size)),
            Cell::new(if agent.routes.is_empty() { "-".to_owned() } else { agent.routes.join(", ") }),
        ]);
    }
    if !agents.is_empty() {
        out.line(&table.render(out.is_terminal()))?;
        print_grants(out, agents)?;
    }
    agents.iter().for_each(print_findings);
    let have =
        |count: fn(&CheckProblem) -> bool| agents.iter().filter(|agent| agent.findings.iter().any(count)).count();
    // An agent runs without the keys of some of its callers.
    let (unusable, wrong) = (have(|problem| problem.code != KEY), have(|_| true));
    match (agents.len(), unusable, wrong) {
        (0, ..) => say(&format!("{file} is valid and declares no agents")),
        (agents, 0, 0) => say(&format!("{file} is valid: {}", count(agents, "agent"))),
        (agents, 0, wrong) => {
            say(&format!("{file} is valid, but {wrong} of {} cannot check all callers", count(agents, "agent")));
        }
        (agents, unusable, _) => {
            say(&format!("{file} is valid, but {unusable} of {} cannot run", count(agents, "agent")));
        }
    }
    Ok(())
}

/// Prints what agents import, and what of it is granted, denied, and granted in vain.
fn print_grants(out: &mut Out, agents: &[Checked]) -> Result<(), CliError> {
    let mut table = Table::new(&["AGENT", "GRANTED", "DENIED", "IN VAIN"]);
    let joined = |texts: Vec<String>| if texts.is_empty() { "-".to_owned() } else { texts.join(", ") };
    let mut is_empty = true;
    for (agent, report) in agents.iter().filter_map(|agent| Some((agent, agent.imports.as_ref()?))) {
        is_empty = false;
        table.row(vec![
            Cell::new(&agent.agent),
            Cell::new(joined(short(&report.granted))),
            Cell::new(joined(short(&report.denied))),
            match report.in_vain.is_empty() {
                true => Cell::new("-"),
                false => Cell::styled(report.in_vain.join(", "), Style::Warn),
            },
        ]);
    }
    if is_empty { Ok(()) } else { out.line(&format!("\n{}", table.render(out.is_terminal()))) }
}

/// Returns the imports without versions, those of WASI by package alone, and each once.
fn short(imports: &[ImportUse]) -> Vec<String> {
    let mut names = Vec::new();
    for import in imports {
        let name = import.import.split('@').next().unwrap_or_default();
        let is_single = ["caxton:", "wasi:cli/environment", "wasi:http/"].iter().any(|one| name.starts_with(one));
        let shown = if is_single { name } else { name.split('/').next().unwrap_or(name) };
        if !names.iter().any(|known| known == shown) {
            names.push(shown.to_owned());
        }
    }
    names
}
