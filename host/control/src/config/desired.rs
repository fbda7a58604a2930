//! The construction of [`Desired`] from the tree.
//!
//! Reads every key once, section by section. A wrong value is reported and replaced by its default, so that everything
//! else is checked as well; with any error nothing is returned.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::budgets::{budget, budgets};
use super::consistency::Consistency;
use super::defaults::Inheritable;
use super::error::{ConfigError, Location};
use super::findings::Findings;
use super::host_grants::{folders, tcp_places};
use super::node::{Entry, Node, Source, Table, Value};
use super::outgoing::{outgoing, places};
use super::policy::{self, Operator};
use super::schedules::schedules;
use super::schema;
use super::secrets;
use super::section::Section;
use super::values::{Element, wrong_type};
use crate::access::{JwtSpec, KeySource, RouteAuth, TokenName};
use crate::cors::Cors;
use crate::desired::{
    AdminSpec, AgentSpec, BuildSpec, ConversationsSpec, Desired, Durability, ErrorDetails, Grants, HostSpec, HttpSpec,
    ProbesSpec, ResponseMode, RouteSpec, SecretsSpec, StoreSpec, Supply, TlsSpec,
};
use crate::format::StateFormat;
use crate::names::{AgentName, Capability};
use crate::route::RoutePattern;
use crate::template::Template;

/// Checks the tree and returns its meaning, or all errors in the order of the file.
pub fn check(root: &Node) -> Result<Desired, Vec<ConfigError>> {
    check_within(root, &Operator::default())
}

/// Checks the tree like [`check`], and that nothing in it is looser than the operator's own file.
pub fn check_within(root: &Node, operator: &Operator) -> Result<Desired, Vec<ConfigError>> {
    // One collection for the whole file, so that a single run shows all errors.
    let mut findings = Findings::default();
    let desired = desired(root, operator, &mut findings);
    let mut errors = findings.errors;
    // Sections are read in the order of the code, but people go through the file.
    errors.sort_by(|one, other| one.at().source.cmp(&other.at().source));
    desired.filter(|_| errors.is_empty()).ok_or(errors)
}

fn desired(root: &Node, operator: &Operator, findings: &mut Findings) -> Option<Desired> {
    let (root, shared) = shared(root, operator, findings)?;
    let agents = agents(&root, &shared, findings);
    Some(Desired { agents, ..shared.desired })
}

/// The tables that all agents share, with the meaning of the file without its agents.
#[derive(Debug)]
pub(super) struct SharedTables {
    pub(super) desired: Desired,
    pub(super) base: Inheritable,
}

/// Reads all tables but those of agents. Returns them with the root, which has the agents.
pub(super) fn shared<'a>(
    root: &'a Node,
    operator: &Operator,
    findings: &mut Findings,
) -> Option<(Section<'a>, SharedTables)> {
    let Value::Table(table) = &root.value else {
        let at = Location { key: String::new(), source: root.source.clone() };
        let found = root.value.describe();
        let example = "caxton = 1".to_owned();
        findings.errors.push(ConfigError::WrongType { at, expected: "a table".to_owned(), found, example });
        return None;
    };
    let root = Section::open(schema::root(), table, String::new(), root.source.clone(), findings);
    // The value is not kept, since there is only one format.
    root.get::<u64>("caxton", None, findings);
    // Read before the agents and their defaults, which they bound.
    findings.ceilings = policy::read_ceilings(&root, &operator.ceilings, findings);
    // Read before the agents, which refer to them.
    let secrets = secrets::secrets(&root, findings);
    // Read before the agents, whose grants it bounds.
    let (policy, places) = policy::read_policy(&root, operator, findings);
    findings.rules = policy::host_rules(&policy, &places, operator);
    // Read before the agents, which name them.
    let budgets = budgets(&root, findings);
    // Read before the agents, each of which starts from it.
    let base = Inheritable::read(&root.section("defaults", findings), None, findings);
    let desired = Desired {
        http: http(&root.section("http", findings), findings),
        admin: admin(&root.section("admin", findings), findings),
        probes: ProbesSpec { listen: root.section("probes", findings).get("listen", None, findings) },
        store: store(&root.section("store", findings), findings),
        host: host(&root.section("host", findings), findings),
        conversations: conversations(&root.section("conversations", findings), findings),
        outgoing: outgoing(&root.section("outgoing", findings), &secrets, findings),
        agents: BTreeMap::new(),
        policy,
        secrets,
        budgets,
    };
    Some((root, SharedTables { desired, base }))
}

