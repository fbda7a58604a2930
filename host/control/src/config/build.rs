//! From the tree to [`Desired`].
//!
//! Reads every key once, section by section. A value that is wrong is reported and stands in as its default, so
//! that everything else is checked as well; with any error nothing is returned.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::cross::Cross;
use super::error::{At, ConfigError};
use super::node::{Entry, Node, Place, Table, Value};
use super::read::{Element, Findings, wrong_type};
use super::schema;
use super::section::Section;
use crate::desired::{
    Admin, AgentSpec, Allow, Build, Desired, Durability, Host, Http, Instances, Limits, MailboxSpec, Mode, Order,
    Reload, Route, Store,
};
use crate::names::{AgentName, Capability};

/// What the file means, or everything that is wrong with it, in the order of the file.
pub fn check(root: &Node) -> Result<Desired, Vec<ConfigError>> {
    let mut findings = Findings::default();
    let desired = desired(root, &mut findings);
    let mut errors = findings.errors;
    errors.sort_by(|one, other| one.at().place.cmp(&other.at().place));
    desired.filter(|_| errors.is_empty()).ok_or(errors)
}

fn desired(root: &Node, findings: &mut Findings) -> Option<Desired> {
    let Value::Table(table) = &root.value else {
        let at = At { key: String::new(), place: root.place.clone() };
        let found = root.value.describe();
        let example = "caxton = 1".to_owned();
        findings.errors.push(ConfigError::WrongType { at, expected: "a table".to_owned(), found, example });
        return None;
    };
    let root = Section::open(schema::root(), table, String::new(), root.place.clone(), findings);
    // The number itself is not kept: there is one format.
    root.get::<u64>("caxton", None, findings);
    let base = Inherited::read(&root.section("defaults", findings), None, findings);
    let desired = Desired {
        http: http(&root.section("http", findings), findings),
        admin: Admin { listen: listen(&root.section("admin", findings), findings) },
        store: store(&root.section("store", findings), findings),
        host: Host { drain: root.section("host", findings).get("drain", None, findings).unwrap_or_default() },
        agents: agents(&root, &base, findings),
    };
    Some(desired)
}