fn listen(section: &Section<'_>, findings: &mut Findings) -> SocketAddr {
    section.get("listen", None, findings).unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

fn admin(section: &Section<'_>, findings: &mut Findings) -> AdminSpec {
    let admin = AdminSpec {
        listen: listen(section, findings),
        tls: tls(section, findings),
        audit_max_bytes: section.get("audit-max", None, findings).unwrap_or_default(),
    };
    // By the table and not by its value: wrong keys in it were reported, and need no second error.
    if !admin.listen.ip().to_canonical().is_loopback() && section.entry("tls").is_none() {
        // Without TLS, the token could be read on its way from another machine.
        let at = Location { key: section.key("listen"), source: section.source_of("listen") };
        findings.errors.push(ConfigError::NotLoopback { at, given: admin.listen.to_string() });
    }
    admin
}

/// Reads the table `tls` of a listener; `None` if it has none.
fn tls(section: &Section<'_>, findings: &mut Findings) -> Option<TlsSpec> {
    let section = section.written("tls", findings)?;
    Some(TlsSpec {
        cert: section.get("cert", None, findings).unwrap_or_default(),
        key: section.get("key", None, findings).unwrap_or_default(),
        client_ca: section.get("client-ca", None, findings),
    })
}

fn host(section: &Section<'_>, findings: &mut Findings) -> HostSpec {
    HostSpec {
        // Every key has a default in the schema, so `unwrap_or_default` acts only after a reported error.
        drain: section.get("drain", None, findings).unwrap_or_default(),
        instances: section.get("instances", None, findings),
        memory_bytes: section.get("memory", None, findings),
    }
}

fn http(section: &Section<'_>, findings: &mut Findings) -> HttpSpec {
    HttpSpec {
        listen: listen(section, findings),
        max_connections: section.get("max-connections", None, findings).unwrap_or_default(),
        max_head_bytes: section.get("max-head", None, findings).unwrap_or_default(),
        max_body_bytes: section.get("max-body", None, findings).unwrap_or_default(),
        head_timeout: section.get("head-timeout", None, findings).unwrap_or_default(),
        stall_timeout: section.get("stall-timeout", None, findings).unwrap_or_default(),
        idle_timeout: section.get("idle-timeout", None, findings).unwrap_or_default(),
        buffer_bytes: section.get("buffer", None, findings).unwrap_or_default(),
        details: match section.get("details", None, findings) {
            Some("always") => ErrorDetails::Always,
            Some("never") => ErrorDetails::Never,
            // Also after a wrong word, which was reported and makes the file invalid.
            _ => ErrorDetails::Loopback,
        },
        hosts: section.get("hosts", None, findings).unwrap_or_default(),
        tls: tls(section, findings),
        cors: cors(&section.section("cors", findings), findings),
    }
}

fn cors(section: &Section<'_>, findings: &mut Findings) -> Cors {
    let cors = Cors {
        origins: section.get("origins", None, findings).unwrap_or_default(),
        methods: section.get("methods", None, findings).unwrap_or_default(),
        headers: section.get("headers", None, findings).unwrap_or_default(),
        expose: section.get("expose", None, findings).unwrap_or_default(),
        credentials: section.get("credentials", None, findings).unwrap_or_default(),
        max_age: section.get("max-age", None, findings).unwrap_or_default(),
    };
    // Browsers refuse the combination, so the setting could never act.
    if cors.credentials && cors.origins.iter().any(|origin| origin == "*") {
        let at = Location { key: section.key("credentials"), source: section.source_of("credentials") };
        findings.errors.push(ConfigError::CredentialsForAll { at });
    }
    cors
}

fn store(section: &Section<'_>, findings: &mut Findings) -> StoreSpec {
    let durability = match section.get("durability", None, findings) {
        Some("memory") => Durability::Memory,
        Some("os") => Durability::Os,
        _ => Durability::Fsync,
    };
    StoreSpec {
        path: section.get("path", None, findings).unwrap_or_default(),
        durability,
        history: section.get("history", None, findings).unwrap_or_default(),
        history_max_bytes: section.get("history-max", None, findings).unwrap_or_default(),
        dead_letters: section.get("dead-letters", None, findings).unwrap_or_default(),
        dead_letters_max_bytes: section.get("dead-letters-max", None, findings).unwrap_or_default(),
    }
}

fn conversations(section: &Section<'_>, findings: &mut Findings) -> ConversationsSpec {
    ConversationsSpec {
        timeout: section.get("timeout", None, findings).unwrap_or_default(),
        participants: section.get("participants", None, findings).unwrap_or_default(),
    }
}

/// Reads all agents and checks them, one by one and against each other.
fn agents(root: &Section<'_>, shared: &SharedTables, findings: &mut Findings) -> BTreeMap<AgentName, Arc<AgentSpec>> {
    let mut agents = BTreeMap::new();
    let Some(entry) = root.entry("agents") else { return agents };
    let Value::Table(table) = &entry.node.value else {
        findings.errors.push(wrong_type(root.schema("agents"), "agents", &entry.node, "agents"));
        return agents;
    };
    let mut consistency = Consistency::default();
    for (name, entry) in table {
        if let Some(spec) = agent(name, entry, table, shared, &mut consistency, findings) {
            agents.insert(spec.name.clone(), Arc::new(spec));
        }
    }
    // Only now are all agents known that a grant may name.
    consistency.check(findings);
    agents
}

/// Reads one agent; `None` if its name or its table is none. `all` has the others, one of which may be meant.
pub(super) fn agent(
    name: &str,
    entry: &Entry,
    all: &Table,
    shared: &SharedTables,
    consistency: &mut Consistency,
    findings: &mut Findings,
) -> Option<AgentSpec> {
    let path = format!("agents.{name}");
    // Recorded even if its settings are wrong, so that grants for it are no further errors.
    let parsed = name.parse::<AgentName>().inspect(|name| consistency.agent(name.clone())).map_err(|reason| {
        let at = Location { key: path.clone(), source: entry.key.clone() };
        findings.errors.push(ConfigError::BadName { at, given: name.to_owned(), whose: "an agent", reason });
    });
    let Value::Table(settings) = &entry.node.value else {
        findings.errors.push(ConfigError::WrongType {
            at: Location { key: path, source: entry.node.source.clone() },
            expected: "a table".to_owned(),
            found: entry.node.value.describe(),
            example: format!("[agents.{name}]"),
        });
        return None;
    };
    let fields = &schema::root()["agents"].fields;
    // Opened even under a bad name, so that all errors of the table are found.
    let section = Section::open(fields, settings, path, entry.key.clone(), findings);
    report_missing_component(&section, name, all, findings);
    let secrets = &shared.desired.secrets;
    secrets::references(&section, secrets, findings);
    // After a bad name the settings are still checked, under a name that is never shown.
    let agent = parsed.clone().unwrap_or_else(|()| "nobody".parse().expect("follows the rule for names"));
    let spec = agent_spec(&section, name, agent, &shared.base, secrets, consistency, findings);
    parsed.ok().map(|_| spec)
}

/// Reports a missing component, with the agent that was probably meant: a misspelt `[agents.typo.http]` declares an
/// agent.
fn report_missing_component(section: &Section<'_>, name: &str, agents: &Table, findings: &mut Findings) {
    if section.entry("component").is_some() {
        return;
    }
    let has_component = |entry: &Entry| entry.node.get("component").is_some();
    let others = agents.iter().filter(|(other, entry)| *other != name && has_component(entry));
    let agent = findings.suggest.nearest(name, others.map(|(other, _)| other.as_str())).map(str::to_owned);
    findings.errors.push(section.missing(section.schema("component"), "component", agent));
}

fn agent_spec(
    section: &Section<'_>,
    written: &str,
    name: AgentName,
    base: &Inheritable,
    secrets: &SecretsSpec,
    consistency: &mut Consistency,
    findings: &mut Findings,
) -> AgentSpec {
    // A missing component was reported before, with the agent that was probably meant.
    let component = section.entry("component").and_then(|_| section.get("component", None, findings));
    let capabilities: Vec<(Element, Source)> = section.get("capabilities", None, findings).unwrap_or_default();
    // Places are only for errors, and these have been reported.
    let capabilities: BTreeSet<Capability> =
        capabilities.into_iter().filter_map(|(element, _)| element.capability()).collect();
    consistency.capabilities(&capabilities);
    let Inheritable { limits, instances, snapshot, mailbox, breaker, reload, rollout, .. } =
        Inheritable::read(section, Some(base), findings);
    AgentSpec {
        settings_text: Default::default(),
        component: component.unwrap_or_default(),
        build: section.written("build", findings).map(|build| BuildSpec {
            command: build.get("command", None, findings).unwrap_or_default(),
            watch: build.get("watch", None, findings).unwrap_or_default(),
        }),
        capabilities,
        budget: budget(section, findings),
        instances,
        snapshot,
        state: format(section, findings),
        config: section.get("config", None, findings).unwrap_or_default(),
        allow: allow(section, secrets, consistency, findings),
        schedules: schedules(section, &limits, findings),
        limits,
        mailbox,
        breaker,
        http: routes(section, written, consistency, findings),
        reload,
        rollout,
        name,
    }
}

/// Reads the format of the agent's data.
fn format(section: &Section<'_>, findings: &mut Findings) -> StateFormat {
    let Some(section) = section.written("state", findings) else { return StateFormat::default() };
    let mut reads: BTreeSet<u32> = section.get("reads", None, findings).unwrap_or_default();
    let version = section.get("version", None, findings).unwrap_or_default();
    // Reading its own version is implied: naming it must not make another revision.
    reads.remove(&version);
    StateFormat { version, reads }
}

fn allow(
    section: &Section<'_>,
    secrets: &SecretsSpec,
    consistency: &mut Consistency,
    findings: &mut Findings,
) -> Grants {
    let Some(section) = section.written("allow", findings) else { return Grants::default() };
    let send: Vec<(Element, Source)> = section.get("send", None, findings).unwrap_or_default();
    let mut supply = |name: &str| match section.get(name, None, findings) {
        Some("none") => Supply::None,
        Some("message") => Supply::Message,
        _ => Supply::Real,
    };
    let (clock, random) = (supply("clock"), supply("random"));
    let env = section.get("env", None, findings).unwrap_or_default();
    let http = places(&section, secrets, findings);
    let (tcp, files) = (tcp_places(&section, findings), folders(&section, findings));
    let mut allow = Grants { send: BTreeSet::new(), env, clock, random, http, tcp, files };
    for (index, (element, source)) in send.into_iter().enumerate() {
        if let Some(receiver) = element.receiver() {
            let at = Location { key: format!("{}[{index}]", section.key("send")), source };
            // Checked at the end, as the receiver may be declared further down.
            consistency.grant(receiver.clone(), at);
            allow.send.insert(receiver);
        }
    }
    allow
}

fn routes(
    section: &Section<'_>,
    agent: &str,
    consistency: &mut Consistency,
    findings: &mut Findings,
) -> Vec<RouteSpec> {
    let mut routes = Vec::new();
    for section in section.sections("http", findings) {
        let pattern = section.get("route", None, findings);
        let methods = section.get("methods", None, findings);
        let mode = match section.get("mode", None, findings) {
            Some("enqueue") => ResponseMode::Enqueue,
            _ => ResponseMode::Request,
        };
        // A wrong route must not be reported as a clash as well.
        if let (Some(pattern), Some(methods)) = (pattern, methods) {
            let cors = section.get("cors", None, findings);
            let conversation = conversation(&section, &pattern, findings);
            let rate = section.get("rate", None, findings);
            let stream = section.get("stream", None, findings).unwrap_or_default();
            let (auth, budget) = (auth(&section, findings), budget(&section, findings));
            let route = RouteSpec { pattern, methods, mode, stream, cors, auth, rate, conversation, budget };
            let at = Location { key: section.key("route"), source: section.source_of("route") };
            consistency.route(agent, &route, at, findings);
            routes.push(route);
        }
    }
    // Most agents have one route, and the list has made room for four.
    routes.shrink_to_fit();
    routes
}

/// Reads the credentials of a route; `None` if it asks for none.
fn auth(section: &Section<'_>, findings: &mut Findings) -> Option<RouteAuth> {
    let section = section.written("auth", findings)?;
    let before = findings.errors.len();
    let tokens: Vec<(Element, Source)> = section.get("tokens", None, findings).unwrap_or_default();
    let keys: BTreeMap<String, String> = section.get("hmac", None, findings).unwrap_or_default();
    let jwt = section.written("jwt", findings).map(|jwt| JwtSpec {
        jwks: jwt.get("jwks", None, findings).unwrap_or_default(),
        issuer: jwt.get("issuer", None, findings).unwrap_or_default(),
        audience: jwt.get("audience", None, findings).unwrap_or_default(),
    });
    let mut hmac = BTreeMap::new();
    for (name, given) in keys {
        let key = format!("{}.{name}", section.key("hmac"));
        let at = Location { key, source: section.nested_source("hmac", &name) };
        match (name.parse::<TokenName>(), KeySource::parse(&given)) {
            (Ok(name), Some(source)) => drop(hmac.insert(name, source)),
            (Err(reason), _) => {
                findings.errors.push(ConfigError::BadName { at, given: name, whose: "a caller", reason });
            }
            (Ok(_), None) => findings.errors.push(ConfigError::BadKeySource { at, given }),
        }
    }
    let auth = RouteAuth { tokens: tokens.into_iter().filter_map(|(element, _)| element.token()).collect(), hmac, jwt };
    // A route that nobody may call is a slip, and one that everybody may call would be a dangerous reading of it.
    if auth.is_empty() && findings.errors.len() == before {
        findings.errors.push(section.missing(section.schema("tokens"), "tokens", None));
    }
    Some(auth)
}

/// Reads the template for the conversations of a route; `None` if there is none.
fn conversation(section: &Section<'_>, route: &RoutePattern, findings: &mut Findings) -> Option<Template> {
    let given: String = section.get("conversation", None, findings)?;
    match Template::parse(&given, route) {
        Ok(template) => Some(template),
        Err(reason) => {
            let at = Location { key: section.key("conversation"), source: section.source_of("conversation") };
            findings.errors.push(ConfigError::BadConversation { at, given, reason });
            None
        }
    }
}