fn listen(section: &Section<'_>, findings: &mut Findings) -> SocketAddr {
    section.get("listen", None, findings).unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

fn http(section: &Section<'_>, findings: &mut Findings) -> Http {
    Http {
        listen: listen(section, findings),
        max_connections: section.get("max-connections", None, findings).unwrap_or_default(),
        max_head_bytes: section.get("max-head", None, findings).unwrap_or_default(),
        max_body_bytes: section.get("max-body", None, findings).unwrap_or_default(),
        head_timeout: section.get("head-timeout", None, findings).unwrap_or_default(),
        stall_timeout: section.get("stall-timeout", None, findings).unwrap_or_default(),
    }
}

fn store(section: &Section<'_>, findings: &mut Findings) -> Store {
    let durability = match section.get("durability", None, findings) {
        Some("memory") => Durability::Memory,
        Some("os") => Durability::Os,
        _ => Durability::Fsync,
    };
    Store { path: section.get("path", None, findings).unwrap_or_default(), durability }
}

/// What an agent takes from `[defaults]` unless it says otherwise.
struct Inherited {
    limits: Limits,
    instances: Instances,
    /// Where `min` and `max` come from.
    instances_places: (Place, Place),
    mailbox: MailboxSpec,
    reload: Reload,
}

impl Inherited {
    /// Reads the four tables of `section`; what they do not set is as in `base`, or else as in the schema.
    fn read(section: &Section<'_>, base: Option<&Self>, findings: &mut Findings) -> Self {
        let (instances, instances_places) = instances(section, base, findings);
        Self {
            limits: limits(section, base.map(|b| &b.limits), findings),
            instances,
            instances_places,
            mailbox: mailbox(section, base.map(|b| &b.mailbox), findings),
            reload: reload(section, base.map(|b| &b.reload), findings),
        }
    }
}

/// The table of `name`, and the base to return as it is if the table was not written.
macro_rules! written_or_base {
    ($section:expr, $name:literal, $base:expr, $findings:expr) => {
        match ($section.written($name, $findings), $base) {
            (Some(written), _) => written,
            (None, Some(base)) => return base.clone(),
            (None, None) => $section.section($name, &mut Findings::default()),
        }
    };
}

fn limits(section: &Section<'_>, base: Option<&Limits>, findings: &mut Findings) -> Limits {
    let section = written_or_base!(section, "limits", base, findings);
    Limits {
        memory_bytes: section.get("memory", base.map(|b| b.memory_bytes), findings).unwrap_or_default(),
        cpu: section.get("cpu", base.map(|b| b.cpu), findings).unwrap_or_default(),
        fuel: section.get("fuel", base.and_then(|b| b.fuel), findings),
        time: section.get("time", base.map(|b| b.time), findings).unwrap_or_default(),
        message_bytes: section.get("message", base.map(|b| b.message_bytes), findings).unwrap_or_default(),
        sends: section.get("sends", base.map(|b| b.sends), findings).unwrap_or_default(),
        writes: section.get("writes", base.map(|b| b.writes), findings).unwrap_or_default(),
        state_bytes: section.get("state", base.map(|b| b.state_bytes), findings).unwrap_or_default(),
        hops: section.get("hops", base.map(|b| b.hops), findings).unwrap_or_default(),
        log_lines: section.get("log-lines", base.map(|b| b.log_lines), findings).unwrap_or_default(),
    }
}

fn mailbox(section: &Section<'_>, base: Option<&MailboxSpec>, findings: &mut Findings) -> MailboxSpec {
    let section = written_or_base!(section, "mailbox", base, findings);
    let inherited = base.map(|b| match b.order {
        Order::Conversation => "conversation",
        Order::Agent => "agent",
        Order::None => "none",
    });
    let order = match section.get("order", inherited, findings) {
        Some("agent") => Order::Agent,
        Some("none") => Order::None,
        _ => Order::Conversation,
    };
    MailboxSpec { order, depth: section.get("depth", base.map(|b| b.depth), findings).unwrap_or_default() }
}

fn reload(section: &Section<'_>, base: Option<&Reload>, findings: &mut Findings) -> Reload {
    let section = written_or_base!(section, "reload", base, findings);
    // Read to check it; there is one strategy so far.
    section.get::<&'static str>("strategy", None, findings);
    Reload {
        watch: section.get("watch", base.map(|b| b.watch), findings).unwrap_or_default(),
        drain: section.get("drain", base.map(|b| b.drain), findings).unwrap_or_default(),
    }
}

/// The instances, and where their `min` and `max` come from.
fn instances(section: &Section<'_>, base: Option<&Inherited>, findings: &mut Findings) -> (Instances, (Place, Place)) {
    let section = match (section.written("instances", findings), base) {
        (Some(written), _) => written,
        (None, Some(base)) => return (base.instances.clone(), base.instances_places.clone()),
        (None, None) => section.section("instances", &mut Findings::default()),
    };
    let inherited = base.map(|b| &b.instances);
    let min: Option<u32> = section.get("min", inherited.map(|b| b.min), findings);
    let max: Option<u32> = section.get("max", inherited.map(|b| b.max), findings);
    let idle: Option<Duration> = section.get("idle", inherited.map(|b| b.idle), findings);
    let own = (section.entry("min").is_some(), section.entry("max").is_some());
    let mut places = base.map_or((Place::Default, Place::Default), |b| b.instances_places.clone());
    if own.0 {
        places.0 = section.place("min");
    }
    if own.1 {
        places.1 = section.place("max");
    }
    if let (Some(min), Some(max)) = (min, max)
        && min > max
        // If it sets neither, whoever set them has the error.
        && (own.0 || own.1)
    {
        let (name, place, other) = if own.0 { ("min", &places.0, &places.1) } else { ("max", &places.1, &places.0) };
        let at = At { key: section.key(name), place: place.clone() };
        findings.errors.push(ConfigError::MinAboveMax { at, min, max, other: other.clone() });
    }
    let instances = Instances {
        min: min.unwrap_or_default(),
        max: max.unwrap_or_default(),
        reuse: section.get("reuse", inherited.map(|b| b.reuse), findings).unwrap_or_default(),
        idle: idle.unwrap_or_default(),
    };
    (instances, places)
}

/// All agents, checked one by one and against each other.
fn agents(root: &Section<'_>, base: &Inherited, findings: &mut Findings) -> BTreeMap<AgentName, Arc<AgentSpec>> {
    let mut agents = BTreeMap::new();
    let Some(entry) = root.entry("agents") else { return agents };
    let Value::Table(table) = &entry.node.value else {
        findings.errors.push(wrong_type(root.schema("agents"), "agents", &entry.node, "agents"));
        return agents;
    };
    let mut cross = Cross::default();
    for (name, entry) in table {
        let path = format!("agents.{name}");
        let parsed = name.parse::<AgentName>().inspect(|name| cross.agent(name.clone())).map_err(|reason| {
            let at = At { key: path.clone(), place: entry.key.clone() };
            findings.errors.push(ConfigError::BadName { at, given: name.clone(), whose: "an agent", reason });
        });
        let Value::Table(settings) = &entry.node.value else {
            findings.errors.push(ConfigError::WrongType {
                at: At { key: path, place: entry.node.place.clone() },
                expected: "a table".to_owned(),
                found: entry.node.value.describe(),
                example: format!("[agents.{name}]"),
            });
            continue;
        };
        let fields = &schema::root()["agents"].fields;
        let section = Section::open(fields, settings, path, entry.key.clone(), findings);
        report_missing_component(&section, name, table, findings);
        // A bad name is reported; the settings are checked all the same, under a name that nobody sees.
        let agent = parsed.clone().unwrap_or_else(|()| "nobody".parse().expect("follows the rule for names"));
        let spec = agent_spec(&section, name, agent, base, &mut cross, findings);
        if let Ok(agent) = parsed {
            agents.insert(agent, Arc::new(spec));
        }
    }
    cross.check(findings);
    agents
}

/// Reports a missing component, with the agent that was probably meant: `[agents.typo.http]` makes an agent.
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
    base: &Inherited,
    cross: &mut Cross,
    findings: &mut Findings,
) -> AgentSpec {
    let component = section.entry("component").and_then(|_| section.get("component", None, findings));
    let capabilities: Vec<(Element, Place)> = section.get("capabilities", None, findings).unwrap_or_default();
    let capabilities: BTreeSet<Capability> =
        capabilities.into_iter().filter_map(|(element, _)| element.capability()).collect();
    cross.capabilities(&capabilities);
    let Inherited { limits, instances, mailbox, reload, .. } = Inherited::read(section, Some(base), findings);
    AgentSpec {
        component: component.unwrap_or_default(),
        build: section.written("build", findings).map(|build| Build {
            command: build.get("command", None, findings).unwrap_or_default(),
            watch: build.get("watch", None, findings).unwrap_or_default(),
        }),
        capabilities,
        instances,
        config: section.get("config", None, findings).unwrap_or_default(),
        allow: allow(section, cross, findings),
        limits,
        mailbox,
        http: routes(section, written, cross, findings),
        reload,
        name,
    }
}

fn allow(section: &Section<'_>, cross: &mut Cross, findings: &mut Findings) -> Allow {
    let Some(section) = section.written("allow", findings) else { return Allow::default() };
    let send: Vec<(Element, Place)> = section.get("send", None, findings).unwrap_or_default();
    let mut allow = Allow { env: section.get("env", None, findings).unwrap_or_default(), ..Allow::default() };
    for (index, (element, place)) in send.into_iter().enumerate() {
        if let Some(receiver) = element.receiver() {
            let at = At { key: format!("{}[{index}]", section.key("send")), place };
            cross.grant(receiver.clone(), at);
            allow.send.insert(receiver);
        }
    }
    allow
}

fn routes(section: &Section<'_>, agent: &str, cross: &mut Cross, findings: &mut Findings) -> Vec<Route> {
    let mut routes = Vec::new();
    for section in section.sections("http", findings) {
        let pattern = section.get("route", None, findings);
        let methods = section.get("methods", None, findings);
        let mode = match section.get("mode", None, findings) {
            Some("enqueue") => Mode::Enqueue,
            _ => Mode::Request,
        };
        if let (Some(pattern), Some(methods)) = (pattern, methods) {
            let route = Route { pattern, methods, mode };
            let at = At { key: section.key("route"), place: section.place("route") };
            cross.route(agent, &route, at, findings);
            routes.push(route);
        }
    }
    routes
}
